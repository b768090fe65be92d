# Sources of docs/
