/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's main. Start: state, chains, portals, control socket, in this order, so that a
 * control socket that answers means that everything is served. End: sessions, jobs, chains, state,
 * each waiting for the one before.
 */
#define LOG_AREA "daemon"
#include <errno.h>
#include <ev.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/accounts.h"
#include "admin/background.h"
#include "admin/chains.h"
#include "admin/commands.h"
#include "admin/control.h"
#include "admin/events.h"
#include "admin/isns.h"
#include "admin/paths.h"
#include "admin/reservations.h"
#include "admin/state.h"
#include "discovery/isns.h"
#include "lun-backends/block.h"
#include "lun-backends/file.h"
#include "target/target.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/workers.h"

#define MAX_PORTALS      64
#define HELPER_THREADS   16
#define SESSION_GRACE_NS UINT64_C(5000000000)
#define ISNS_LIMIT_NS    UINT64_C(3000000000)

struct options {
    bool foreground;
    const char *portals[MAX_PORTALS];
    unsigned nr_portals;
    const char *aio, *log_to, *isns;
    bool isns_domains;
    char socket[PATH_MAX], state_dir[PATH_MAX];
};

static struct main_state {
    struct options opts;
    struct daemon d;
    struct ev_signal sigterm, sigint, sighup;
    bool started, stop_asked;
    bool handlers_left;      /* commands that wait for the outside, a name server for instance */
    const char *stop_reason; /* QMP's ShutdownCause */
    int exit_status;
} m;

#ifdef HAVE_LIBURING
#define AIO_URING "io_uring, "
#else
#define AIO_URING ""
#endif

static const char usage_text[] =
    "usage: cowtgtd [-f] [-p ADDR[:PORT]]... [-c SOCKET] [-s STATE_DIR] [-l LEVELS]\n"
    "Serves chains of copy-on-write disk images over iSCSI; cowtgt(1) tells it which.\n"
    "  -f, --foreground     stay in the foreground, log on standard error\n"
    "  -p, --portal ADDR    listen on ADDR[:PORT][,advertise=HOST[:PORT]][,group=N], repeatable\n"
    "                       (default " DEFAULT_PORTAL ")\n"
    "  -c, --control PATH   control socket\n"
    "  -s, --state DIR      directory of what survives a restart\n"
    "  -l, --log-level L    error, warning, notice (default), info or debug; also AREA=L, several\n"
    "                       with commas; cowtgt log list shows the areas\n"
    "      --log-to PLACE   stderr, journald or auto (default: journald if standard error leads "
    "there)\n"
    "      --aio ENGINE     how files are read and written: auto (default), libaio, " AIO_URING
    "threads\n"
    "      --isns SERVER    tell an iSNS server of our targets, HOST[:PORT]\n"
    "      --isns-domains   and let its discovery domains say who may log in\n"
    "  -h, --help, -V, --version\n";

static const struct option long_options[] = {
    {"foreground", no_argument, NULL, 'f'},      {"portal", required_argument, NULL, 'p'},
    {"control", required_argument, NULL, 'c'},   {"state", required_argument, NULL, 's'},
    {"log-level", required_argument, NULL, 'l'}, {"log-to", required_argument, NULL, 'L'},
    {"aio", required_argument, NULL, 'a'},       {"help", no_argument, NULL, 'h'},
    {"isns", required_argument, NULL, 'i'},      {"isns-domains", no_argument, NULL, 'd'},
    {"version", no_argument, NULL, 'V'},         {NULL, 0, NULL, 0},
};

static void die_usage(const char *what, const char *arg)
{
    fprintf(stderr, "cowtgtd: %s%s (try cowtgtd --help)\n", what, arg ? arg : "");
    exit(2);
}

static void die(const char *what)
{
    background_complain(what);
    exit(1);
}

static void take_path(const char *path, char out[PATH_MAX])
{
    if (path_absolute(path, out, PATH_MAX))
        die_usage("name too long: ", path);
}

static void parse_options(int argc, char **argv, struct options *o)
{
    struct error err = ERROR_INIT;
    int c;

    while ((c = getopt_long(argc, argv, "fp:c:s:l:hV", long_options, NULL)) != -1) {
        switch (c) {
        case 'f':
            o->foreground = true;
            break;
        case 'p':
            if (o->nr_portals == MAX_PORTALS)
                die_usage("too many portals", NULL);
            o->portals[o->nr_portals++] = optarg;
            break;
        case 'c':
            take_path(optarg, o->socket);
            break;
        case 's':
            take_path(optarg, o->state_dir);
            break;
        case 'l':
            if (log_set_levels(optarg, &err))
                die_usage(err.msg, NULL);
            break;
        case 'L':
            o->log_to = optarg;
            break;
        case 'a':
            o->aio = optarg;
            break;
        case 'i':
            o->isns = optarg;
            break;
        case 'd':
            o->isns_domains = true;
            break;
        case 'h':
            fputs(usage_text, stdout);
            exit(0);
        case 'V':
            puts("cowtgtd " PACKAGE_VERSION);
            exit(0);
        default:
            exit(2);
        }
    }
    if (optind < argc)
        die_usage("unexpected argument: ", argv[optind]);
    if (o->isns_domains && !o->isns)
        die_usage("--isns-domains goes with --isns", NULL);
    if (!*o->socket && path_default_socket(o->socket, sizeof(o->socket), &err))
        die(err.msg);
    if (!*o->state_dir && path_default_state_dir(o->state_dir, sizeof(o->state_dir), &err))
        die(err.msg);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void co_stop(void *arg)
{
    struct daemon *d = arg;

    service_notify("STOPPING=1");
    if (!m.exit_status) /* a start that failed has said so in one line */
        log_notice("ending: finishing what is in flight");
    d->shutting_down = true;
    event_emit(d, "SHUTDOWN", json_pack("{s:b, s:s}", "guest", 0, "reason", m.stop_reason));
    chains_cancel_jobs(d);
    co_sns_stop(ISNS_LIMIT_NS);
    co_portals_close_all(SESSION_GRACE_NS);
    co_chains_close_all(d);
    while (blk_closing())
        co_sleep(1000000);
    if (d->control && !co_control_close(d->control))
        m.handlers_left = true;
    d->control = NULL;
    accounts_close(d->accounts);
    d->accounts = NULL;
    state_close(d->state);
    d->state = NULL;
    if (!m.exit_status)
        log_notice("ended");
    loop_stop();
}

/* While it is still starting, the start's coroutine looks at stop_asked when it is through. */
static void stop_for(struct daemon *d, const char *reason)
{
    if (m.stop_asked)
        return;
    m.stop_asked = true;
    m.stop_reason = reason;
    if (m.started)
        co_spawn(co_stop, d);
}

static void stop_for_command(struct daemon *d)
{
    stop_for(d, "host-qmp-quit");
}

static void on_stop_signal(struct ev_loop *ev, struct ev_signal *w, int revents)
{
    (void)ev;
    (void)revents;
    if (m.stop_asked && w->signum == SIGINT) {
        log_err("interrupted again: ending at once");
        _exit(1);
    }
    stop_for(&m.d, "host-signal");
}

static void on_hangup(struct ev_loop *ev, struct ev_signal *w, int revents)
{
    (void)ev;
    (void)w;
    (void)revents;
    background_reopen_log();
}

/* ---- the start ------------------------------------------------------------------------------ */

static int make_socket_dir(const char *socket, struct error *err)
{
    char dir[PATH_MAX], *slash;
    struct stat st;

    strcpy(dir, socket);
    slash = strrchr(dir, '/');
    if (slash == dir)
        return 0;
    *slash = '\0';
    if (stat(dir, &st) && path_make_dirs(dir, 0700))
        return error_set(err, errno, "can't make %s for the control socket: %s", dir,
                         strerror(errno));
    return 0;
}

/* Those of the command line and those added later; the default one where there are none. */
static int open_portals(const struct daemon *d, struct error *err)
{
    const struct string_list *added = &d->state->portals;

    if (!d->nr_fixed_portals && !added->nr)
        return portal_open(DEFAULT_PORTAL, err);
    for (unsigned i = 0; i < d->nr_fixed_portals; i++) {
        if (portal_open(d->fixed_portals[i], err))
            return -err->errnum;
    }
    for (unsigned i = 0; i < added->nr; i++) {
        if (!portal_name_at(added->items[i]) && portal_open(added->items[i], err))
            return error_prefix(err, "portal added by portal add");
    }
    return 0;
}

static int co_open_all(struct error *err)
{
    static const struct control_ops ops = {
        .greeting = commands_greeting,
        .co_answer = commands_co_answer,
    };
    struct daemon *d = &m.d;

    co_chains_reopen(d);
    if (open_portals(d, err))
        return -err->errnum;
    if (m.opts.isns && sns_follow(m.opts.isns, m.opts.isns_domains, err))
        return -err->errnum;
    return control_open(m.opts.socket, &ops, d, &d->control, err);
}

static void tell_ready(void)
{
    char text[64];

    background_ready();
    snprintf(text, sizeof(text), "READY=1\nMAINPID=%d", (int)getpid());
    service_notify(text);
    log_notice("ready: control socket %s", m.opts.socket);
}

static void co_start(void *arg)
{
    struct error err = ERROR_INIT;

    (void)arg;
    if (co_open_all(&err)) {
        background_complain(err.msg);
        m.exit_status = 1;
        stop_for(&m.d, "host-error");
    } else {
        tell_ready();
    }
    m.started = true;
    if (m.stop_asked)
        co_stop(&m.d);
}

static void watch_signals(void)
{
    ev_signal_init(&m.sigterm, on_stop_signal, SIGTERM);
    ev_signal_init(&m.sigint, on_stop_signal, SIGINT);
    ev_signal_init(&m.sighup, on_hangup, SIGHUP);
    ev_signal_start(loop_ev(), &m.sigterm);
    ev_signal_start(loop_ev(), &m.sigint);
    ev_signal_start(loop_ev(), &m.sighup);
}

/* In the background the log goes into the state directory, as soon as that is ours. */
static void take_log_file(void)
{
    char path[PATH_MAX + 16], text[PATH_MAX + 128];
    int ret;

    snprintf(path, sizeof(path), "%s/cowtgtd.log", m.opts.state_dir);
    ret = m.opts.foreground ? 0 : background_log_to(path);
    if (!ret)
        return;
    snprintf(text, sizeof(text), "log file %s: %s", path, strerror(-ret));
    die(text);
}

static void init_rooms(void)
{
    struct error err = ERROR_INIT;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* past a limit on file sizes: EFBIG */
    if (log_open(m.opts.log_to ? m.opts.log_to : "auto", &err))
        die(err.msg);
    if (loop_init() || workers_init(HELPER_THREADS) || blk_init())
        die("the kernel refuses what an event loop needs (epoll, eventfd, threads)");
    if (m.opts.aio && aio_select_engine(m.opts.aio, &err))
        die(err.msg);
    if (make_socket_dir(m.opts.socket, &err) || state_open(m.opts.state_dir, &m.d.state, &err))
        die(err.msg);
    take_log_file();
    if (accounts_open(m.d.state->dir, &m.d.accounts, &err) ||
        accounts_apply(m.d.accounts, NULL, NULL, false, &err))
        die(err.msg);
}

/* A session and a file is a descriptor each: what a login shell gets (1024) is for select(). */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit))
        log_warn("at most 1024 files or so: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strncmp(argv[1], "--isns-agent", 12)) /* the daemon's own call */
        return sns_agent_main(argv[2], !strcmp(argv[1], "--isns-agent-domains"));
    parse_options(argc, argv, &m.opts);
    raise_file_limit();
    if (!m.opts.foreground && background_start())
        die("can't become a daemon");
    init_rooms();
    list_init(&m.d.chains);
    m.d.job_history = json_array();
    m.d.started_ns = now_ns();
    m.d.socket_path = m.opts.socket;
    m.d.fixed_portals = m.opts.portals;
    m.d.nr_fixed_portals = m.opts.nr_portals;
    m.d.stop = stop_for_command;
    events_init(&m.d);
    reservations_init(&m.d);
    watch_signals();
    co_spawn(co_start, NULL);
    loop_run();
    if (m.handlers_left)
        _exit(m.exit_status); /* all images are closed; what a command holds goes with us */
    json_decref(m.d.job_history);
    blk_fini();
    workers_fini();
    loop_fini();
    return m.exit_status;
}
