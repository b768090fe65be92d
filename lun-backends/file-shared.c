/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files that several nodes of this process read. With the first of them alone cache=none means
 * what it says; as soon as there is a second, all read through the page cache, so that what many
 * disks have below them is fetched once for all. A node that may write never shares.
 */
#define LOG_AREA "file"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "lun-backends/file-int.h"
#include "util/log.h"

static struct list_head readers = LIST_HEAD_INIT(readers);

/* What is under way goes on past the page cache; the engine's own way into the file is not used
 * any more, for that one stays O_DIRECT. */
static void go_buffered(struct file_node *f)
{
    if (!f->direct)
        return;
    if (fcntl(f->fd, F_SETFL, 0)) {
        log_warn("'%s' is shared, but stays past the page cache: %s", f->node.filename,
                 strerror(errno));
        return;
    }
    f->direct = false;
    f->was_direct = true;
    f->offset_align = f->mem_align = 1;
}

void file_share(struct file_node *f)
{
    struct file_node *other;
    bool shared = false;

    list_for_each_entry (other, &readers, reader_link) {
        if (other->identity.dev != f->identity.dev || other->identity.inode != f->identity.inode)
            continue;
        shared = true;
        if (other->direct)
            log_info("'%s' is read by several disks: through the page cache from now on",
                     f->node.filename);
        go_buffered(other);
    }
    if (shared)
        go_buffered(f);
    list_add_tail(&readers, &f->reader_link);
}

void file_unshare(struct file_node *f)
{
    if (list_is_linked(&f->reader_link))
        list_del(&f->reader_link);
}
