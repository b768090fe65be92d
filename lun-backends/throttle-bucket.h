/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Leaky buckets: how long a request has to wait so that averages hold and bursts stay within
 * their bounds. Pure: time comes from outside.
 *
 * A bucket leaks `average` units a second. Without a maximum it takes 100 ms worth of them. With
 * one it takes `maximum` for `burst_s` seconds, and while it fills, a second bucket of 100 ms that
 * leaks `maximum` a second keeps bursts of more than a second at that rate.
 */
#ifndef COWTGT_THROTTLE_BUCKET_H
#define COWTGT_THROTTLE_BUCKET_H

#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

#define THROTTLE_MAX_UNITS UINT64_C(1000000000000000)

enum throttle_kind {
    THROTTLE_BPS_TOTAL,
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_IOPS_TOTAL,
    THROTTLE_IOPS_READ,
    THROTTLE_IOPS_WRITE,
    THROTTLE_NR_KINDS,
};

struct throttle_limit {
    uint64_t average; /* units (bytes, operations) a second; 0: no limit */
    uint64_t maximum; /* in a burst; 0: none allowed */
    uint64_t burst_s; /* for how long; 0 is 1 */
};

struct throttle_config {
    struct throttle_limit limit[THROTTLE_NR_KINDS];
    uint64_t op_bytes; /* a larger request counts as several operations; 0: it does not */
};

struct throttle_state {
    struct throttle_config config;
    double level[THROTTLE_NR_KINDS], burst[THROTTLE_NR_KINDS];
    uint64_t leaked_ns;
};

bool throttle_is_off(const struct throttle_config *cfg);
int throttle_check(const struct throttle_config *cfg, struct error *err);
/* Buckets keep what is in them when only the limits change. */
void throttle_configure(struct throttle_state *st, const struct throttle_config *cfg,
                        uint64_t now_ns);
/* Nanoseconds until a request may go; 0: now. */
uint64_t throttle_wait_ns(struct throttle_state *st, bool is_write, uint64_t now_ns);
/* A request goes. */
void throttle_account(struct throttle_state *st, bool is_write, uint64_t bytes);

#endif
