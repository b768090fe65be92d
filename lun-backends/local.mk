# Sources of lun-backends/
