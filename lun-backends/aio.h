/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Engines that move bytes between memory and an open file without blocking the loop.
 * For file-*.c only.
 *
 * An op is whole: done() is called once, on the loop, with result 0 or -errno, perhaps before
 * aio_submit() has returned. Reads past the end of the file give zeros. With O_DIRECT the caller
 * has made offset, length and every buffer fit; writes stay inside the file's size.
 */
#ifndef COWTGT_AIO_H
#define COWTGT_AIO_H

#include <libaio.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "util/error.h"
#include "util/list.h"
#include "util/loop.h"
#include "util/workers.h"

/* The writes of one file to the page cache, which go one batch after the other. Owned by the file;
 * no op may be under way when it goes. */
struct aio_writer {
    struct list_head waiting;
    struct deferred defer;
    bool busy;
};

void aio_writer_init(struct aio_writer *writer);

struct aio_op {
    int fd;
    bool write;
    bool direct;               /* fd is O_DIRECT */
    bool may_block;            /* to a helper thread at once */
    bool nowait;               /* what would wait in the kernel is to fail -EAGAIN instead */
    uint32_t align_bytes;      /* of fd's offsets; 1 if buffered */
    unsigned file_slot;        /* from aio_add_file(); 0: none */
    struct aio_writer *writer; /* of a buffered file */
    const struct iovec *iov;
    int niov;
    uint64_t offset_bytes;
    uint64_t length_bytes;
    void (*done)(struct aio_op *op);
    int result;

    /* the engine's */
    uint64_t done_bytes;
    struct list_head link;
    union {
        struct iocb iocb;
        struct work work;
    } u;
};

struct aio_engine {
    const char *name;
    bool buffered;     /* takes ops on buffered files too */
    int (*init)(void); /* 0 or -errno */
    void (*fini)(void);
    void (*submit)(struct aio_op *op);
    /* What is told to the kernel of a file that stays open; may be NULL. */
    unsigned (*add_file)(int fd);
    void (*del_file)(unsigned file_slot);
};

extern const struct aio_engine aio_libaio, aio_threads, aio_uring;

/*
 * How many ops go to the kernel, or completions back, in one piece: few at first, then more each
 * time. A disk that has run dry and an initiator that waits get something to do while the rest is
 * worked on; in pieces of a whole turn each would wait for the other.
 */
#define AIO_FIRST_SUBMIT 2 /* then 4, 8, ... of a turn */
#define AIO_FIRST_REAP   8 /* then 32, 128, while there are as many */
#define AIO_REAP_GROWTH  4

void aio_submit(struct aio_op *op);

/*
 * A file that will see many ops: a name for it in them, 0 where the engine has none. @fd is opened
 * for that alone and may be closed after the call: the kernel lets go of a killed process's files
 * late, so it must not hold one that carries locks. Given back when no op is under way.
 */
bool aio_registers_files(void);
unsigned aio_add_file(int fd);
void aio_del_file(unsigned file_slot);

/* A buffered read of what is in the page cache; true: it was all there, and result is set. */
bool aio_try_now(struct aio_op *op);

/* Takes what an engine got for op (bytes, or -errno): true if the op is complete now, result set.
 */
bool aio_account(struct aio_op *op, int64_t got);

/* A write to the page cache: on a thread, together with others of the same writer. */
void aio_write_cached(struct aio_op *op);

/* The others' rest: what came short or would have blocked. */
void aio_to_thread(struct aio_op *op);

#endif
