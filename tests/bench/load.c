/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A load generator that is not the bottleneck: one raw iSCSI session, commands sent in batches,
 * responses taken as they come, no allocation per command. Prints one line of JSON.
 *
 *   load -t HOST:PORT -n IQN [-l LUN] [-m randread|randwrite|read|write|mix] [-b BYTES]
 *        [-q DEPTH] [-s SECONDS] [-S SPAN_BYTES] [-r SEED] [-i IOPS [-o OFFSET] [-w SECONDS]]
 *
 * With -i the loop is open: commands come at random times (Poisson), IOPS a second in the mean, and
 * latency counts from when a command was due. Random blocks lie from OFFSET up to SPAN then, and
 * none comes twice. What was due in the first -w seconds does not count in the latencies.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "util/byteorder.h"

#define BHS_BYTES    48
#define MAX_DEPTH    256
#define RX_BYTES     (4u << 20)
#define TX_ENTRIES   4096
#define NO_TAG       0xffffffffu
#define HIST_BUCKETS (64 * 40)

enum { OP_NOP_OUT = 0x00, OP_SCSI = 0x01, OP_LOGIN = 0x03, OP_DATA_OUT = 0x05, OP_LOGOUT = 0x06 };
enum {
    OP_NOP_IN = 0x20,
    OP_SCSI_RSP = 0x21,
    OP_LOGIN_RSP = 0x23,
    OP_DATA_IN = 0x25,
    OP_R2T = 0x31
};

static struct {
    const char *host, *port, *iqn, *mode;
    unsigned lun, bytes, depth;
    double seconds, iops, warm;
    uint64_t span, seed, offset;
} opt = {.mode = "randread", .bytes = 4096, .depth = 32, .seconds = 3, .seed = 1};

/* What the target answered at login. */
static struct {
    uint32_t max_segment, first_burst, max_burst;
    bool immediate, initial_r2t;
} neg = {8192, 65536, 262144, true, true};

struct slot {
    uint64_t started_ns;
    uint32_t solicited; /* data sent so far */
    bool write, busy;
};

static struct slot slots[MAX_DEPTH];
static int sock;
static uint32_t cmdsn, maxcmdsn, expstatsn, nr_busy;
static uint8_t rx[RX_BYTES];
static size_t rx_len;
static uint8_t tx_hdr[TX_ENTRIES][BHS_BYTES];
static struct iovec tx[2 * TX_ENTRIES];
static unsigned tx_head, tx_tail, tx_hdrs;
static uint8_t *payload;
static uint64_t capacity_blocks, next_lba;
static uint32_t block_bytes;
static uint64_t count_from_ns, done_ios, counted, errors, hist[HIST_BUCKETS];

static void die(const char *what)
{
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static uint64_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t rnd(void)
{
    opt.seed ^= opt.seed << 13;
    opt.seed ^= opt.seed >> 7;
    return opt.seed ^= opt.seed << 17;
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

/* ---- sending ----------------------------------------------------------------------- */

static uint8_t *tx_pdu(uint8_t opcode)
{
    uint8_t *h;

    if (tx_hdrs >= TX_ENTRIES) {
        errno = 0;
        die("send queue is full");
    }
    h = tx_hdr[tx_hdrs++];
    memset(h, 0, BHS_BYTES);
    h[0] = opcode;
    tx[tx_tail++] = (struct iovec){h, BHS_BYTES};
    return h;
}

static void tx_data(uint8_t *h, const void *p, uint32_t len)
{
    put_be24(h + 5, len);
    if (len)
        tx[tx_tail++] = (struct iovec){(void *)p, (len + 3) & ~3u};
}

static bool tx_flush(void)
{
    while (tx_head < tx_tail) {
        unsigned n = tx_tail - tx_head;
        ssize_t w = writev(sock, tx + tx_head, n > 1000 ? 1000 : (int)n);

        if (w < 0 && errno == EAGAIN)
            return false;
        if (w < 0)
            die("send");
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

/* The n-th of @units in an order without repetition: a prime steps round them. */
static uint64_t fresh_unit(uint64_t units)
{
    static uint64_t nr;

    return (opt.seed + nr++ * 1000003) % units;
}

static void queue_command(unsigned i)
{
    struct slot *s = &slots[i];
    uint32_t blocks = opt.bytes / block_bytes;
    uint64_t units = opt.span / opt.bytes, lba;
    bool random = opt.mode[0] == 'r' ? opt.mode[1] == 'a' : opt.mode[0] == 'm';
    uint8_t *h = tx_pdu(OP_SCSI);

    if (random && opt.iops > 0) {
        units = (opt.span - opt.offset) / opt.bytes;
        lba = opt.offset / block_bytes + fresh_unit(units) * blocks;
    } else if (random) {
        lba = rnd() % units * blocks;
    } else {
        lba = next_lba;
        next_lba = (next_lba + blocks) % (units * blocks);
    }
    s->write = !strcmp(opt.mode, "randwrite") || !strcmp(opt.mode, "write") ||
               (opt.mode[0] == 'm' && rnd() % 10 >= 7);
    s->busy = true;
    s->solicited = 0;
    s->started_ns = now();
    nr_busy++;
    h[1] = s->write ? 0xa1 : 0xc1; /* F, W or R, SIMPLE */
    h[9] = (uint8_t)opt.lun;
    put_be32(h + 16, i);
    put_be32(h + 20, opt.bytes);
    put_be32(h + 24, cmdsn++);
    put_be32(h + 28, expstatsn);
    h[32] = s->write ? 0x8a : 0x88;
    put_be64(h + 34, lba);
    put_be32(h + 42, blocks);
    if (s->write && neg.immediate) {
        uint32_t n = opt.bytes;

        n = n < neg.max_segment ? n : neg.max_segment;
        n = n < neg.first_burst ? n : neg.first_burst;
        tx_data(h, payload, n);
        s->solicited = n;
    }
}

static void answer_r2t(const uint8_t *r)
{
    uint32_t offset = get_be32(r + 40), len = get_be32(r + 44), sn = 0;

    while (len) {
        uint32_t n = len < neg.max_segment ? len : neg.max_segment;
        uint8_t *h = tx_pdu(OP_DATA_OUT);

        h[1] = n == len ? 0x80 : 0;
        memcpy(h + 8, r + 8, 8);
        memcpy(h + 16, r + 16, 8);
        put_be32(h + 28, expstatsn);
        put_be32(h + 36, sn++);
        put_be32(h + 40, offset);
        tx_data(h, payload + offset, n);
        offset += n;
        len -= n;
    }
}

/* ---- receiving --------------------------------------------------------------------- */

static void command_done(uint32_t tag, uint8_t status)
{
    struct slot *s;

    if (tag >= opt.depth || !slots[tag].busy) {
        errno = 0;
        die("response to no command");
    }
    s = &slots[tag];
    s->busy = false;
    nr_busy--;
    errors += status != 0;
    done_ios++;
    if (s->started_ns < count_from_ns)
        return;
    counted++;
    hist[bucket(now() - s->started_ns)]++;
}

static void take_pdu(const uint8_t *p)
{
    uint8_t op = p[0] & 0x3f;

    if (op != OP_DATA_IN || (p[1] & 1)) {
        if (op != OP_R2T)
            expstatsn = get_be32(p + 24) + 1;
        maxcmdsn = get_be32(p + 32);
    }
    switch (op) {
    case OP_DATA_IN:
        if (p[1] & 1)
            command_done(get_be32(p + 16), p[3]);
        break;
    case OP_SCSI_RSP:
        command_done(get_be32(p + 16), p[3]);
        break;
    case OP_R2T:
        answer_r2t(p);
        break;
    case OP_NOP_IN:
        if (get_be32(p + 20) != NO_TAG) {
            uint8_t *h = tx_pdu(OP_NOP_OUT | 0x40);

            h[1] = 0x80;
            memcpy(h + 8, p + 8, 8);
            put_be32(h + 16, NO_TAG);
            memcpy(h + 20, p + 20, 4);
            put_be32(h + 24, cmdsn);
            put_be32(h + 28, expstatsn);
        }
        break;
    default:
        errno = 0;
        die("unexpected PDU");
    }
}

static bool receive(void)
{
    ssize_t n = recv(sock, rx + rx_len, RX_BYTES - rx_len, 0);
    size_t pos = 0;

    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        die("connection lost");
    rx_len += (size_t)n;
    while (rx_len - pos >= BHS_BYTES) {
        uint8_t *p = rx + pos;
        size_t total = BHS_BYTES + p[4] * 4u + ((get_be24(p + 5) + 3) & ~3u);

        if (rx_len - pos < total)
            break;
        take_pdu(p);
        pos += total;
    }
    memmove(rx, rx + pos, rx_len - pos);
    rx_len -= pos;
    return true;
}

/* ---- set-up ------------------------------------------------------------------------ */

static void open_socket(void)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai;
    int one = 1;

    if (getaddrinfo(opt.host, opt.port, &hints, &ai))
        die("no such host");
    sock = socket(ai->ai_family, SOCK_STREAM, 0);
    if (sock < 0 || connect(sock, ai->ai_addr, ai->ai_addrlen))
        die("connect");
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    freeaddrinfo(ai);
}

static void read_all(void *buf, size_t len)
{
    for (size_t n = 0; n < len;) {
        ssize_t r = recv(sock, (char *)buf + n, len - n, 0);

        if (r <= 0)
            die("connection lost at login");
        n += (size_t)r;
    }
}

static uint32_t read_pdu(uint8_t *hdr, uint8_t *data, size_t max)
{
    uint32_t len;

    read_all(hdr, BHS_BYTES);
    len = get_be24(hdr + 5);
    if (len + 4 > max)
        die("answer is too long");
    read_all(data, (len + 3) & ~3u);
    return len;
}

static void take_key(const char *kv)
{
    const char *eq = strchr(kv, '=');
    uint32_t v;

    if (!eq)
        return;
    v = (uint32_t)strtoul(eq + 1, NULL, 10);
    if (!strncmp(kv, "MaxRecvDataSegmentLength=", 25))
        neg.max_segment = v;
    else if (!strncmp(kv, "FirstBurstLength=", 17))
        neg.first_burst = v;
    else if (!strncmp(kv, "MaxBurstLength=", 15))
        neg.max_burst = v;
    else if (!strncmp(kv, "ImmediateData=", 14))
        neg.immediate = eq[1] == 'Y';
    else if (!strncmp(kv, "InitialR2T=", 11))
        neg.initial_r2t = eq[1] == 'Y';
}

static void login_step(uint8_t flags, const char *text, size_t len)
{
    uint8_t h[BHS_BYTES] = {OP_LOGIN | 0x40, flags}, data[8192] = {0};
    static const uint8_t isid[6] = {0x80, 0, 0, 0x10, 0, 1};

    put_be24(h + 5, (uint32_t)len);
    memcpy(h + 8, isid, 6);
    put_be32(h + 28, expstatsn);
    memcpy(data, text, len);
    if (send(sock, h, BHS_BYTES, MSG_MORE) < 0 || send(sock, data, (len + 3) & ~3u, 0) < 0)
        die("send");
    len = read_pdu(h, data, sizeof(data));
    if ((h[0] & 0x3f) != OP_LOGIN_RSP || h[36]) {
        errno = 0;
        die("login refused");
    }
    expstatsn = get_be32(h + 24) + 1;
    cmdsn = get_be32(h + 28);
    maxcmdsn = get_be32(h + 32);
    data[len] = 0;
    for (size_t i = 0; i < len; i += strlen((char *)data + i) + 1)
        take_key((char *)data + i);
}

static void login(void)
{
    char text[2048];
    static const char keys[] =
        "HeaderDigest=None\0DataDigest=None\0InitialR2T=Yes\0ImmediateData=Yes\0"
        "MaxRecvDataSegmentLength=262144\0MaxBurstLength=1048576\0FirstBurstLength=262144\0"
        "MaxConnections=1\0MaxOutstandingR2T=1\0ErrorRecoveryLevel=0\0DefaultTime2Wait=0\0"
        "DefaultTime2Retain=0\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes";
    size_t n = (size_t)snprintf(text, sizeof(text),
                                "InitiatorName=iqn.2026-11.com.example:load%cSessionType=Normal%c"
                                "TargetName=%s%cAuthMethod=None",
                                0, 0, opt.iqn, 0) +
               1;

    login_step(0x81, text, n);            /* security -> operational */
    login_step(0x87, keys, sizeof(keys)); /* operational -> full feature */
}

/* One command at a time, before the load: data-in into @buf. False: CHECK CONDITION. */
static bool simple_command(const uint8_t *cdb, unsigned cdb_len, void *buf, uint32_t len)
{
    uint8_t h[BHS_BYTES] = {OP_SCSI, 0xc1}, data[8192];
    uint32_t n;

    h[9] = (uint8_t)opt.lun;
    put_be32(h + 20, len);
    put_be32(h + 24, cmdsn++);
    put_be32(h + 28, expstatsn);
    memcpy(h + 32, cdb, cdb_len);
    if (send(sock, h, BHS_BYTES, 0) < 0)
        die("send");
    for (;;) {
        n = read_pdu(h, data, sizeof(data));
        if ((h[0] & 0x3f) == OP_DATA_IN)
            memcpy(buf, data, n < len ? n : len);
        if ((h[0] & 0x3f) == OP_SCSI_RSP || ((h[0] & 0x3f) == OP_DATA_IN && (h[1] & 1)))
            break;
    }
    expstatsn = get_be32(h + 24) + 1;
    maxcmdsn = get_be32(h + 32);
    return h[3] == 0;
}

static void learn_capacity(void)
{
    uint8_t cdb[16] = {0x9e, 0x10}, data[32] = {0}, tur[6] = {0};

    cdb[13] = sizeof(data);
    for (int i = 0; i < 8 && !simple_command(tur, 6, data, 0); i++)
        ; /* unit attentions */
    if (!simple_command(cdb, 16, data, sizeof(data)))
        die("READ CAPACITY(16) failed");
    capacity_blocks = get_be64(data) + 1;
    block_bytes = get_be32(data + 8);
    if (!opt.span || opt.span > capacity_blocks * block_bytes)
        opt.span = capacity_blocks * block_bytes;
    if (!block_bytes || opt.bytes % block_bytes || opt.span < opt.bytes ||
        opt.offset % block_bytes || opt.offset > opt.span - opt.bytes) {
        errno = 0;
        die("the LUN does not fit this block size");
    }
}

/* ---- the run ----------------------------------------------------------------------- */

static void fill(void)
{
    for (unsigned i = 0; i < opt.depth; i++) {
        if (slots[i].busy)
            continue;
        if ((int32_t)(maxcmdsn - cmdsn) < 0)
            return;
        queue_command(i);
    }
}

/* Sends what is due; nanoseconds until the next. */
static uint64_t send_due(uint64_t *due_ns)
{
    uint64_t t = now();

    for (unsigned i = 0; i < opt.depth && *due_ns <= t; i++) {
        if (slots[i].busy || (int32_t)(maxcmdsn - cmdsn) < 0)
            continue;
        queue_command(i);
        slots[i].started_ns = *due_ns;
        *due_ns += (uint64_t)(-log1p(-(double)(rnd() >> 11) / 0x1p53) / opt.iops * 1e9);
    }
    return *due_ns > t ? *due_ns - t : 1000000;
}

static double run_open(void)
{
    uint64_t start = now(), end = start + (uint64_t)(opt.seconds * 1e9), due = start;

    count_from_ns = start + (uint64_t)(opt.warm * 1e9);
    for (;;) {
        bool stop = now() >= end;
        uint64_t wait = 10000000000;

        if (stop && !nr_busy)
            break;
        if (!stop && tx_head == tx_tail)
            wait = send_due(&due);
        bool sent = tx_flush();
        struct pollfd p = {.fd = sock, .events = (short)(POLLIN | (sent ? 0 : POLLOUT))};
        struct timespec ts = {(time_t)(wait / 1000000000), (long)(wait % 1000000000)};

        if (receive())
            continue;
        if (ppoll(&p, 1, &ts, NULL) == 0 && stop) {
            errno = ETIMEDOUT;
            die("no answer");
        }
    }
    return (double)(now() - start) / 1e9;
}

static double run(void)
{
    uint64_t start = now(), end = start + (uint64_t)(opt.seconds * 1e9);
    bool stop = false;

    for (;;) {
        stop = stop || now() >= end;
        if (stop && !nr_busy)
            break;
        if (!stop && tx_head == tx_tail)
            fill();
        bool sent = tx_flush();
        struct pollfd p = {.fd = sock, .events = (short)(POLLIN | (sent ? 0 : POLLOUT))};

        if (receive())
            continue;
        if (poll(&p, 1, 10000) == 0) {
            errno = ETIMEDOUT;
            die("no answer");
        }
    }
    return (double)(now() - start) / 1e9;
}

static void parse(int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "t:n:l:m:b:q:s:S:r:i:o:w:")) > 0) {
        switch (c) {
        case 't': {
            char *colon = strrchr(optarg, ':');

            if (!colon)
                die("-t HOST:PORT");
            *colon = 0;
            opt.host = optarg;
            opt.port = colon + 1;
            break;
        }
        case 'n':
            opt.iqn = optarg;
            break;
        case 'l':
            opt.lun = (unsigned)atoi(optarg);
            break;
        case 'm':
            opt.mode = optarg;
            break;
        case 'b':
            opt.bytes = (unsigned)atoi(optarg);
            break;
        case 'q':
            opt.depth = (unsigned)atoi(optarg);
            break;
        case 's':
            opt.seconds = atof(optarg);
            break;
        case 'S':
            opt.span = strtoull(optarg, NULL, 10);
            break;
        case 'i':
            opt.iops = atof(optarg);
            break;
        case 'w':
            opt.warm = atof(optarg);
            break;
        case 'o':
            opt.offset = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            opt.seed = strtoull(optarg, NULL, 10) | 1;
            break;
        default:
            exit(2);
        }
    }
    if (!opt.host || !opt.iqn || !opt.bytes || opt.depth < 1 || opt.depth > MAX_DEPTH) {
        errno = 0;
        die("usage: load -t HOST:PORT -n IQN [-l LUN] [-m MODE] [-b BYTES] [-q DEPTH] [-s "
            "SECONDS]");
    }
}

int main(int argc, char **argv)
{
    double secs;

    parse(argc, argv);
    payload = malloc(opt.bytes + 4);
    if (!payload)
        die("memory");
    for (unsigned i = 0; i < opt.bytes; i++)
        payload[i] = (uint8_t)(i * 31 + 7);
    open_socket();
    login();
    learn_capacity();
    if (fcntl(sock, F_SETFL, O_NONBLOCK))
        die("fcntl");
    secs = opt.iops > 0 ? run_open() : run();
    printf(
        "{\"mode\":\"%s\",\"bytes\":%u,\"depth\":%u,\"seconds\":%.3f,\"ios\":%llu,\"errors\":%llu,"
        "\"iops\":%.0f,\"mbps\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n",
        opt.mode, opt.bytes, opt.depth, secs, (unsigned long long)done_ios,
        (unsigned long long)errors, (double)done_ios / secs,
        (double)done_ios * opt.bytes / secs / 1e6, percentile_us(0.5), percentile_us(0.99));
    free(payload);
    return errors ? 1 : 0;
}
