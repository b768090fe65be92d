/* SPDX-License-Identifier: BSD-3-Clause */
/* Jobs: list, show, wait with progress, cancel. */
#include "admin/cli.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "admin/qmp-client.h"
#include "util/size.h"

#define POLL_MS       200
#define PLAIN_LINE_S  5.0
#define BAR_CHARS     30
#define RATE_WINDOW_S 1.0

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void catch_interrupt(void)
{
    struct sigaction sa = {.sa_handler = on_interrupt}; /* no SA_RESTART: poll() has to end */

    sigaction(SIGINT, &sa, NULL);
}

static double now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double percent(const json_t *job)
{
    long long len = cli_int(job, "len");

    return len ? 100.0 * (double)cli_int(job, "offset") / (double)len : 0;
}

static void put_job(const json_t *job)
{
    const char *status = cli_str(job, "status");

    if (cli_bool(job, "paused") && !strcmp(status, "running"))
        status = "pausing";
    printf("%s  %s  %s  %.1f %%  ", cli_str(job, "device"), cli_str(job, "type"), status,
           percent(job));
    cli_put_size(cli_int(job, "offset"));
    fputs(" of ", stdout);
    cli_put_size(cli_int(job, "len"));
    if (cli_int(job, "speed")) {
        fputs("  limit ", stdout);
        cli_put_size(cli_int(job, "speed"));
        fputs("/s", stdout);
    }
    if (cli_int(job, "rate")) {
        fputs("  ", stdout);
        cli_put_size(cli_int(job, "rate"));
        printf("/s, %lld s left", cli_int(job, "seconds-left"));
    }
    if (strcmp(cli_str(job, "io-status"), "ok"))
        printf("  stopped by an error: %s", cli_str(job, "io-status"));
    putchar('\n');
}

int cli_run_job_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *list, *job;
    int status = cli_execute(cli, cmd->execute, args, &list);
    size_t i;

    json_array_foreach (list, i, job)
        put_job(job);
    json_decref(list);
    return status;
}

/* A running job; *job NULL if there is none of this name. */
static int ask_job(struct cli *cli, const char *id, json_t **job)
{
    json_t *args = json_pack("{s:s}", "device", id), *list;
    int status = cli_ask(cli, "query-block-jobs", args, &list);

    *job = json_incref(json_array_get(list, 0));
    json_decref(list);
    json_decref(args);
    return status;
}

/* Says how the last job of this name ended: 0 if well. */
static int report_end(struct cli *cli, const char *id)
{
    json_t *args = json_pack("{s:s}", "device", id), *list;
    int status = cli_ask_last(cli, "query-job-history", args, &list);
    const json_t *ended = json_array_get(list, 0);
    const char *result = cli_str(ended, "result");

    if (ended && !strcmp(result, "failed"))
        status = cli_fail("job '%s' failed: %s", id, cli_str(ended, "error"));
    else if (ended && !cli->json)
        printf("%s: %s\n", id, result);
    json_decref(list);
    json_decref(args);
    return status;
}

int cli_run_job_show(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    const char *id = cli_str(args, "device");
    json_t *job, *reply;
    int status = ask_job(cli, id, &job);

    (void)cmd;
    if (status)
        return status;
    if (!job)
        return report_end(cli, id);
    if (cli->json) {
        reply = json_pack("{s:[O]}", "return", job); /* as it came */
        json_dumpf(reply, stdout, 0);
        putchar('\n');
        json_decref(reply);
    } else {
        put_job(job);
    }
    json_decref(job);
    return CLI_OK;
}

/* ---- waiting ------------------------------------------------------------------------------ */

struct progress {
    bool bar;   /* standard output is a terminal */
    bool quiet; /* --json */
    bool bar_drawn;
    double rate_since_s, next_line_s;
    long long rate_from;
    double rate; /* bytes/s, -1: not known yet */
};

static void update_rate(struct progress *p, long long offset)
{
    double now = now_s();

    if (p->rate_since_s == 0 || offset < p->rate_from) {
        p->rate_since_s = now;
        p->rate_from = offset;
    } else if (now - p->rate_since_s >= RATE_WINDOW_S) {
        p->rate = (double)(offset - p->rate_from) / (now - p->rate_since_s);
        p->rate_since_s = now;
        p->rate_from = offset;
    }
}

static void put_numbers(const struct progress *p, const json_t *job)
{
    printf("%5.1f %%  ", percent(job));
    cli_put_size(cli_int(job, "offset"));
    fputs(" of ", stdout);
    cli_put_size(cli_int(job, "len"));
    if (cli_bool(job, "paused"))
        fputs("  paused", stdout);
    else if (p->rate >= 0) {
        fputs("  ", stdout);
        cli_put_size((long long)p->rate);
        fputs("/s", stdout);
    }
}

static void put_bar(struct progress *p, const char *id, const json_t *job)
{
    int filled = (int)(percent(job) / 100 * BAR_CHARS);

    printf("\r%s [", id);
    for (int i = 0; i < BAR_CHARS; i++)
        putchar(i < filled ? '#' : ' ');
    fputs("] ", stdout);
    put_numbers(p, job);
    fputs("\033[K", stdout); /* to the end of the line */
    p->bar_drawn = true;
    fflush(stdout);
}

static void show_progress(struct progress *p, const char *id, const json_t *job)
{
    update_rate(p, cli_int(job, "offset"));
    if (p->quiet)
        return;
    if (p->bar) {
        put_bar(p, id, job);
    } else if (now_s() >= p->next_line_s) {
        printf("%s: ", id);
        put_numbers(p, job);
        putchar('\n');
        fflush(stdout);
        p->next_line_s = now_s() + PLAIN_LINE_S;
    }
}

static void end_bar(struct progress *p)
{
    if (p->bar_drawn)
        putchar('\n');
    p->bar_drawn = false;
}

/* A while, or until something happens in the daemon. Events are only a reason to look again. */
static int pause_between(struct cli *cli)
{
    struct error err = ERROR_INIT;
    json_t *event = NULL;
    int ret = qmp_client_event(cli->qmp, POLL_MS, &event, &err);

    json_decref(event);
    return ret < 0 ? cli_fail("%s", err.msg) : CLI_OK;
}

enum wait_for { UNTIL_END, UNTIL_READY };

/* READY: with its end, or when it is ready. */
static int wait_for_job(struct cli *cli, const char *id, enum wait_for what, bool *ready)
{
    struct progress p = {
        .bar = isatty(STDOUT_FILENO) && !cli->json,
        .quiet = cli->json,
        .rate = -1,
    };
    json_t *job;
    int status;

    catch_interrupt();
    for (;;) {
        status = ask_job(cli, id, &job);
        if (status || !job || !strcmp(cli_str(job, "status"), "concluded"))
            break;
        show_progress(&p, id, job);
        *ready = !strcmp(cli_str(job, "status"), "ready");
        json_decref(job);
        if (*ready && what == UNTIL_READY) {
            end_bar(&p);
            return CLI_OK;
        }
        status = pause_between(cli);
        if (status)
            break;
        if (interrupted) {
            end_bar(&p);
            return cli_fail(
                "no longer waiting; job '%s' goes on in the daemon (cowtgt job wait %s)", id, id);
        }
    }
    end_bar(&p);
    if (status)
        return status;
    json_decref(job);
    return report_end(cli, id);
}

static int wait_for_end(struct cli *cli, const char *id)
{
    bool ignored;

    return wait_for_job(cli, id, UNTIL_END, &ignored);
}

int cli_run_job_wait(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    (void)cmd;
    return wait_for_end(cli, cli_str(args, "device"));
}

/* The commit runs in the daemon; here it is waited for. */
int cli_run_chain_commit(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *ret;
    int status = cli_ask(cli, cmd->execute, args, &ret);

    json_decref(ret);
    return status ? status : wait_for_end(cli, cli_str(args, "name"));
}

/* Until the copy is complete; with --switch to the end. */
int cli_run_chain_mirror(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    const char *name = cli_str(args, "name");
    bool to_end = cli_bool(args, "switch"), ready = false;
    json_t *ret;
    int status = cli_ask(cli, cmd->execute, args, &ret);

    json_decref(ret);
    if (!status)
        status = wait_for_job(cli, name, to_end ? UNTIL_END : UNTIL_READY, &ready);
    if (!status && ready && !to_end && !cli->json) {
        cli_put(cli_str(args, "to"));
        printf(" is complete and follows the disk\n"
               "cowtgt job complete %s: the disk is there from then on\n"
               "cowtgt job cancel %s: it stays as it is at that moment\n",
               name, name);
    }
    return status;
}

/* A mirror that is ready ends in order; any other job is cancelled, a paused one, too. */
static bool leaves_a_copy(struct cli *cli, const char *id)
{
    json_t *job = NULL;
    bool leaves = !ask_job(cli, id, &job) && job && !strcmp(cli_str(job, "type"), "mirror") &&
                  !strcmp(cli_str(job, "status"), "ready");

    json_decref(job);
    return leaves;
}

int cli_run_job_cancel(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *ret;
    int status;

    if (!leaves_a_copy(cli, cli_str(args, "device")))
        json_object_set_new(args, "force", json_true());
    status = cli_ask(cli, cmd->execute, args, &ret);
    json_decref(ret);
    return status ? status : wait_for_end(cli, cli_str(args, "device"));
}
