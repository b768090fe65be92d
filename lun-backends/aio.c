/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which engine serves an op. The one selected takes O_DIRECT files, helper threads everything
 * else: libaio blocks in io_submit on buffered files.
 */
#define LOG_AREA "aio"
#include "lun-backends/aio.h"

#include <errno.h>
#include <string.h>

#include "lun-backends/file.h"
#include "util/log.h"
#include "util/size.h"

static const struct aio_engine *const engines[] = {&aio_libaio, &aio_threads};
static const struct aio_engine *direct_engine;

int aio_select_engine(const char *name, struct error *err)
{
    int ret;

    if (!strcmp(name, "auto"))
        name = aio_engine_name();
    for (size_t i = 0; i < ARRAY_LEN(engines); i++) {
        if (strcmp(name, engines[i]->name) || engines[i] == direct_engine)
            continue;
        ret = engines[i]->init();
        if (ret)
            return error_set(err, -ret, "starting disk engine %s: %s", name, strerror(-ret));
        if (direct_engine)
            direct_engine->fini();
        direct_engine = engines[i];
    }
    if (!direct_engine || strcmp(name, direct_engine->name))
        return error_set(err, EINVAL, "no disk engine '%s': auto, libaio or threads", name);
    return 0;
}

/* The best that starts. */
static const struct aio_engine *engine(void)
{
    for (size_t i = 0; !direct_engine && i < ARRAY_LEN(engines); i++) {
        int ret = engines[i]->init();

        if (!ret)
            direct_engine = engines[i];
        else
            log_notice("disk engine %s does not start: %s", engines[i]->name, strerror(-ret));
    }
    return direct_engine;
}

const char *aio_engine_name(void)
{
    return engine()->name;
}

void aio_submit(struct aio_op *op)
{
    op->done_bytes = 0;
    if (op->may_block)
        aio_to_thread(op);
    else if (op->direct)
        engine()->submit(op);
    else
        aio_threads.submit(op);
}
