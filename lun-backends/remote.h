/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A LUN of an iSCSI target as a block node (libiscsi, asynchronous, on the loop).
 *
 * libiscsi's own reconnect is off. On any error or deadline the context is destroyed (deferred,
 * never inside its callback), requests under way fail -EHOSTDOWN, and a new one is connected
 * with backoff to an address resolved on a helper thread; identity (layer UUID, or VPD 83h and
 * capacity) is checked before the node says BLK_EV_SOURCE_UP. A source with another identity
 * stays down, and says so in the log and in remote_status.
 * Two sessions: demand reads, and BLK_BULK ones. Nothing a target says is believed unchecked.
 */
#ifndef COWTGT_REMOTE_H
#define COWTGT_REMOTE_H

#include "lun-backends/block.h"
#include "lun-backends/iscsi-conn.h"
#include "util/cow-wire.h"
#include "util/uuid.h"

/* iscsi://[USER@]HOST[:PORT]/IQN[/LUN] taken apart. */
struct iscsi_url {
    char user[256];   /* "" if none */
    char host[256];   /* without brackets */
    uint16_t port;    /* 3260 if not said */
    char target[224]; /* IQN, EUI or NAA name */
    int lun;          /* -1 if not said */
};
/* Pure. Passwords in a URL (user%pw@) are refused: secrets come from files. */
int iscsi_url_parse(const char *text, struct iscsi_url *url, struct error *err);
/*
 * iscsi://HOST:PORT/IQN/LUN, no user, brackets round IPv6; iscsi_url_parse() of it gives the same
 * again. -ENAMETOOLONG.
 */
int iscsi_url_format(const struct iscsi_url *url, char *buf, size_t len);

/* What was learned of a LUN at connect; kept in the state to know the source again. */
struct remote_identity {
    bool has_cowl;
    bool unsealed;          /* if has_cowl: the UUID holds until its host opens it anew */
    struct uuid layer_uuid; /* if has_cowl */
    uint8_t naa[16];        /* first VPD 83h designator of the LUN, zeros if none */
    uint64_t size_bytes;
};

struct remote_opts {
    struct iscsi_url url; /* lun set */
    char secret[256];     /* CHAP, "" if none */
    char initiator[224];
    bool digests;                  /* CRC32C of PDU headers, or no login */
    struct remote_identity expect; /* size_bytes 0: first contact, take what comes */
    bool may_be_down;              /* open without contact (restart); needs expect.size_bytes */
};

/* Connects (unless may_be_down), checks and makes the node. Read-only, never written. */
int co_remote_open(const struct remote_opts *opts, struct blk_node **node, struct error *err);
void remote_get_identity(const struct blk_node *node, struct remote_identity *id);

struct remote_status {
    bool connected;         /* demand session is up */
    uint64_t down_since_ns; /* now_ns() time; 0 if connected */
    uint64_t bytes_read;    /* data bytes over the wire, both sessions */
    char last_error[256];
};
void remote_get_status(const struct blk_node *node, struct remote_status *st);
bool blk_node_is_remote(const struct blk_node *node);
/* A LUN number that shows the same disk, to be taken should another one come under the first. */
void remote_set_other_lun(struct blk_node *node, int lun);

/*
 * Extents of the remote disk from @offset, best answer first: GET LAYER STATUS if the LUN has it,
 * else GET LBA STATUS, else one DATA extent. State DATA/COMPRESSED = must be read, ZERO = decided
 * zeros, UNALLOCATED = nobody has a say (reads zeros). @deepest: layers of the source to look
 * into, 0 = all; what those below decide is UNALLOCATED then, if the LUN has GET LAYER STATUS; one
 * that has not tells of the whole disk. Uses the bulk session. Returns the number of extents (>= 1)
 * or -errno (-EHOSTDOWN as for requests; -EAGAIN: the target is busy).
 */
int co_remote_status(struct blk_node *node, uint64_t offset, uint64_t bytes, unsigned deepest,
                     struct blk_extent *ext, unsigned max);
/* What the source says of its LUN @lun, asked in the session that this node has with it. 0 or
 * -errno as above, with @err. */
struct lun_info;
int co_remote_lun_info(struct blk_node *node, int lun, struct lun_info *info, struct error *err);
/* True if the source tells which layer decides; *@generation of its chain as last heard. */
bool remote_tells_layers(const struct blk_node *node, uint32_t *generation);

#endif
