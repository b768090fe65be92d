/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One initiator session to a target by libiscsi, on the loop: connect, one SCSI command at a time
 * per call, deadlines, close. What remote.c (a LUN) and discovery/ (finding chains) share.
 * All functions are for coroutines of the loop's thread unless said otherwise.
 */
#ifndef COWTGT_ISCSI_CONN_H
#define COWTGT_ISCSI_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "util/error.h"
#include "util/list.h"

struct iscsi_conn;
struct scsi_task;

struct iscsi_conn_opts {
    const char *host; /* resolved on a helper thread */
    uint16_t port;
    const char *target; /* NULL: discovery session */
    const char *initiator;
    const char *user, *secret; /* CHAP, NULL if none */
    bool digests;              /* CRC32C of PDU headers, or no login */
    uint64_t isid;             /* 40 bits that are always the same; 0: random ones */
    uint64_t timeout_ns;       /* for connect + login, and default per command; 0: 10 s */
    /* Called (loop, not from inside libiscsi) once when the session is lost; may be NULL. With it,
     * a target that says that a LUN has changed (unit attention) has lost the session, too. After
     * it every command fails -EHOSTDOWN; the owner still has to iscsi_conn_close(). */
    void (*on_down)(struct iscsi_conn *c, const char *why, void *opaque);
    void *opaque;
};

/* *@conn is set while the attempt runs (for iscsi_conn_cancel()), and NULL again if it failed. */
int co_iscsi_connect(const struct iscsi_conn_opts *opts, struct iscsi_conn **conn,
                     struct error *err);
/* Ends an attempt to connect (-ECANCELED), or the session; any context of the loop thread. */
void iscsi_conn_cancel(struct iscsi_conn *conn, const char *why);
/* Logs out if it is up (bounded to 1 s), frees. Commands under way have failed before. */
void co_iscsi_close(struct iscsi_conn *conn);
/* The same without logout and without waiting; any context of the loop thread. */
void iscsi_conn_abandon(struct iscsi_conn *conn);

/*
 * One SCSI command, data-in into @buf. Returns 0 (GOOD; *@got = bytes received), -EHOSTDOWN
 * (session lost or deadline), -EAGAIN (BUSY / TASK SET FULL after retries), -EREMOTEIO (CHECK
 * CONDITION: *@sense_key, *@ascq filled). Unit attentions and BUSY are retried inside (at most
 * 7 times). @alloc: expected data-in length.
 */
int co_iscsi_command(struct iscsi_conn *conn, int lun, const uint8_t *cdb, unsigned cdb_len,
                     void *buf, uint32_t alloc, uint32_t *got, uint8_t *sense_key, uint16_t *ascq);

/* The same with @bytes of data-out. */
int co_iscsi_command_out(struct iscsi_conn *conn, int lun, const uint8_t *cdb, unsigned cdb_len,
                         const void *data, uint32_t bytes, uint8_t *sense_key, uint16_t *ascq);

/*
 * The same without a coroutine. The memory is the submitter's until done(), which is called once,
 * later, never from inside libiscsi; no byte is written to the buffers after it. Many may be
 * under way; they are started in order. An `exact` command that got GOOD status but not every
 * byte fails -EIO: bytes that did not arrive are never taken for data.
 */
struct iscsi_cmd {
    uint8_t cdb[16];
    unsigned cdb_len;
    int lun;
    const struct iovec *iov; /* data: [iov_from, iov_from + bytes) of it */
    int niov;
    size_t iov_from;
    uint32_t bytes; /* 0: no data */
    bool out;       /* data-out, that nobody changes meanwhile; else data-in */
    bool exact;
    void (*done)(struct iscsi_cmd *cmd);
    void *opaque;

    /* results, as of co_iscsi_command(); -EIO for any other status */
    int result;
    uint32_t got;
    uint8_t sense_key;
    uint16_t ascq;

    /* the connection's */
    struct list_head link;
    struct iscsi_conn *conn;
    struct scsi_task *task;
    uint64_t issued_ns, retry_at_ns;
    unsigned retries;
};
void iscsi_conn_submit(struct iscsi_conn *conn, struct iscsi_cmd *cmd);

struct iscsi_found_target {
    char name[224];
    char portal[280]; /* HOST:PORT, first one */
};
/* SendTargets on a discovery session. Fills up to @max; returns how many, or -errno with @err. */
int co_iscsi_sendtargets(struct iscsi_conn *conn, struct iscsi_found_target *out, unsigned max,
                         struct error *err);

#endif
