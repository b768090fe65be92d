# Sources of target/
