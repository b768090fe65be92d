/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which engine serves an op. The one selected takes O_DIRECT files. A buffered read is first tried
 * without waiting, on the loop: what is in the page cache costs no switch. The rest goes to the
 * engine if it can (io_uring), else to helper threads: libaio blocks in io_submit on buffered
 * files. Buffered writes go to a thread a file, in batches, which is cheaper than the ring: there
 * too each would wake a thread.
 */
#define LOG_AREA "aio"
#include "lun-backends/aio.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/file.h"
#include "util/log.h"
#include "util/size.h"

/* In the order in which "auto" tries them. */
static const struct aio_engine *const engines[] = {
    &aio_libaio,
#ifdef HAVE_LIBURING
    &aio_uring,
#endif
    &aio_threads,
};
#ifdef HAVE_LIBURING
#define ENGINE_NAMES "auto, libaio, io_uring or threads"
#else
#define ENGINE_NAMES "auto, libaio or threads (built without io_uring)"
#endif
static const struct aio_engine *direct_engine;

/* The first that starts, but for @but. */
static const struct aio_engine *start_any(const struct aio_engine *but)
{
    for (size_t i = 0; i < ARRAY_LEN(engines); i++) {
        int ret = engines[i] == but ? -EAGAIN : engines[i]->init();

        if (!ret)
            return engines[i];
        if (engines[i] != but)
            log_notice("disk engine %s does not start: %s", engines[i]->name, strerror(-ret));
    }
    return NULL;
}

/* What the system forbids or has no room for must not keep a daemon from serving. */
static int select_one(const struct aio_engine *e, struct error *err)
{
    int ret = e->init();
    const struct aio_engine *instead = ret ? direct_engine : e;

    if (!instead)
        instead = start_any(e);
    if (!instead)
        return error_set(err, -ret, "starting disk engine %s: %s", e->name, strerror(-ret));
    if (ret)
        log_warn("disk engine %s does not start here: %s; %s instead", e->name, strerror(-ret),
                 instead->name);
    if (direct_engine && direct_engine != instead)
        direct_engine->fini();
    direct_engine = instead;
    return 0;
}

int aio_select_engine(const char *name, struct error *err)
{
    if (!strcmp(name, "auto"))
        name = aio_engine_name();
    for (size_t i = 0; i < ARRAY_LEN(engines); i++) {
        if (!strcmp(name, engines[i]->name))
            return engines[i] == direct_engine ? 0 : select_one(engines[i], err);
    }
    return error_set(err, EINVAL, "no disk engine '%s': " ENGINE_NAMES, name);
}

/* What $COWTGT_AIO names, or else the best that starts. */
static const struct aio_engine *engine(void)
{
    const char *name = direct_engine ? NULL : getenv("COWTGT_AIO");
    struct error err = ERROR_INIT;

    if (name && strcmp(name, "auto") && aio_select_engine(name, &err))
        log_err("COWTGT_AIO: %s", err.msg);
    if (!direct_engine)
        direct_engine = start_any(NULL);
    return direct_engine;
}

const char *aio_engine_name(void)
{
    return engine()->name;
}

void aio_submit(struct aio_op *op)
{
    op->done_bytes = 0;
    if (op->may_block) {
        aio_to_thread(op);
    } else if (!op->direct && aio_try_now(op)) {
        op->done(op);
    } else if (!op->direct && op->write && op->writer) {
        aio_write_cached(op);
    } else if ((op->direct || engine()->buffered) && op->niov <= IOV_MAX) {
        op->done_bytes = 0; /* an engine starts over */
        engine()->submit(op);
    } else {
        aio_to_thread(op);
    }
}

bool aio_registers_files(void)
{
    return engine()->add_file;
}

unsigned aio_add_file(int fd)
{
    return engine()->add_file ? engine()->add_file(fd) : 0;
}

void aio_del_file(unsigned file_slot)
{
    if (file_slot && engine()->del_file)
        engine()->del_file(file_slot);
}
