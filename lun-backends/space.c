/* SPDX-License-Identifier: BSD-3-Clause */
/* See space.h. stat(2) and statvfs(3) may wait for a disk or a server: on a helper thread. */
#include "lun-backends/space.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include "util/workers.h"

struct ask {
    char *path;
    struct blk_space *space;
};

static int ask_host(void *arg)
{
    struct ask *a = arg;
    struct statvfs fs;
    struct stat st;

    if (stat(a->path, &st) || statvfs(a->path, &fs))
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -ENOTSUP;
    a->space->used_bytes = (uint64_t)st.st_blocks * 512;
    a->space->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return 0;
}

int co_blk_space(struct blk_node *node, struct blk_space *space)
{
    struct ask a = {.space = space};
    int ret;

    while (node->file.child)
        node = node->file.child;
    if (!node->filename || strcmp(node->drv->name, "file"))
        return -ENOTSUP;
    a.path = strdup(node->filename);
    if (!a.path)
        return -ENOMEM;
    ret = co_work(ask_host, &a);
    free(a.path);
    return ret;
}
