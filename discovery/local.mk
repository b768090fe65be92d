# Sources of discovery/
