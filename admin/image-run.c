/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs an image command: a loop, helper threads and the block core for as long as it takes. */
#include "admin/image.h"

#include <ev.h>
#include <string.h>

#include "util/coroutine.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"
#include "util/workers.h"

#define HELPER_THREADS 8

static const struct {
    const char *verb;
    image_fn *co_run;
} verbs[] = {
    {"create", co_image_create}, {"info", co_image_info},       {"map", co_image_map},
    {"check", co_image_check},   {"convert", co_image_convert}, {"rebase", co_image_rebase},
    {"commit", co_image_commit}, {"compare", co_image_compare}, {"resize", co_image_resize},
    {"update", co_image_update},
};

struct run {
    image_fn *co_run;
    json_t *args;
    int status;
    bool done;
};

static void run_co(void *arg)
{
    struct run *r = arg;

    r->status = r->co_run(r->args);
    while (blk_closing())
        co_sleep(UINT64_C(100000));
    r->done = true;
    loop_stop();
}

int cli_run_image(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    struct run r = {.args = args};

    if (cli->json && !json_object_get(args, "output"))
        json_object_set_new(args, "output", json_string("json"));
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (!strcmp(verbs[i].verb, cmd->verb))
            r.co_run = verbs[i].co_run;
    if (log_level_now > LOG_LVL_WARNING)
        log_set_level(LOG_LVL_WARNING);
    if (!r.co_run || loop_init() || workers_init(HELPER_THREADS) || blk_init())
        return cli_fail("the kernel refuses what an event loop needs (epoll, eventfd, threads)");
    ev_ref(loop_ev()); /* helper threads alone would not keep it going */
    co_spawn(run_co, &r);
    if (!r.done)
        loop_run();
    ev_unref(loop_ev());
    blk_fini();
    workers_fini();
    loop_fini();
    return r.status;
}
