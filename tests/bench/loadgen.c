/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loadgen: READ load on one iSCSI session, cheaper than a full initiator, so that the target is
 * what gets measured. Commands are sent in batches, data is received and dropped.
 *
 *   loadgen [-q DEPTH] [-b BYTES] [-s SECONDS] [-S] HOST PORT IQN LUN
 *
 * Random reads all over the LUN, or sequential ones with -S. Prints
 *   ios N seconds S iops X mbytes_s Y
 * Any status but GOOD after the first few (unit attentions) ends it with an error.
 */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BHS       48u
#define MAX_DEPTH 128u
#define RX_BYTES  (4u << 20)
#define NO_TAG    0xffffffffu

enum {
    OP_NOP_OUT = 0,
    OP_SCSI = 1,
    OP_LOGIN = 3,
    OP_NOP_IN = 0x20,
    OP_RSP = 0x21,
    OP_LOGIN_RSP = 0x23,
    OP_DATA_IN = 0x25
};

struct gen {
    int fd;
    unsigned lun, depth, io_bytes;
    bool sequential;
    double seconds;
    uint64_t nr_blocks, next_lba, rng;
    uint32_t cmd_sn, exp_stat_sn, max_cmd_sn;
    unsigned in_flight, forgiven;
    uint64_t ios;
    uint8_t *rx;
    size_t rx_have, skip; /* skip: data of a PDU that is not here yet */
    uint8_t tx[MAX_DEPTH * BHS];
    size_t tx_have;
    uint8_t capacity[32]; /* data-in of READ CAPACITY(16) */
};

static void die(const char *what)
{
    fprintf(stderr, "loadgen: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put(uint8_t *p, unsigned bytes, uint64_t v)
{
    while (bytes--) {
        p[bytes] = (uint8_t)v;
        v >>= 8;
    }
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void send_all(struct gen *g, const void *buf, size_t len)
{
    for (const uint8_t *p = buf; len;) {
        ssize_t n = send(g->fd, p, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            die("send");
        p += n;
        len -= (size_t)n;
    }
}

static void receive(struct gen *g, void *buf, size_t len)
{
    for (uint8_t *p = buf; len;) {
        ssize_t n = recv(g->fd, p, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            die("the target hung up");
        p += n;
        len -= (size_t)n;
    }
}

static void dial(struct gen *g, const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai;
    int one = 1;

    if (getaddrinfo(host, port, &hints, &ai) != 0)
        die("no such host");
    g->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (g->fd < 0 || connect(g->fd, ai->ai_addr, ai->ai_addrlen) < 0)
        die("connect");
    setsockopt(g->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    freeaddrinfo(ai);
}

/* Operational keys in one PDU; empty ones follow until the target goes to full feature phase. */
static void login(struct gen *g, const char *iqn)
{
    uint8_t pdu[BHS + 1024], rsp[BHS + 8192];
    char *text = (char *)pdu + BHS;
    size_t len = 0;
    const char *keys[] = {"InitiatorName=iqn.2026-11.com.example:loadgen",
                          "SessionType=Normal",
                          NULL,
                          "HeaderDigest=None",
                          "DataDigest=None",
                          "InitialR2T=No",
                          "ImmediateData=Yes",
                          "MaxRecvDataSegmentLength=1048576",
                          "MaxBurstLength=1048576",
                          "FirstBurstLength=262144"};
    char name[300];

    snprintf(name, sizeof(name), "TargetName=%.223s", iqn);
    keys[2] = name;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        len += (size_t)snprintf(text + len, 1024 - len, "%s", keys[i]) + 1;
    for (int round = 0; round < 8; round++) {
        memset(pdu, 0, BHS);
        pdu[0] = OP_LOGIN | 0x40;
        pdu[1] = 0x87;
        put(pdu + 5, 3, len);
        pdu[8] = 0x80;
        put(pdu + 16, 4, 1);
        put(pdu + 24, 4, g->cmd_sn);
        put(pdu + 28, 4, g->exp_stat_sn);
        memset(pdu + BHS + len, 0, 4);
        send_all(g, pdu, BHS + ((len + 3) & ~(size_t)3));
        receive(g, rsp, BHS);
        size_t rlen = get32(rsp + 4) & 0xffffff;
        if (rlen > 8192)
            die("absurd login response");
        receive(g, rsp + BHS, (rlen + 3) & ~(size_t)3);
        errno = 0;
        if ((rsp[0] & 0x3f) != OP_LOGIN_RSP || rsp[36] != 0)
            die("login refused");
        g->exp_stat_sn = get32(rsp + 24) + 1;
        g->max_cmd_sn = get32(rsp + 32);
        if ((rsp[1] & 0x83) == 0x83)
            return;
        len = 0;
    }
    die("login does not end");
}

static void queue_command(struct gen *g, const uint8_t cdb[16], uint32_t bytes)
{
    uint8_t *p = g->tx + g->tx_have;

    memset(p, 0, BHS);
    p[0] = OP_SCSI;
    p[1] = 0x80 | 0x40 | 1; /* final, read, simple */
    put(p + 8, 2, g->lun < 256 ? g->lun : 0x4000 | g->lun);
    put(p + 16, 4, g->cmd_sn);
    put(p + 20, 4, bytes);
    put(p + 24, 4, g->cmd_sn);
    put(p + 28, 4, g->exp_stat_sn);
    memcpy(p + 32, cdb, 16);
    g->tx_have += BHS;
    g->cmd_sn++;
    g->in_flight++;
}

static void queue_read(struct gen *g)
{
    uint32_t blocks = g->io_bytes / 512;
    uint64_t slots = g->nr_blocks / blocks, lba;
    uint8_t cdb[16] = {0x88};

    if (g->sequential) {
        lba = g->next_lba;
        g->next_lba = (g->next_lba / blocks + 1) % slots * blocks;
    } else {
        g->rng ^= g->rng << 13;
        g->rng ^= g->rng >> 7;
        g->rng ^= g->rng << 17;
        lba = (g->rng >> 11) % slots * blocks;
    }
    put(cdb + 2, 8, lba);
    put(cdb + 10, 4, blocks);
    queue_command(g, cdb, g->io_bytes);
}

static void flush(struct gen *g)
{
    if (g->tx_have)
        send_all(g, g->tx, g->tx_have);
    g->tx_have = 0;
}

static void answer_nop(struct gen *g, const uint8_t *in)
{
    uint8_t p[BHS] = {OP_NOP_OUT | 0x40, 0x80};

    if (get32(in + 20) == NO_TAG)
        return;
    memcpy(p + 8, in + 8, 8);
    put(p + 16, 4, NO_TAG);
    memcpy(p + 20, in + 20, 4);
    put(p + 24, 4, g->cmd_sn);
    put(p + 28, 4, g->exp_stat_sn);
    send_all(g, p, BHS);
}

static void ended(struct gen *g, const uint8_t *p, uint8_t status)
{
    g->exp_stat_sn = get32(p + 24) + 1;
    g->in_flight--;
    if (status == 0)
        g->ios++;
    else if (g->forgiven++ >= 8)
        die("a command failed");
}

static void take_pdu(struct gen *g, const uint8_t *p, const uint8_t *data, size_t len)
{
    errno = 0;
    g->max_cmd_sn = get32(p + 32);
    switch (p[0] & 0x3f) {
    case OP_DATA_IN:
        if (!g->nr_blocks && len >= 16)
            memcpy(g->capacity, data, len < 32 ? len : 32);
        if (p[1] & 1)
            ended(g, p, p[3]);
        break;
    case OP_RSP:
        ended(g, p, p[2] ? 0xff : p[3]);
        break;
    case OP_NOP_IN:
        answer_nop(g, p);
        break;
    default:
        die("an unexpected PDU");
    }
}

/* One recv, and all PDUs whose header it completed. */
static void pump(struct gen *g)
{
    ssize_t n = recv(g->fd, g->rx + g->rx_have, RX_BYTES - g->rx_have, 0);

    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0)
        die("the target hung up");
    g->rx_have += (size_t)n;
    size_t at = 0;
    for (;;) {
        size_t cut = g->skip < g->rx_have - at ? g->skip : g->rx_have - at;
        at += cut;
        g->skip -= cut;
        if (g->skip || g->rx_have - at < BHS)
            break;
        const uint8_t *p = g->rx + at;
        size_t len = get32(p + 4) & 0xffffff, padded = (len + 3) & ~(size_t)3;
        if (!g->nr_blocks && g->rx_have - at < BHS + padded)
            break;
        take_pdu(g, p, p + BHS, len);
        at += BHS;
        g->skip = padded;
    }
    memmove(g->rx, g->rx + at, g->rx_have - at);
    g->rx_have -= at;
}

static void read_capacity(struct gen *g)
{
    uint8_t cdb[16] = {0x9e, 0x10};

    put(cdb + 10, 4, 32);
    while (!g->ios) {
        queue_command(g, cdb, 32);
        flush(g);
        while (g->in_flight)
            pump(g);
    }
    uint64_t blocks = (uint64_t)get32(g->capacity) << 32 | get32(g->capacity + 4);
    errno = 0;
    if (get32(g->capacity + 8) != 512 || (blocks + 1) * 512 < g->io_bytes)
        die("blocks are not 512 bytes, or the LUN is too small");
    g->nr_blocks = blocks + 1;
    g->ios = 0;
}

static void run(struct gen *g)
{
    double begin = now_s(), end = begin + g->seconds, now = begin;

    while (now < end || g->in_flight) {
        while (now < end && g->in_flight < g->depth && (int32_t)(g->max_cmd_sn - g->cmd_sn) >= 0)
            queue_read(g);
        flush(g);
        pump(g);
        now = now_s();
    }
    double took = now - begin;
    printf("ios %" PRIu64 " seconds %.3f iops %.0f mbytes_s %.1f\n", g->ios, took,
           (double)g->ios / took, (double)g->ios * g->io_bytes / took / 1e6);
}

int main(int argc, char **argv)
{
    struct gen g = {
        .depth = 32, .io_bytes = 4096, .seconds = 3, .cmd_sn = 1, .rng = 88172645463325252ull};
    int opt;

    while ((opt = getopt(argc, argv, "q:b:s:S")) != -1) {
        if (opt == 'q')
            g.depth = (unsigned)strtoul(optarg, NULL, 0);
        else if (opt == 'b')
            g.io_bytes = (unsigned)strtoul(optarg, NULL, 0);
        else if (opt == 's')
            g.seconds = strtod(optarg, NULL);
        else if (opt == 'S')
            g.sequential = true;
        else
            return 2;
    }
    if (optind + 4 != argc || g.depth < 1 || g.depth > MAX_DEPTH || g.io_bytes < 512 ||
        g.io_bytes % 512 || g.io_bytes > (1u << 20)) {
        fprintf(stderr,
                "usage: loadgen [-q DEPTH] [-b BYTES] [-s SECONDS] [-S] HOST PORT IQN LUN\n");
        return 2;
    }
    g.lun = (unsigned)strtoul(argv[optind + 3], NULL, 0);
    g.rx = malloc(RX_BYTES);
    if (!g.rx)
        die("memory");
    dial(&g, argv[optind], argv[optind + 1]);
    login(&g, argv[optind + 2]);
    read_capacity(&g);
    run(&g);
    close(g.fd);
    free(g.rx);
    return 0;
}
