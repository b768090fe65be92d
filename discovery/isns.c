/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's side of the iSNS agent: starts it, tells it what is wanted, hears how it went. An
 * agent that ends is started again; what the discovery domains said last stays in force meanwhile.
 */
#define LOG_AREA "isns"
#include "discovery/isns.h"

#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/coroutine.h"
#include "util/list.h"
#include "util/log.h"
#include "util/loop.h"

#define AGAIN_S    5.
#define LINE_BYTES (1u << 20) /* a members line; more initiators than that are cut off */
#define CHECK_NS   UINT64_C(20000000)

struct members {
    struct list_head link;
    char *target;
    char *names; /* " name name ... " */
};

static struct {
    char *server;
    bool domains, stopping, running, registered;
    pid_t pid;
    int to_agent, from_agent;
    char *wanted; /* text for the agent */
    unsigned nr_targets;
    char error[256];
    char *line;
    size_t len;
    struct ev_io reader;
    struct ev_child child;
    struct ev_timer again;
    struct list_head members;
} sn;

bool sns_built_in(void)
{
#ifdef HAVE_LIBISNS
    return true;
#else
    return false;
#endif
}

/* ---- what the agent says ---------------------------------------------------------------- */

static struct members *find_members(const char *target)
{
    struct members *m;

    list_for_each_entry (m, &sn.members, link)
        if (!strcmp(m->target, target))
            return m;
    return NULL;
}

static void set_members(const char *target, const char *names)
{
    struct members *m = find_members(target);
    char *text;

    if (asprintf(&text, " %s ", names) < 0)
        return;
    if (!m) {
        m = calloc(1, sizeof(*m));
        if (m)
            m->target = strdup(target);
        if (!m || !m->target) {
            free(m);
            free(text);
            return;
        }
        list_add_tail(&sn.members, &m->link);
    }
    free(m->names);
    m->names = text;
}

static void take_line(char *line)
{
    char *rest = strchr(line, ' ');

    if (rest)
        *rest++ = '\0';
    if (!strcmp(line, "ok")) {
        if (!sn.registered)
            log_notice("registered at %s", sn.server);
        sn.registered = true;
        sn.nr_targets = rest ? (unsigned)strtoul(rest, NULL, 10) : 0;
        sn.error[0] = '\0';
    } else if (!strcmp(line, "failed")) {
        if (!sn.error[0])
            log_warn("%s: %s; trying again", sn.server, rest ? rest : "failed");
        sn.registered = false;
        snprintf(sn.error, sizeof(sn.error), "%s", rest ? rest : "failed");
    } else if (!strcmp(line, "members") && rest) {
        char *names = strchr(rest, ' ');

        if (names)
            *names++ = '\0';
        set_members(rest, names ? names : "");
    }
}

static void on_input(struct ev_loop *ev, struct ev_io *w, int revents)
{
    ssize_t got = read(w->fd, sn.line + sn.len, LINE_BYTES - 1 - sn.len);
    char *end;

    (void)revents;
    if (got <= 0) {
        if (!got || (errno != EAGAIN && errno != EINTR))
            ev_io_stop(ev, w);
        return;
    }
    sn.len += (size_t)got;
    sn.line[sn.len] = '\0';
    while ((end = strchr(sn.line, '\n'))) {
        *end++ = '\0';
        take_line(sn.line);
        sn.len -= (size_t)(end - sn.line);
        memmove(sn.line, end, sn.len + 1);
    }
    if (sn.len == LINE_BYTES - 1)
        sn.len = 0;
}

/* ---- the process ------------------------------------------------------------------------- */

/* The text is short and the agent reads all the time; one that does not is started again. */
static void tell(void)
{
    size_t len = sn.wanted ? strlen(sn.wanted) : 0;

    if (sn.running && len && write(sn.to_agent, sn.wanted, len) != (ssize_t)len)
        kill(sn.pid, SIGKILL);
}

static int spawn_agent(int in[2], int out[2])
{
    char *argv[] = {"cowtgtd", sn.domains ? "--isns-agent-domains" : "--isns-agent", sn.server,
                    NULL};
    posix_spawn_file_actions_t files;
    int ret = posix_spawn_file_actions_init(&files);

    if (ret)
        return ret;
    posix_spawn_file_actions_adddup2(&files, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
    ret = posix_spawn(&sn.pid, "/proc/self/exe", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    return ret;
}

static void on_child(struct ev_loop *ev, struct ev_child *w, int revents);

static int start_agent(void)
{
    int in[2], out[2], ret;

    if (pipe2(in, O_CLOEXEC))
        return errno;
    if (pipe2(out, O_CLOEXEC)) {
        ret = errno;
        close(in[0]);
        close(in[1]);
        return ret;
    }
    ret = spawn_agent(in, out);
    close(in[0]);
    close(out[1]);
    if (ret) {
        close(in[1]);
        close(out[0]);
        return ret;
    }
    sn.to_agent = in[1];
    sn.from_agent = out[0];
    fcntl(sn.to_agent, F_SETFL, O_NONBLOCK);
    fcntl(sn.to_agent, F_SETPIPE_SZ, 1 << 20);
    fcntl(sn.from_agent, F_SETFL, O_NONBLOCK);
    sn.running = true;
    sn.len = 0;
    ev_io_init(&sn.reader, on_input, sn.from_agent, EV_READ);
    ev_io_start(loop_ev(), &sn.reader);
    ev_child_init(&sn.child, on_child, sn.pid, 0);
    ev_child_start(loop_ev(), &sn.child);
    tell();
    return 0;
}

static void on_child(struct ev_loop *ev, struct ev_child *w, int revents)
{
    (void)revents;
    ev_child_stop(ev, w);
    ev_io_stop(ev, &sn.reader);
    close(sn.from_agent);
    if (sn.to_agent >= 0)
        close(sn.to_agent);
    sn.running = sn.registered = false;
    if (sn.stopping)
        return;
    log_warn("the agent ended with status %#x; started again", (unsigned)w->rstatus);
    ev_timer_again(ev, &sn.again);
}

static void on_again(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    (void)revents;
    if (!start_agent())
        ev_timer_stop(ev, t);
}

/* ---- for the others ----------------------------------------------------------------------- */

int sns_start(const char *server, bool discovery_domains, struct error *err)
{
    int ret;

    if (!sns_built_in())
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "built without iSNS: configure found no libisns");
    list_init(&sn.members);
    sn.server = strdup(server);
    sn.line = malloc(LINE_BYTES);
    sn.domains = discovery_domains;
    if (!sn.server || !sn.line)
        return error_set(err, ENOMEM, "out of memory");
    ev_timer_init(&sn.again, on_again, 0., AGAIN_S);
    ret = start_agent();
    return ret ? error_set(err, ret, "starting the iSNS agent: %s", strerror(ret)) : 0;
}

void sns_set(const struct sns_want *want)
{
    char *text = NULL;
    size_t bytes;
    FILE *f;

    if (!sn.server || sn.stopping)
        return;
    f = open_memstream(&text, &bytes);
    if (!f)
        return;
    fputs("begin\n", f);
    for (unsigned i = 0; i < want->nr_portals; i++)
        fprintf(f, "portal %s %u\n", want->portals[i].address, want->portals[i].group);
    for (unsigned i = 0; i < want->nr_targets; i++)
        fprintf(f, "target %s\n", want->targets[i]);
    fputs("end\n", f);
    if (fclose(f) || (sn.wanted && !strcmp(sn.wanted, text))) {
        free(text);
        return;
    }
    free(sn.wanted);
    sn.wanted = text;
    tell();
}

bool sns_get_status(struct sns_status *st)
{
    *st = (struct sns_status){sn.server, sn.registered, sn.nr_targets,
                              sn.error[0] ? sn.error : NULL, sn.domains};
    return sn.server;
}

bool sns_allows(const char *target, const char *initiator)
{
    const struct members *m;
    size_t len = strlen(initiator);

    if (!sn.server || !sn.domains)
        return true;
    m = find_members(target);
    for (const char *p = m ? m->names : NULL; p; p = strchr(p + 1, ' '))
        if (!strncasecmp(p + 1, initiator, len) && p[1 + len] == ' ')
            return true;
    return false;
}

void co_sns_stop(uint64_t limit_ns)
{
    uint64_t end = now_ns() + limit_ns;

    if (!sn.server)
        return;
    sn.stopping = true;
    ev_timer_stop(loop_ev(), &sn.again);
    if (sn.running) {
        close(sn.to_agent);
        sn.to_agent = -1;
    }
    while (sn.running && now_ns() < end)
        co_sleep(CHECK_NS);
    if (sn.running)
        kill(sn.pid, SIGKILL);
    while (sn.running)
        co_sleep(CHECK_NS);
}
