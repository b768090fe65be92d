/* SPDX-License-Identifier: BSD-3-Clause */
/* The arithmetic of throttling; see throttle-bucket.h. */
#include "lun-backends/throttle-bucket.h"

#include <errno.h>

#include "util/size.h"

#define NS_PER_S 1e9
#define SLACK_S  0.1 /* what may go at once without a maximum, in seconds of the average */

static const enum throttle_kind kinds_of[2][4] = {
    {THROTTLE_BPS_TOTAL, THROTTLE_IOPS_TOTAL, THROTTLE_BPS_READ, THROTTLE_IOPS_READ},
    {THROTTLE_BPS_TOTAL, THROTTLE_IOPS_TOTAL, THROTTLE_BPS_WRITE, THROTTLE_IOPS_WRITE},
};

bool throttle_is_off(const struct throttle_config *cfg)
{
    for (unsigned k = 0; k < THROTTLE_NR_KINDS; k++) {
        if (cfg->limit[k].average)
            return false;
    }
    return true;
}

static int check_limit(const struct throttle_limit *l, struct error *err)
{
    if (l->average > THROTTLE_MAX_UNITS || l->maximum > THROTTLE_MAX_UNITS)
        return error_set(err, EINVAL, "bps/iops/max values must be within [0, %llu]",
                         (unsigned long long)THROTTLE_MAX_UNITS);
    if (l->maximum && !l->average)
        return error_set(err, EINVAL,
                         "bps_max/iops_max require corresponding bps/iops values to be set");
    if (l->maximum && l->maximum < l->average)
        return error_set(err, EINVAL, "bps_max/iops_max cannot be lower than bps/iops");
    if (l->burst_s > 1 && !l->maximum)
        return error_set(err, EINVAL, "burst length set without burst rate");
    if (l->maximum && l->burst_s > THROTTLE_MAX_UNITS / l->maximum)
        return error_set(err, EINVAL, "burst length too high for this burst rate");
    return 0;
}

/* One of total and read/write, in each of averages and maxima. */
static int check_total(const struct throttle_config *cfg, unsigned total, struct error *err)
{
    const struct throttle_limit *t = &cfg->limit[total];

    if ((t->average && (t[1].average || t[2].average)) ||
        (t->maximum && (t[1].maximum || t[2].maximum)))
        return error_set(err, EINVAL,
                         "bps/iops/max total values and read/write values cannot be used at the "
                         "same time");
    return 0;
}

int throttle_check(const struct throttle_config *cfg, struct error *err)
{
    const struct throttle_limit *iops = &cfg->limit[THROTTLE_IOPS_TOTAL];
    int ret = check_total(cfg, THROTTLE_BPS_TOTAL, err);

    if (!ret)
        ret = check_total(cfg, THROTTLE_IOPS_TOTAL, err);
    for (unsigned k = 0; !ret && k < THROTTLE_NR_KINDS; k++)
        ret = check_limit(&cfg->limit[k], err);
    if (!ret && cfg->op_bytes && !iops[0].average && !iops[1].average && !iops[2].average)
        ret = error_set(err, EINVAL, "iops size requires an iops value to be set");
    return ret;
}

void throttle_configure(struct throttle_state *st, const struct throttle_config *cfg,
                        uint64_t now_ns)
{
    st->config = *cfg;
    st->leaked_ns = now_ns;
}

static double leak(double level, uint64_t rate, double seconds)
{
    double left = level - (double)rate * seconds;

    return left > 0 ? left : 0;
}

static void leak_all(struct throttle_state *st, uint64_t now_ns)
{
    double seconds = (double)(now_ns - st->leaked_ns) / NS_PER_S;

    if (now_ns <= st->leaked_ns)
        return;
    st->leaked_ns = now_ns;
    for (unsigned k = 0; k < THROTTLE_NR_KINDS; k++) {
        st->level[k] = leak(st->level[k], st->config.limit[k].average, seconds);
        st->burst[k] = leak(st->burst[k], st->config.limit[k].maximum, seconds);
    }
}

/* Seconds until what is in the bucket is no more than it takes. */
static double overflow_s(double level, double takes, uint64_t rate)
{
    return level > takes ? (level - takes) / (double)rate : 0;
}

static double bucket_wait_s(const struct throttle_limit *l, double level, double burst)
{
    double average = (double)l->average, maximum = (double)l->maximum, wait, wait_burst;

    if (!l->average)
        return 0;
    if (!l->maximum)
        return overflow_s(level, average * SLACK_S, l->average);
    wait = overflow_s(level, maximum * (double)MAX_OF(l->burst_s, UINT64_C(1)), l->average);
    wait_burst = l->burst_s > 1 ? overflow_s(burst, maximum * SLACK_S, l->maximum) : 0;
    return MAX_OF(wait, wait_burst);
}

uint64_t throttle_wait_ns(struct throttle_state *st, bool is_write, uint64_t now_ns)
{
    double wait = 0;

    leak_all(st, now_ns);
    for (unsigned i = 0; i < ARRAY_LEN(kinds_of[0]); i++) {
        enum throttle_kind k = kinds_of[is_write][i];
        double w = bucket_wait_s(&st->config.limit[k], st->level[k], st->burst[k]);

        wait = MAX_OF(wait, w);
    }
    return wait > 0 ? (uint64_t)(wait * NS_PER_S) + 1 : 0;
}

void throttle_account(struct throttle_state *st, bool is_write, uint64_t bytes)
{
    const struct throttle_config *cfg = &st->config;
    double ops = cfg->op_bytes && bytes > cfg->op_bytes ? (double)bytes / (double)cfg->op_bytes : 1;

    for (unsigned i = 0; i < ARRAY_LEN(kinds_of[0]); i++) {
        enum throttle_kind k = kinds_of[is_write][i];
        double units = k >= THROTTLE_IOPS_TOTAL ? ops : (double)bytes;

        st->level[k] += cfg->limit[k].average ? units : 0;
        st->burst[k] += cfg->limit[k].maximum ? units : 0;
    }
}
