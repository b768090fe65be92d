/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sending: what a turn produced goes out at its end, as many PDUs in one sendmsg() as fit. A
 * series of Data-In PDUs is one queue entry over the pool's buffer; its headers are made from
 * the entry alone when they leave, and come out the same again after a short write.
 */
#include "target/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "lun-backends/block.h"
#include "target/digest.h"
#include "util/bus-guard.h"
#include "util/byteorder.h"
#include "util/size.h"

#define BATCH_PDUS     128
#define BATCH_BYTES    (4u << 20) /* what a socket's buffer takes at most, by default */
#define BATCHES_A_TURN 8
#define MAX_IOVS       (3 * BATCH_PDUS)
#define LOST           "data that were to be sent can't be read any more, or have changed"

/* One PDU of an entry, as it is on the wire. */
struct wire_pdu {
    uint8_t header[PDU_BHS_BYTES + PDU_DIGEST_BYTES];
    uint8_t trailer[3 + PDU_DIGEST_BYTES];
    uint32_t header_bytes, data_bytes, trailer_bytes;
    const uint8_t *data;
    uint32_t crc; /* of the data, where they have a digest */
};

/* Filled and handed to the kernel within one call: shared by all connections. */
static struct wire_pdu batch[BATCH_PDUS];
static struct iovec iovs[MAX_IOVS];

/* Length of the PDU that starts @at_bytes into the entry's data: cut at segments and bursts. */
static uint32_t pdu_data_at(const struct tx_op *op, uint32_t at_bytes)
{
    uint32_t left = op->data_bytes - at_bytes, burst_left;

    if (!op->segment_bytes)
        return left;
    burst_left = op->burst_bytes - at_bytes % op->burst_bytes;
    return MIN_OF(MIN_OF(op->segment_bytes, burst_left), left);
}

static uint32_t pdu_wire_bytes(const struct tx_op *op, uint32_t data_bytes)
{
    uint32_t n = PDU_BHS_BYTES + data_bytes + pdu_pad_bytes(data_bytes);

    if (op->header_digest)
        n += PDU_DIGEST_BYTES;
    if (op->data_digest && data_bytes)
        n += PDU_DIGEST_BYTES;
    return n;
}

static void make_header(const struct tx_op *op, uint32_t at, uint32_t index, struct wire_pdu *w)
{
    uint32_t end = at + w->data_bytes;
    bool last = end == op->data_bytes;

    if (op->segment_bytes) {
        pdu_data_in_cut(w->header, op->bhs, index, at, w->data_bytes,
                        last || !(end % op->burst_bytes), last);
    } else {
        memcpy(w->header, op->bhs, PDU_BHS_BYTES);
        pdu_set_data_bytes(w->header, w->data_bytes);
    }
    w->header_bytes = PDU_BHS_BYTES;
    if (op->header_digest) {
        digest_put(w->header + PDU_BHS_BYTES,
                   digest_end(digest_update(DIGEST_BEGIN, w->header, PDU_BHS_BYTES)));
        w->header_bytes += PDU_DIGEST_BYTES;
    }
}

struct digest_job {
    const uint8_t *data;
    uint32_t bytes, pad, crc;
};

static void run_digest(void *arg)
{
    struct digest_job *job = arg;

    job->crc = digest_of(job->data, job->bytes, job->pad);
}

/* False: the data are lost. */
static bool digest_data(struct tx_op *op, uint32_t at, struct wire_pdu *w)
{
    struct digest_job job = {w->data, w->data_bytes, pdu_pad_bytes(w->data_bytes), 0};

    if (!op->loan || !op->loan->data) {
        run_digest(&job);
    } else if (!bus_guarded(job.data, job.bytes, run_digest, &job)) {
        blk_loan_recall(op->loan);
        if (op->lost)
            return false;
        w->data = job.data = op->data + at;
        run_digest(&job);
    }
    w->crc = job.crc;
    return true;
}

/*
 * That of the first PDU may be known. But while lent data are still to be sent, the file may be
 * changed behind our back, so they are looked at each time, and what has gone out of them must
 * match the rest. False: the data are lost.
 */
static bool know_digest(struct tx_op *op, uint32_t at, struct wire_pdu *w)
{
    bool first = at == op->at_bytes, again = first && op->crc_known;
    uint32_t data_gone = op->pdu_sent_bytes - MIN_OF(op->pdu_sent_bytes, w->header_bytes);

    if (again && (!op->loan || data_gone >= w->data_bytes)) {
        w->crc = op->crc;
        return true;
    }
    if (!digest_data(op, at, w))
        return false;
    op->lost = again && data_gone && w->crc != op->crc;
    if (first) {
        op->crc = w->crc;
        op->crc_known = true;
    }
    return !op->lost;
}

/* False: the data are lost. */
static bool make_trailer(struct tx_op *op, uint32_t at, struct wire_pdu *w)
{
    uint32_t pad = pdu_pad_bytes(w->data_bytes);

    memset(w->trailer, 0, pad);
    w->trailer_bytes = pad;
    if (!op->data_digest || !w->data_bytes)
        return true;
    if (!know_digest(op, at, w))
        return false;
    digest_put(w->trailer + pad, w->crc);
    w->trailer_bytes += PDU_DIGEST_BYTES;
    return true;
}

struct gather {
    int nr_iovs;
    unsigned nr_pdus;
    size_t bytes;
};

/* Adds a piece but for its first *@skip bytes, which are gone already. */
static void gather_piece(struct gather *g, const void *p, uint32_t bytes, uint32_t *skip)
{
    uint32_t cut = MIN_OF(*skip, bytes);

    *skip -= cut;
    if (cut == bytes)
        return;
    iovs[g->nr_iovs++] = (struct iovec){(uint8_t *)p + cut, bytes - cut};
    g->bytes += bytes - cut;
}

static bool gather_op(struct gather *g, struct tx_op *op, size_t max_bytes)
{
    uint32_t at = op->at_bytes, index = op->index, skip = op->pdu_sent_bytes;

    do {
        struct wire_pdu *w;

        if (g->nr_pdus == BATCH_PDUS || g->bytes >= max_bytes)
            return false;
        w = &batch[g->nr_pdus++];
        w->data_bytes = pdu_data_at(op, at);
        w->data = at ? op->data + at : op->data;
        make_header(op, at, index, w);
        if (!make_trailer(op, at, w))
            return false;
        gather_piece(g, w->header, w->header_bytes, &skip);
        gather_piece(g, w->data, w->data_bytes, &skip);
        gather_piece(g, w->trailer, w->trailer_bytes, &skip);
        at += w->data_bytes;
        index++;
    } while (at < op->data_bytes);
    return true;
}

/*
 * Takes @bytes off what is still to be sent of @op, whose first PDU was *@w; returns what is left
 * over of them.
 */
static size_t advance(struct conn *c, struct tx_op *op, const struct wire_pdu **w, size_t bytes,
                      bool *finished)
{
    *finished = false;
    while (!*finished) {
        uint32_t data_bytes = pdu_data_at(op, op->at_bytes);
        uint32_t left = pdu_wire_bytes(op, data_bytes) - op->pdu_sent_bytes;

        if (bytes < left) {
            if (bytes) {
                op->crc = (*w)->crc;
                op->crc_known = true;
            }
            op->pdu_sent_bytes += (uint32_t)bytes;
            c->tx.bytes -= bytes;
            return 0;
        }
        bytes -= left;
        c->tx.bytes -= left;
        op->pdu_sent_bytes = 0;
        op->at_bytes += data_bytes;
        op->index++;
        op->crc_known = false;
        (*w)++;
        *finished = op->at_bytes >= op->data_bytes;
    }
    return bytes;
}

/* Of what is in batch[]. */
static void sent(struct conn *c, size_t bytes)
{
    const struct wire_pdu *w = batch;

    c->tx.progress_ns = now_ns();
    c->tx.sent_bytes += bytes;
    while (c->state != CONN_CLOSED && !list_empty(&c->tx.ops)) {
        struct tx_op *op = list_first_entry(&c->tx.ops, struct tx_op, link);
        bool finished;

        bytes = advance(c, op, &w, bytes, &finished);
        if (!finished)
            return;
        list_del(&op->link);
        c->tx.nr_ops--;
        op->done(op, true);
    }
}

/*
 * What @c may still send in this turn. One that is alone sends all that its socket takes: a piece
 * at a time costs it a twentieth of its rate.
 */
static size_t bytes_to_send(struct conn *c)
{
    if (c->tx.turn != loop_nr_turns()) {
        c->tx.turn = loop_nr_turns();
        c->tx.turn_bytes = 0;
    }
    if (!conn_has_company())
        return BATCH_BYTES;
    return CONN_SHARE_BYTES - MIN_OF(c->tx.turn_bytes, CONN_SHARE_BYTES);
}

/* One sendmsg(). False: no more for now. */
static bool send_batch(struct conn *c, size_t max_bytes)
{
    struct gather g = {0};
    struct msghdr msg = {.msg_iov = iovs};
    struct tx_op *op;
    ssize_t r;

    list_for_each_entry (op, &c->tx.ops, link) {
        if (op->lost || !gather_op(&g, op, max_bytes))
            break;
    }
    if (!g.nr_iovs) {
        conn_close(c, LOST);
        return false;
    }
    msg.msg_iovlen = (size_t)g.nr_iovs;
    r = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
        ev_io_start(loop_ev(), &c->writable);
        return false;
    }
    if (r < 0) {
        conn_close(c, errno == EFAULT ? LOST : strerror(errno));
        return false;
    }
    c->tx.turn_bytes += (size_t)r;
    sent(c, (size_t)r);
    if (c->state != CONN_CLOSED && (size_t)r < g.bytes) {
        ev_io_start(loop_ev(), &c->writable);
        return false;
    }
    return c->state != CONN_CLOSED;
}

static void flush(struct conn *c)
{
    if (c->state == CONN_CLOSED)
        return;
    for (int i = 0; i < BATCHES_A_TURN && !list_empty(&c->tx.ops); i++) {
        size_t max_bytes = bytes_to_send(c);

        if (!max_bytes || !send_batch(c, max_bytes))
            break;
    }
    if (c->state == CONN_CLOSED)
        return;
    if (c->tx.bytes < CONN_TX_MAX_BYTES / 2 && c->tx.nr_ops < CONN_TX_MAX_OPS / 2)
        conn_rx_kick(c);
    if (!list_empty(&c->tx.ops)) {
        ev_io_start(loop_ev(), &c->writable);
        return;
    }
    ev_io_stop(loop_ev(), &c->writable);
    if (c->state == CONN_ENDING)
        conn_close(c, NULL);
}

static void on_writable(struct ev_loop *ev, struct ev_io *w, int revents)
{
    (void)ev;
    (void)revents;
    flush(w->data);
}

static void on_turn_end(struct deferred *d)
{
    struct conn *c = container_of(d, struct conn, tx_defer);

    if (!ev_is_active(&c->writable)) /* else the kernel tells when there is room */
        flush(c);
}

void conn_tx_init(struct conn *c)
{
    list_init(&c->tx.ops);
    c->tx_defer.fn = on_turn_end;
    ev_io_init(&c->writable, on_writable, c->fd, EV_WRITE);
    c->writable.data = c;
}

static uint64_t op_wire_bytes(const struct tx_op *op)
{
    uint64_t total = 0;
    uint32_t at = 0;

    do {
        uint32_t n = pdu_data_at(op, at);

        total += pdu_wire_bytes(op, n);
        at += n;
    } while (at < op->data_bytes);
    return total;
}

void conn_send(struct conn *c, struct tx_op *op)
{
    op->header_digest = c->header_digest;
    op->data_digest = c->data_digest;
    op->crc_known = op->lost = false;
    op->at_bytes = op->index = op->pdu_sent_bytes = 0;
    if (list_empty(&c->tx.ops))
        c->tx.progress_ns = now_ns();
    list_add_tail(&c->tx.ops, &op->link);
    c->tx.nr_ops++;
    c->tx.bytes += op_wire_bytes(op);
    loop_defer(&c->tx_defer, LOOP_END);
}

void conn_tx_drop(struct conn *c)
{
    while (!list_empty(&c->tx.ops)) {
        struct tx_op *op = list_first_entry(&c->tx.ops, struct tx_op, link);

        list_del(&op->link);
        op->done(op, false);
    }
    c->tx.nr_ops = 0;
    c->tx.bytes = 0;
}

void conn_stamp(struct conn *c, uint8_t *bhs, bool counts)
{
    pdu_set_sn(bhs, c->statsn, c->exp_cmdsn, c->max_cmdsn);
    if (counts)
        c->statsn++;
}

struct lone_pdu {
    struct tx_op op;
    void *data;
};

static void lone_done(struct tx_op *op, bool was_sent)
{
    struct lone_pdu *l = container_of(op, struct lone_pdu, op);

    (void)was_sent;
    free(l->data);
    free(l);
}

bool conn_send_pdu(struct conn *c, const uint8_t *bhs, void *data, uint32_t data_bytes, bool counts)
{
    struct lone_pdu *l = c->state == CONN_CLOSED ? NULL : calloc(1, sizeof(*l));

    if (!l) {
        free(data);
        conn_close(c, "out of memory");
        return false;
    }
    l->data = data;
    l->op.done = lone_done;
    memcpy(l->op.bhs, bhs, PDU_BHS_BYTES);
    conn_stamp(c, l->op.bhs, counts);
    l->op.data = data;
    l->op.data_bytes = data_bytes;
    conn_send(c, &l->op);
    return true;
}
