/* SPDX-License-Identifier: BSD-3-Clause */
/* Files by their names, on helper threads; see co-path.h. */
#include "util/co-path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/workers.h"

struct path_work {
    const char *path;
    struct stat *st;
};

static int fsync_opened(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags), ret;

    if (fd < 0)
        return -errno;
    ret = fsync(fd) ? -errno : 0;
    close(fd);
    return ret;
}

int path_fsync_dir(const char *dir)
{
    return fsync_opened(dir, O_DIRECTORY);
}

static int do_fsync_dir(void *arg)
{
    return path_fsync_dir(((const struct path_work *)arg)->path);
}

static int do_fsync(void *arg)
{
    return fsync_opened(((const struct path_work *)arg)->path, 0);
}

static int do_unlink(void *arg)
{
    return unlink(((const struct path_work *)arg)->path) ? -errno : 0;
}

static int do_stat(void *arg)
{
    const struct path_work *w = arg;

    return stat(w->path, w->st) ? -errno : 0;
}

int co_path_fsync_dir(const char *dir)
{
    struct path_work w = {.path = dir};

    return co_work(do_fsync_dir, &w);
}

int co_path_fsync_parent(const char *path)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int len = slash ? (int)(slash - path) : 0;

    if (!slash)
        return -EINVAL;
    if (snprintf(dir, sizeof(dir), "%.*s", len ? len : 1, path) >= (int)sizeof(dir))
        return -ENAMETOOLONG;
    return co_path_fsync_dir(dir);
}

int co_path_fsync(const char *path)
{
    struct path_work w = {.path = path};

    return co_work(do_fsync, &w);
}

int co_path_unlink(const char *path)
{
    struct path_work w = {.path = path};

    return co_work(do_unlink, &w);
}

int co_path_stat(const char *path, struct stat *st)
{
    struct path_work w = {.path = path, .st = st};

    return co_work(do_stat, &w);
}
