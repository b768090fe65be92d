/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Receiving: one read takes in as many PDUs as have come. All connections share one scratch
 * buffer; what can't be parsed yet is kept per connection until the next turn. A data segment
 * whose place is known is read straight into it.
 *
 * While rx.blocked is set the socket is not read: TCP holds the peer back, and no more than what
 * one read had taken is kept.
 */
#include "target/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "target/digest.h"
#include "target/session.h"
#include "target/task.h"
#include "util/size.h"

#define SCRATCH_BYTES     (256u << 10)
#define DIRECT_MIN_BYTES  4096 /* below it copying is cheaper than a read of its own */
#define DIRECT_TAIL_BYTES 8192 /* behind a long direct read: the next headers */
#define READS_PER_TURN    8

static uint8_t scratch[SCRATCH_BYTES] __attribute__((aligned(64)));

/* Bytes a step of the parser took, or that it can't go on. */
#define STEP_WAIT (-1)

static void block(struct conn *c)
{
    if (!c->rx.blocked_ns)
        c->rx.blocked_ns = now_ns();
    c->rx.blocked = true;
}

static bool too_much_queued(const struct conn *c)
{
    return c->tx.bytes > CONN_TX_MAX_BYTES || c->tx.nr_ops > CONN_TX_MAX_OPS ||
           (c->session && c->session->nr_tasks >= SESSION_MAX_TASKS);
}

/* The connection that received last, and since when it alone did. */
static struct {
    const struct conn *conn;
    uint64_t since_ns;
} last;

bool conn_has_company(void)
{
    return now_ns() - last.since_ns < CONN_COMPANY_NS;
}

static void note_received(struct conn *c)
{
    c->rx.last_ns = now_ns();
    if (last.conn != c)
        last.since_ns = c->rx.last_ns;
    last.conn = c;
}

/* It goes on in the next turn, when the others had theirs. */
static bool had_its_share(struct conn *c)
{
    if (c->rx.turn != loop_nr_turns()) {
        c->rx.turn = loop_nr_turns();
        c->rx.turn_pdus = 0;
    }
    if (c->rx.turn_pdus++ < CONN_SHARE_PDUS || !conn_has_company())
        return false;
    c->rx.blocked = true;
    loop_defer(&c->rx_defer, LOOP_NEXT);
    return true;
}

static long step_header(struct conn *c, const uint8_t *p, size_t n)
{
    size_t len = PDU_BHS_BYTES, need;
    int rc;

    if (c->state != CONN_LOGIN && c->state != CONN_FULL)
        return STEP_WAIT;
    if (too_much_queued(c)) {
        block(c);
        return STEP_WAIT;
    }
    if (n < len || had_its_share(c))
        return STEP_WAIT;
    if (c->state == CONN_LOGIN && (p[0] & 0x3f) != PDU_LOGIN_REQ) {
        conn_close(c, "not an iSCSI initiator");
        return STEP_WAIT;
    }
    len += p[4] * 4u; /* TotalAHSLength */
    need = len + (c->header_digest ? PDU_DIGEST_BYTES : 0);
    if (n < need)
        return STEP_WAIT;
    if (c->header_digest &&
        digest_end(digest_update(DIGEST_BEGIN, p, len)) != digest_get(p + len)) {
        conn_close(c, "header digest error");
        return STEP_WAIT;
    }
    memcpy(c->rx.bhs, p, PDU_BHS_BYTES);
    rc = pdu_decode(p, &c->rx.pdu);
    if (!rc && c->rx.pdu.opcode == PDU_SCSI_CMD)
        pdu_decode_ahs(p + PDU_BHS_BYTES, &c->rx.pdu);
    c->rx.placed_bytes = 0;
    c->rx.digest = DIGEST_BEGIN;
    c->rx.sink = RX_DISCARD;
    c->rx.task = NULL;
    c->rx.state = RX_DATA;
    ffp_begin(c, rc);
    return (long)need;
}

/* Where the next bytes of the data segment go; NULL and not *discard: nowhere yet. */
static uint8_t *sink_room(struct conn *c, uint32_t *room, bool *discard)
{
    *room = c->rx.pdu.data_bytes - c->rx.placed_bytes;
    *discard = c->rx.sink == RX_DISCARD;
    if (c->rx.sink == RX_SEGMENT)
        return c->rx.segment + c->rx.placed_bytes;
    return c->rx.sink == RX_TASK ? task_rx_room(c, room, discard) : NULL;
}

static void placed(struct conn *c, const uint8_t *p, uint32_t n)
{
    if (c->data_digest)
        c->rx.digest = digest_update(c->rx.digest, p, n);
    if (c->rx.sink == RX_TASK)
        task_rx_placed(c, n);
    c->rx.placed_bytes += n;
}

static long step_data(struct conn *c, const uint8_t *p, size_t n)
{
    uint32_t left = c->rx.pdu.data_bytes - c->rx.placed_bytes, room;
    bool discard;
    uint8_t *dest;

    if (!left) {
        c->rx.state = RX_TRAILER;
        return 0;
    }
    dest = sink_room(c, &room, &discard);
    if (!dest && !discard) {
        block(c);
        return STEP_WAIT;
    }
    if (!n)
        return STEP_WAIT;
    room = (uint32_t)MIN_OF(MIN_OF(n, room), left);
    if (dest)
        memcpy(dest, p, room);
    placed(c, p, room);
    return room;
}

static long step_trailer(struct conn *c, const uint8_t *p, size_t n)
{
    uint32_t pad = pdu_pad_bytes(c->rx.pdu.data_bytes);
    bool digest = c->data_digest && c->rx.pdu.data_bytes;
    size_t need = pad + (digest ? PDU_DIGEST_BYTES : 0);
    bool ok = true;

    if (n < need)
        return STEP_WAIT;
    if (digest)
        ok = digest_end(digest_update(c->rx.digest, p, pad)) == digest_get(p + pad);
    c->rx.state = RX_HEADER;
    ffp_end(c, ok);
    return (long)need;
}

static long (*const steps[])(struct conn *, const uint8_t *, size_t) = {
    [RX_HEADER] = step_header,
    [RX_DATA] = step_data,
    [RX_TRAILER] = step_trailer,
};

/* Returns the bytes used up. */
static size_t parse(struct conn *c, const uint8_t *p, size_t n)
{
    size_t used = 0;

    while (c->state != CONN_CLOSED) {
        long step = steps[c->rx.state](c, p + used, n - used);

        if (step == STEP_WAIT)
            break;
        used += (size_t)step;
        c->rx.blocked_ns = 0;
    }
    return used;
}

/* Where there is no want of a buffer that is a header or a digest cut in two: no allocation. */
static void keep(struct conn *c, const uint8_t *p, size_t n)
{
    c->rx.kept = n <= sizeof(c->rx.kept_small) ? c->rx.kept_small : malloc(n);
    if (!c->rx.kept) {
        conn_close(c, "out of memory");
        return;
    }
    memcpy(c->rx.kept, p, n);
    c->rx.kept_bytes = (uint32_t)n;
}

void conn_rx_forget(struct conn *c)
{
    if (c->rx.kept != c->rx.kept_small)
        free(c->rx.kept);
    c->rx.kept = NULL;
    c->rx.kept_bytes = 0;
}

static size_t take_kept(struct conn *c)
{
    size_t n = c->rx.kept_bytes;

    if (n)
        memcpy(scratch, c->rx.kept, n);
    conn_rx_forget(c);
    return n;
}

/* Parses @n bytes of scratch; the rest is kept; the socket is watched unless blocked. */
static void feed(struct conn *c, size_t n)
{
    size_t used = parse(c, scratch, n);

    if (c->state == CONN_CLOSED || c->state == CONN_ENDING)
        return;
    keep(c, scratch + used, n - used);
    if (c->state == CONN_CLOSED)
        return;
    if (c->rx.blocked)
        ev_io_stop(loop_ev(), &c->readable);
    else
        ev_io_start(loop_ev(), &c->readable);
}

/* One entry for the data segment's own place, if that is worth it, one for scratch. */
static int read_plan(struct conn *c, struct iovec iov[2], size_t kept)
{
    uint32_t room = 0;
    bool discard;
    uint8_t *dest = NULL;
    int n = 0;

    if (!kept && c->rx.state == RX_DATA)
        dest = sink_room(c, &room, &discard);
    if (dest && room >= DIRECT_MIN_BYTES)
        iov[n++] = (struct iovec){dest, room};
    iov[n] = (struct iovec){scratch + kept, SCRATCH_BYTES - kept};
    if (n && room > 8 * DIRECT_TAIL_BYTES)
        iov[n].iov_len = DIRECT_TAIL_BYTES;
    return n + 1;
}

/* True if there may be more to read. */
static bool read_once(struct conn *c)
{
    size_t kept = take_kept(c), asked, got, direct = 0;
    struct iovec iov[2];
    struct msghdr msg = {.msg_iov = iov};
    ssize_t r;

    msg.msg_iovlen = (size_t)read_plan(c, iov, kept);
    asked = iov[0].iov_len + (msg.msg_iovlen > 1 ? iov[1].iov_len : 0);
    r = recvmsg(c->fd, &msg, MSG_DONTWAIT);
    if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
        keep(c, scratch, kept);
        return false;
    }
    if (r <= 0) {
        conn_close(c, r ? strerror(errno) : c->session ? "closed by the initiator" : NULL);
        return false;
    }
    note_received(c);
    got = (size_t)r;
    if (msg.msg_iovlen > 1) {
        direct = MIN_OF(got, iov[0].iov_len);
        placed(c, iov[0].iov_base, (uint32_t)direct);
    }
    feed(c, kept + got - direct);
    return got == asked && (c->state == CONN_LOGIN || c->state == CONN_FULL) && !c->rx.blocked;
}

static void on_readable(struct ev_loop *ev, struct ev_io *w, int revents)
{
    struct conn *c = w->data;

    (void)ev;
    (void)revents;
    for (int i = 0; i < READS_PER_TURN && read_once(c); i++)
        ;
}

static void on_kick(struct deferred *d)
{
    struct conn *c = container_of(d, struct conn, rx_defer);

    if (c->state != CONN_LOGIN && c->state != CONN_FULL)
        return;
    c->rx.blocked = false;
    feed(c, take_kept(c));
}

void conn_rx_start(struct conn *c)
{
    c->rx_defer.fn = on_kick;
    ev_io_init(&c->readable, on_readable, c->fd, EV_READ);
    c->readable.data = c;
    ev_io_start(loop_ev(), &c->readable);
}

void conn_rx_stop(struct conn *c)
{
    ev_io_stop(loop_ev(), &c->readable);
    loop_undefer(&c->rx_defer);
}

void conn_rx_kick(struct conn *c)
{
    if (c->rx.blocked)
        loop_defer(&c->rx_defer, LOOP_NOW);
}
