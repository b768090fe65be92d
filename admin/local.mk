# Sources of admin/
