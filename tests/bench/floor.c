/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The floor: how little an iSCSI server can do and still be measured. One thread, one epoll, one
 * read and one write a turn, preads and pwrites of one file (or, with -0, no data at all); it
 * believes whatever the load generator sends. Not a target: for comparing with.
 *
 *   floor -p PORT [-0 BYTES] [FILE]
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "util/byteorder.h"

#define BHS_BYTES     48
#define SEGMENT_BYTES 262144u
#define RX_BYTES      (4u << 20)
#define POOL_BYTES    (128u << 20) /* a window of the largest commands */
#define MAX_OUT       4096
#define WINDOW        128
#define COMMAND_MAX   (1u << 20)

struct write {
    uint64_t offset;
    uint32_t tag;
    bool open;
};

struct conn {
    int fd;
    bool wants_out;
    uint32_t statsn, expcmdsn;
    size_t rx_len, pool_used;
    unsigned out_head, out_tail, nr_hdr;
    struct iovec out[2 * MAX_OUT];
    uint8_t hdr[MAX_OUT][BHS_BYTES];
    struct write writes[WINDOW];
    uint8_t rx[RX_BYTES];
    uint8_t pool[POOL_BYTES];
};

static int file_fd = -1;
static uint64_t disk_bytes;
static uint8_t nothing[COMMAND_MAX];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- sending ------------------------------------------------------------------------- */

static bool flush_out(struct conn *c)
{
    while (c->out_head < c->out_tail) {
        unsigned n = c->out_tail - c->out_head;
        ssize_t w = writev(c->fd, c->out + c->out_head, n > 1000 ? 1000 : (int)n);

        if (w < 0)
            return errno == EAGAIN;
        while (w > 0) {
            struct iovec *v = &c->out[c->out_head];

            if ((size_t)w >= v->iov_len) {
                w -= (ssize_t)v->iov_len;
                c->out_head++;
            } else {
                v->iov_base = (char *)v->iov_base + w;
                v->iov_len -= (size_t)w;
                w = 0;
            }
        }
    }
    c->out_head = c->out_tail = c->nr_hdr = 0;
    c->pool_used = 0;
    return true;
}

static void push(struct conn *c, const void *p, size_t n)
{
    if (n)
        c->out[c->out_tail++] = (struct iovec){(void *)p, n};
}

/* A response to @r, queued; the caller adds what its opcode needs. */
static uint8_t *respond(struct conn *c, const uint8_t *r, uint8_t opcode, uint8_t flags,
                        bool status)
{
    uint8_t *h;

    if (c->nr_hdr == MAX_OUT)
        die("too much queued");
    h = c->hdr[c->nr_hdr++];
    memset(h, 0, BHS_BYTES);
    h[0] = opcode;
    h[1] = flags;
    memcpy(h + 16, r + 16, 4);
    put_be32(h + 24, c->statsn);
    c->statsn += status;
    put_be32(h + 28, c->expcmdsn);
    put_be32(h + 32, c->expcmdsn + WINDOW - 1);
    push(c, h, BHS_BYTES);
    return h;
}

static void answer(struct conn *c, const uint8_t *r, uint8_t status)
{
    respond(c, r, 0x21, 0x80, true)[3] = status;
}

static uint8_t *from_pool(struct conn *c, size_t n)
{
    uint8_t *p = c->pool + c->pool_used;

    c->pool_used += (n + 63) & ~(size_t)63;
    if (c->pool_used > POOL_BYTES)
        die("pool is empty");
    return p;
}

static void send_data(struct conn *c, const uint8_t *r, const uint8_t *data, uint32_t len)
{
    uint32_t asked = get_be32(r + 20), off = 0, sn = 0;

    len = len < asked ? len : asked;
    while (off < len) {
        uint32_t n = len - off < SEGMENT_BYTES ? len - off : SEGMENT_BYTES;
        bool last = off + n == len;
        uint8_t *h = respond(c, r, 0x25, last ? (len < asked ? 0x83 : 0x81) : 0, last);

        put_be24(h + 5, n);
        put_be32(h + 20, 0xffffffffu);
        put_be32(h + 36, sn++);
        put_be32(h + 40, off);
        put_be32(h + 44, last ? asked - len : 0);
        push(c, data + off, n);
        push(c, nothing, -n & 3);
        off += n;
    }
}

static void send_small(struct conn *c, const uint8_t *r, const uint8_t *data, uint32_t len)
{
    send_data(c, r, memcpy(from_pool(c, len), data, len), len);
}

/* ---- SCSI ---------------------------------------------------------------------------- */

static void put_data(uint64_t offset, const uint8_t *data, uint32_t len)
{
    if (file_fd >= 0 && len && pwrite(file_fd, data, len, (off_t)offset) != (ssize_t)len)
        die("pwrite");
}

static void do_read(struct conn *c, const uint8_t *r, uint64_t offset, uint32_t len)
{
    uint8_t *p = nothing;

    if (file_fd >= 0) {
        p = from_pool(c, len);
        if (pread(file_fd, p, len, (off_t)offset) != (ssize_t)len)
            die("pread");
    }
    send_data(c, r, p, len);
}

static void request_more(struct conn *c, const uint8_t *r, uint32_t have, uint32_t len)
{
    uint8_t *h = respond(c, r, 0x31, 0x80, false);

    put_be32(h + 20, get_be32(r + 16));
    put_be32(h + 40, have);
    put_be32(h + 44, len - have);
}

static void do_write(struct conn *c, const uint8_t *r, const uint8_t *data, uint32_t have,
                     uint64_t offset, uint32_t len)
{
    put_data(offset, data, have);
    if (have >= len) {
        answer(c, r, 0);
        return;
    }
    for (unsigned i = 0; i < WINDOW; i++) {
        if (!c->writes[i].open) {
            c->writes[i] = (struct write){offset, get_be32(r + 16), true};
            request_more(c, r, have, len);
            return;
        }
    }
    die("more writes than the window has");
}

static void inquiry(struct conn *c, const uint8_t *r)
{
    uint8_t d[36] = {0, 0, 5, 2, 31, 0, 0, 2};

    memcpy(d + 8, "COWTGT  FLOOR           0   ", 28);
    if (r[33] & 1)
        answer(c, r, 2);
    else
        send_small(c, r, d, sizeof(d));
}

static void capacity(struct conn *c, const uint8_t *r)
{
    uint8_t d[32] = {0};

    put_be64(d, disk_bytes / 512 - 1);
    put_be32(d + 8, 512);
    if (r[32] == 0x25) {
        put_be32(d, (uint32_t)(disk_bytes / 512 - 1));
        put_be32(d + 4, 512);
    }
    send_small(c, r, d, r[32] == 0x25 ? 8 : 32);
}

static void command(struct conn *c, const uint8_t *r, const uint8_t *data, uint32_t have)
{
    const uint8_t *cdb = r + 32;
    bool ten = cdb[0] == 0x28 || cdb[0] == 0x2a;
    uint64_t lba = ten ? get_be32(cdb + 2) : get_be64(cdb + 2);
    uint64_t len = (ten ? get_be16(cdb + 7) : get_be32(cdb + 10)) * UINT64_C(512);
    bool io = ten || cdb[0] == 0x88 || cdb[0] == 0x8a;

    if (io && (len > COMMAND_MAX || lba > disk_bytes / 512 || lba * 512 + len > disk_bytes))
        answer(c, r, 2);
    else if (cdb[0] == 0x28 || cdb[0] == 0x88)
        do_read(c, r, lba * 512, (uint32_t)len);
    else if (io)
        do_write(c, r, data, have, lba * 512, (uint32_t)len);
    else if (cdb[0] == 0x12)
        inquiry(c, r);
    else if (cdb[0] == 0x25 || cdb[0] == 0x9e)
        capacity(c, r);
    else if (cdb[0] == 0x35 || cdb[0] == 0x91)
        answer(c, r, file_fd >= 0 && fdatasync(file_fd) ? 2 : 0);
    else
        answer(c, r, cdb[0] == 0 ? 0 : 2);
}

/* ---- iSCSI --------------------------------------------------------------------------- */

static void data_out(struct conn *c, const uint8_t *r, const uint8_t *data, uint32_t len)
{
    uint32_t tag = get_be32(r + 16);

    for (unsigned i = 0; i < WINDOW; i++) {
        struct write *w = &c->writes[i];

        if (!w->open || w->tag != tag)
            continue;
        put_data(w->offset + get_be32(r + 40), data, len);
        if (r[1] & 0x80) {
            w->open = false;
            answer(c, r, 0);
        }
        return;
    }
}

static void login(struct conn *c, const uint8_t *r)
{
    static const char security[] = "AuthMethod=None\0TargetPortalGroupTag=1";
    static const char keys[] =
        "HeaderDigest=None\0DataDigest=None\0InitialR2T=Yes\0ImmediateData=Yes\0"
        "MaxRecvDataSegmentLength=262144\0MaxBurstLength=1048576\0FirstBurstLength=262144\0"
        "MaxConnections=1\0DefaultTime2Wait=0\0DefaultTime2Retain=0\0MaxOutstandingR2T=1\0"
        "DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0ErrorRecoveryLevel=0";
    bool first = !(r[1] & 0x0c), full = (r[1] & 0x83) == 0x83;
    const char *text = first ? security : keys;
    size_t len = first ? sizeof(security) : sizeof(keys);
    uint8_t *h;

    c->expcmdsn = get_be32(r + 24);
    h = respond(c, r, 0x23, r[1], true);
    memcpy(h + 8, r + 8, 6);
    h[15] = full;
    put_be24(h + 5, (uint32_t)len);
    push(c, text, len);
    push(c, nothing, -len & 3);
}

static bool pdu(struct conn *c, const uint8_t *r, const uint8_t *data, uint32_t len)
{
    uint8_t op = r[0] & 0x3f;

    if (op != 0x03 && op != 0x05 && !(r[0] & 0x40))
        c->expcmdsn++;
    switch (op) {
    case 0x00:
        if (get_be32(r + 16) != 0xffffffffu)
            put_be32(respond(c, r, 0x20, 0x80, true) + 20, 0xffffffffu);
        return true;
    case 0x01:
        command(c, r, data, len);
        return true;
    case 0x02:
        respond(c, r, 0x22, 0x80, true);
        return true;
    case 0x03:
        login(c, r);
        return true;
    case 0x05:
        data_out(c, r, data, len);
        return true;
    case 0x06:
        respond(c, r, 0x26, 0x80, true);
        return true;
    default:
        return false;
    }
}

static bool receive(struct conn *c)
{
    ssize_t n = read(c->fd, c->rx + c->rx_len, RX_BYTES - c->rx_len);
    size_t pos = 0;

    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    c->rx_len += (size_t)n;
    while (c->rx_len - pos >= BHS_BYTES) {
        const uint8_t *p = c->rx + pos;
        uint32_t hdr = BHS_BYTES + p[4] * 4u, data = get_be24(p + 5);
        size_t total = hdr + ((data + 3) & ~3u);

        if (total > RX_BYTES)
            return false;
        if (c->rx_len - pos < total)
            break;
        if (!pdu(c, p, p + hdr, data))
            return false;
        pos += total;
    }
    memmove(c->rx, c->rx + pos, c->rx_len - pos);
    c->rx_len -= pos;
    return true;
}

/* ---- the loop ------------------------------------------------------------------------ */

static void accept_one(int ep, int listener)
{
    struct epoll_event ev = {.events = EPOLLIN};
    struct conn *c = calloc(1, sizeof(*c));
    int one = 1;

    if (!c)
        die("memory");
    c->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (c->fd < 0) {
        free(c);
        return;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    ev.data.ptr = c;
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev))
        die("epoll_ctl");
}

/* Nothing more is taken while answers wait for room in the socket. */
static void serve(int ep, struct conn *c)
{
    bool fine = flush_out(c), wants_out;
    struct epoll_event ev = {.data.ptr = c};

    if (fine && c->out_head == c->out_tail)
        fine = receive(c) && flush_out(c);
    if (!fine) {
        close(c->fd);
        free(c);
        return;
    }
    wants_out = c->out_head < c->out_tail;
    if (wants_out == c->wants_out)
        return;
    c->wants_out = wants_out;
    ev.events = wants_out ? EPOLLOUT : EPOLLIN;
    if (epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev))
        die("epoll_ctl");
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
        bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 16))
        die("listen");
    return fd;
}

static void open_disk(const char *path)
{
    struct stat st;

    file_fd = open(path, O_RDWR | O_CLOEXEC);
    if (file_fd < 0 || fstat(file_fd, &st))
        die(path);
    disk_bytes = (uint64_t)st.st_size;
}

int main(int argc, char **argv)
{
    struct epoll_event ev = {.events = EPOLLIN}, got[16];
    uint16_t port = 0;
    int c, ep, listener;

    while ((c = getopt(argc, argv, "p:0:")) > 0) {
        if (c == 'p')
            port = (uint16_t)atoi(optarg);
        else if (c == '0')
            disk_bytes = strtoull(optarg, NULL, 10);
        else
            return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    if (optind < argc)
        open_disk(argv[optind]);
    if (!port || disk_bytes < 512) {
        fprintf(stderr, "usage: floor -p PORT [-0 BYTES] [FILE]\n");
        return 2;
    }
    listener = listen_on(port);
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev))
        die("epoll");
    for (;;) {
        int n = epoll_wait(ep, got, 16, -1);

        for (int i = 0; i < n; i++) {
            if (got[i].data.ptr)
                serve(ep, got[i].data.ptr);
            else
                accept_one(ep, listener);
        }
    }
}
