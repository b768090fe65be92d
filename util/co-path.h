/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is done to a file by its name. The co_ ones are for coroutines: they block a helper thread,
 * not the loop. Each: 0 or -errno.
 */
#ifndef COWTGT_UTIL_CO_PATH_H
#define COWTGT_UTIL_CO_PATH_H

#include <sys/stat.h>

/* Blocks. A new name in @dir is durable after it. */
int path_fsync_dir(const char *dir);

int co_path_fsync_dir(const char *dir);
/* The directory that @path, absolute and shorter than PATH_MAX, is in. */
int co_path_fsync_parent(const char *path);
/* The file's own contents. */
int co_path_fsync(const char *path);
int co_path_unlink(const char *path);
/* Follows symbolic links; *@st is as it was after an error. */
int co_path_stat(const char *path, struct stat *st);

#endif
