/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file node: bytes of a regular file or block device, through an aio engine.
 *
 * Accepts any byte range (limits.align_bytes = 1): what is below the file's own alignment is
 * read-modify-write under a range lock; buffers that O_DIRECT can't take are bounced. Writes may
 * go past the end: the file grows by fallocate in large steps on a helper thread before the
 * write (size_bytes follows; co_inactivate/close truncates the unused tail away).
 * WRITE_ZEROES and DISCARD punch or zero ranges (never BLKDISCARD alone), FLUSH is fdatasync,
 * STATUS is SEEK_DATA / SEEK_HOLE: DATA, or ZERO for holes.
 */
#ifndef COWTGT_FILE_H
#define COWTGT_FILE_H

#include <sys/stat.h>
#include "lun-backends/block.h"

enum file_cache {
    FILE_CACHE_AUTO,      /* O_DIRECT if writable, page cache if not */
    FILE_CACHE_NONE,      /* O_DIRECT (buffered with a notice where it is refused) */
    FILE_CACHE_WRITEBACK, /* page cache */
};
/* "auto", "none", "writeback"; false: none of these. */
bool file_cache_from_name(const char *name, enum file_cache *cache);

struct file_opts {
    bool writable;
    bool create;  /* O_CREAT | O_EXCL, mode 0600 & ~umask... 0644 style is the caller's umask */
    bool no_lock; /* take no OFD locks (only for tests and read-only tools with -U) */
    enum file_cache cache;
};

/* What tells one state of a file from another (COW layer extension, section 1). */
struct file_identity {
    uint64_t dev, inode, size_bytes;
    int64_t mtime_ns, ctime_ns;
    bool is_device; /* a block device: writes leave no trace in any of these */
};

/*
 * Opens @path. Locks as QEMU takes them (OFD locks on bytes 100.. held permissions, 200..
 * permissions not shared): a reader lets other readers in and keeps writers and resizers out, a
 * writer keeps everyone else who does not share writing out. Conflict: ERR_DEVICE_IN_USE, EAGAIN.
 */
int co_file_open(const char *path, const struct file_opts *opts, struct blk_node **node,
                 struct error *err);
/* As when it was opened last (co_blk_reopen() counts); for a file node only. */
void file_node_identity(const struct blk_node *node, struct file_identity *id);
/* Real (stat) size of the file, without preallocated tail; file nodes only. */
uint64_t file_node_length(const struct blk_node *node);
bool file_node_is_direct(const struct blk_node *node);
bool file_node_is_device(const struct blk_node *node);
enum file_cache file_node_cache(const struct blk_node *node);
/* In a coroutine, nothing in flight: opens the file once more, in that mode. It stays locked. */
int co_file_set_cache(struct blk_node *node, enum file_cache cache, struct error *err);
/* Bytes allocated on disk (st_blocks), on a helper thread; -errno. */
int co_file_allocated_bytes(const struct blk_node *node, uint64_t *bytes);

/* "auto", "libaio", "threads", or "io_uring" where it was built in; call before the first open.
 * One that the system does not let start is logged, and another one is taken. */
int aio_select_engine(const char *name, struct error *err);
const char *aio_engine_name(void);

#endif
