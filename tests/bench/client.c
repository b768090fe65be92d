/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/bench/client.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "util/size.h"

#define RX_BYTES     (4u << 20)
#define TX_ENTRIES   4096
#define HIST_BUCKETS (64 * 40)
#define FLUSH_SLOT   CLIENT_MAX_DEPTH

struct client_opts client_opt = {
    .name = "", .mode = "randread", .bytes = 4096, .depth = 32, .seconds = 3, .seed = 1};
uint8_t *client_payload;

struct slot {
    uint64_t started_ns;
    bool busy;
};

static struct slot slots[CLIENT_MAX_DEPTH + 1];
static int sock = -1;
static unsigned nr_busy;
static uint8_t rx[RX_BYTES];
static size_t rx_len;
static uint8_t tx_hdr[TX_ENTRIES][CLIENT_HDR_BYTES];
static struct iovec tx[4 * TX_ENTRIES];
static unsigned tx_head, tx_tail, tx_hdrs;
static uint64_t units, next_unit, given, begun_ns, count_from_ns, done_ios, counted, errors;
static uint64_t hist[HIST_BUCKETS];
static uint32_t *order; /* with -u, -i: every unit once */

void client_die(const char *what)
{
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

void client_refuse(const char *what)
{
    errno = 0;
    client_die(what);
}

uint64_t client_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t client_random(void)
{
    client_opt.seed ^= client_opt.seed << 13;
    client_opt.seed ^= client_opt.seed >> 7;
    return client_opt.seed ^= client_opt.seed << 17;
}

/* ---- latency: log-linear buckets, 64 an octave ------------------------------------- */

static unsigned bucket(uint64_t v)
{
    if (v < 64)
        return (unsigned)v;

    unsigned e = 63 - (unsigned)__builtin_clzll(v);
    unsigned i = (e - 5) * 64 + ((v >> (e - 6)) & 63);

    return i < HIST_BUCKETS ? i : HIST_BUCKETS - 1;
}

static double percentile_us(double p)
{
    uint64_t want = (uint64_t)((double)counted * p), seen = 0;

    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += hist[i];
        if (seen > want) {
            if (i < 64)
                return i / 1e3;
            return (double)((64 + (uint64_t)(i % 64)) << (i / 64 - 1)) / 1e3;
        }
    }
    return 0;
}

void client_count(uint64_t started_ns, bool failed)
{
    errors += failed;
    done_ios++;
    if (started_ns < count_from_ns)
        return;
    counted++;
    hist[bucket(client_now_ns() - started_ns)]++;
}

int client_report(const char *client, double secs, double flush_ms)
{
    printf("{\"client\":\"%s\",\"mode\":\"%s\",\"bytes\":%u,\"depth\":%u,\"seconds\":%.4f,"
           "\"ios\":%llu,\"errors\":%llu,\"iops\":%.0f,\"mbps\":%.1f,\"p50_us\":%.1f,"
           "\"p99_us\":%.1f,\"flush_ms\":%.2f,\"begun_s\":%.6f}\n",
           client, client_opt.mode, client_opt.bytes, client_opt.depth, secs,
           (unsigned long long)done_ios, (unsigned long long)errors, (double)done_ios / secs,
           (double)done_ios * client_opt.bytes / secs / 1e6, percentile_us(0.5),
           percentile_us(0.99), flush_ms, (double)begun_ns / 1e9);
    return errors ? 1 : 0;
}

/* ---- what comes next ----------------------------------------------------------------- */

static void shuffle(void)
{
    order = malloc(units * sizeof(*order));
    if (!order)
        client_die("memory");
    for (uint64_t i = 0; i < units; i++) {
        uint64_t k = client_random() % (i + 1);

        order[i] = order[k];
        order[k] = (uint32_t)i;
    }
}

void client_set_size(uint64_t bytes)
{
    if (!client_opt.span || client_opt.span > bytes)
        client_opt.span = bytes;
    if (client_opt.span < client_opt.bytes ||
        client_opt.offset > client_opt.span - client_opt.bytes ||
        client_opt.span / client_opt.bytes > UINT32_MAX)
        client_refuse("the disk does not fit this block size");
    units = (client_opt.span - client_opt.offset) / client_opt.bytes;
    if (client_opt.once || client_opt.iops > 0)
        shuffle();
}

bool client_pick(uint64_t *offset, bool *write)
{
    const char *m = client_opt.mode;
    bool random = *m == 'm' || !strncmp(m, "rand", 4);
    uint64_t unit;

    if ((client_opt.once && given == units) || (client_opt.count && given == client_opt.count))
        return false;
    if (order)
        unit = random ? order[given % units] : given % units;
    else if (random)
        unit = client_random() % units;
    else
        unit = next_unit++ % units;
    given++;
    *write = *m == 'm' ? client_random() % 10 >= 7 : strstr(m, "write") != NULL;
    *offset = client_opt.offset + unit * client_opt.bytes;
    return true;
}

/* ---- the socket ------------------------------------------------------------------------ */

static void open_socket(void)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai;
    int one = 1;

    if (getaddrinfo(client_opt.host, client_opt.port, &hints, &ai))
        client_refuse("no such host");
    sock = socket(ai->ai_family, SOCK_STREAM, 0);
    if (sock < 0 || connect(sock, ai->ai_addr, ai->ai_addrlen))
        client_die("connect");
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    freeaddrinfo(ai);
}

void client_send_all(const void *p, size_t len)
{
    for (size_t n = 0; n < len;) {
        ssize_t w = send(sock, (const char *)p + n, len - n, MSG_NOSIGNAL);

        if (w <= 0)
            client_die("send");
        n += (size_t)w;
    }
}

void client_read_all(void *buf, size_t len)
{
    for (size_t n = 0; n < len;) {
        ssize_t r = recv(sock, (char *)buf + n, len - n, 0);

        if (r <= 0)
            client_die("connection lost at login");
        n += (size_t)r;
    }
}

void client_skip(size_t len)
{
    uint8_t junk[256];

    for (size_t n; len; len -= n) {
        n = len < sizeof(junk) ? len : sizeof(junk);
        client_read_all(junk, n);
    }
}

uint8_t *client_tx(size_t bytes)
{
    uint8_t *h;

    if (tx_hdrs >= TX_ENTRIES)
        client_refuse("send queue is full");
    h = tx_hdr[tx_hdrs++];
    memset(h, 0, CLIENT_HDR_BYTES);
    tx[tx_tail++] = (struct iovec){h, bytes};
    return h;
}

void client_tx_data(const void *p, size_t len)
{
    if (len)
        tx[tx_tail++] = (struct iovec){(void *)p, len};
}

static bool tx_flush(void)
{
    while (tx_head < tx_tail) {
        unsigned n = tx_tail - tx_head;
        ssize_t w = writev(sock, tx + tx_head, n > 1000 ? 1000 : (int)n);

        if (w < 0 && errno == EAGAIN)
            return false;
        if (w < 0)
            client_die("send");
        while (w > 0) {
            struct iovec *v = &tx[tx_head];

            if ((size_t)w >= v->iov_len) {
                w -= (ssize_t)v->iov_len;
                tx_head++;
            } else {
                v->iov_base = (char *)v->iov_base + w;
                v->iov_len -= (size_t)w;
                w = 0;
            }
        }
    }
    tx_head = tx_tail = tx_hdrs = 0;
    return true;
}

/* ---- the run ----------------------------------------------------------------------- */

static const struct client_protocol *proto;

void client_done(unsigned slot, bool failed)
{
    struct slot *s = &slots[slot];

    if (slot > FLUSH_SLOT || !s->busy)
        client_refuse("response to no command");
    s->busy = false;
    nr_busy--;
    if (slot != FLUSH_SLOT)
        client_count(s->started_ns, failed);
    else if (failed)
        client_refuse("the flush failed");
}

bool client_is_busy(unsigned slot)
{
    return slot <= FLUSH_SLOT && slots[slot].busy;
}

/* False: there is nothing left to do. */
static bool start(unsigned i, uint64_t due_ns)
{
    uint64_t offset;
    bool write;

    if (!client_pick(&offset, &write))
        return false;
    slots[i] = (struct slot){due_ns ? due_ns : client_now_ns(), true};
    nr_busy++;
    proto->command(i, write ? CLIENT_WRITE : CLIENT_READ, offset, client_opt.bytes);
    return true;
}

static bool receive(void)
{
    ssize_t n = recv(sock, rx + rx_len, RX_BYTES - rx_len, 0);
    size_t pos = 0, took;

    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        client_die("connection lost");
    rx_len += (size_t)n;
    while ((took = proto->take(rx + pos, rx_len - pos)))
        pos += took;
    memmove(rx, rx + pos, rx_len - pos);
    rx_len -= pos;
    return true;
}

/* Sends what is queued, takes what has come, or waits; false: nothing came in time. */
static bool turn(uint64_t wait_ns)
{
    bool sent = tx_flush();
    struct pollfd p = {.fd = sock, .events = (short)(POLLIN | (sent ? 0 : POLLOUT))};
    struct timespec ts = {(time_t)(wait_ns / 1000000000), (long)(wait_ns % 1000000000)};
    uint64_t awake_ns = client_opt.poll_us * 1000, begin = awake_ns ? client_now_ns() : 0;

    do {
        if (receive())
            return true;
    } while (sent && awake_ns && client_now_ns() - begin < MIN_OF(awake_ns, wait_ns));
    return ppoll(&p, 1, &ts, NULL) != 0;
}

static bool fill(void)
{
    for (unsigned i = 0; i < client_opt.depth; i++) {
        if (slots[i].busy)
            continue;
        if (!proto->window())
            return true;
        if (!start(i, 0))
            return false;
    }
    return true;
}

/* Sends what is due; nanoseconds until the next. */
static uint64_t send_due(uint64_t *due_ns)
{
    uint64_t t = client_now_ns();
    double u;

    for (unsigned i = 0; i < client_opt.depth && *due_ns <= t; i++) {
        if (slots[i].busy || !proto->window())
            continue;
        start(i, *due_ns);
        u = (double)(client_random() >> 11) / 0x1p53;
        *due_ns += (uint64_t)(-log1p(-u) / client_opt.iops * 1e9);
    }
    return *due_ns > t ? *due_ns - t : 1000000;
}

static void run(void)
{
    uint64_t begin = client_now_ns(), end = begin + (uint64_t)(client_opt.seconds * 1e9);
    uint64_t due = begun_ns = begin, wait;
    bool open_loop = client_opt.iops > 0, stop = false;

    count_from_ns = open_loop ? begin + (uint64_t)(client_opt.warm_seconds * 1e9) : 0;
    for (;;) {
        stop = stop || client_now_ns() >= end;
        if (stop && !nr_busy)
            break;
        wait = 30000000000;
        if (!stop && tx_head == tx_tail) {
            if (open_loop)
                wait = send_due(&due);
            else
                stop = !fill();
        }
        if (!turn(wait) && (stop || !open_loop)) {
            errno = ETIMEDOUT;
            client_die("no answer");
        }
    }
}

static double flush(void)
{
    uint64_t begin = client_now_ns();

    slots[FLUSH_SLOT] = (struct slot){begin, true};
    nr_busy++;
    proto->command(FLUSH_SLOT, CLIENT_FLUSH, 0, 0);
    while (nr_busy) {
        if (!turn(120000000000)) {
            errno = ETIMEDOUT;
            client_die("no answer to the flush");
        }
    }
    return (double)(client_now_ns() - begin) / 1e6;
}

/* ---- options --------------------------------------------------------------------------- */

static const char usage[] =
    "usage: load -t HOST:PORT [-n NAME] [-l LUN] [-m randread|randwrite|read|write|mix]\n"
    "  [-b BYTES] [-q DEPTH] [-s SECONDS] [-S SPAN_BYTES] [-o OFFSET] [-r SEED]\n"
    "  [-i IOPS [-w SECONDS]]  an open loop: commands come at random times (Poisson), IOPS a\n"
    "            second in the mean; a latency counts from when its command was due, except in\n"
    "            the first -w seconds; no block comes twice\n"
    "  [-p MICROSECONDS]  how long to look for answers before sleeping; else it sleeps at once\n"
    "  [-u]  every block of the span once, then the end   [-N COUNT]  the end after so many\n"
    "  [-f]  a flush at the end, its time counted         [-d]  header and data digests (iSCSI)\n";

static void set_address(char *arg)
{
    char *colon = strrchr(arg, ':');

    if (!colon)
        client_refuse("-t HOST:PORT");
    *colon = 0;
    client_opt.host = arg;
    client_opt.port = colon + 1;
}

static void set_option(int c, char *arg)
{
    struct client_opts *o = &client_opt;

    switch (c) {
    case 't':
        set_address(arg);
        break;
    case 'n':
        o->name = arg;
        break;
    case 'l':
        o->lun = (unsigned)atoi(arg);
        break;
    case 'm':
        o->mode = arg;
        break;
    case 'b':
        o->bytes = (unsigned)atoi(arg);
        break;
    case 'q':
        o->depth = (unsigned)atoi(arg);
        break;
    case 's':
        o->seconds = atof(arg);
        break;
    case 'i':
        o->iops = atof(arg);
        break;
    case 'w':
        o->warm_seconds = atof(arg);
        break;
    case 'S':
        o->span = strtoull(arg, NULL, 10);
        break;
    case 'o':
        o->offset = strtoull(arg, NULL, 10);
        break;
    case 'N':
        o->count = strtoull(arg, NULL, 10);
        break;
    case 'r':
        /* Neighbouring seeds start far apart. */
        o->seed = (strtoull(arg, NULL, 10) + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
        break;
    case 'p':
        o->poll_us = strtoull(arg, NULL, 10);
        break;
    case 'u':
        o->once = true;
        break;
    case 'f':
        o->flush = true;
        break;
    case 'd':
        o->digests = true;
        break;
    default:
        fputs(usage, stderr);
        exit(2);
    }
}

void client_parse(int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "t:n:l:m:b:q:s:S:r:i:o:w:N:p:ufd")) > 0)
        set_option(c, optarg);
    if (!client_opt.host || !client_opt.bytes || client_opt.bytes % 512 ||
        client_opt.bytes > RX_BYTES / 4 || client_opt.depth < 1 ||
        client_opt.depth > CLIENT_MAX_DEPTH) {
        fputs(usage, stderr);
        exit(2);
    }
    client_payload = malloc(client_opt.bytes);
    if (!client_payload)
        client_die("memory");
    for (unsigned i = 0; i < client_opt.bytes; i++)
        client_payload[i] = (uint8_t)(i * 31 + 7);
}

int client_main(int argc, char **argv, const struct client_protocol *p)
{
    uint64_t begin;
    double flush_ms;

    proto = p;
    client_parse(argc, argv);
    open_socket();
    client_set_size(p->login());
    if (fcntl(sock, F_SETFL, O_NONBLOCK))
        client_die("fcntl");
    begin = client_now_ns();
    run();
    flush_ms = client_opt.flush ? flush() : 0;
    return client_report(p->name, (double)(client_now_ns() - begin) / 1e9, flush_ms);
}
