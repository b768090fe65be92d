/* SPDX-License-Identifier: BSD-3-Clause */
/* See health.h. Only what holds now counts: a job that failed last week does not. */
#include "admin/health.h"

#include <stdio.h>

#include "admin/chains.h"
#include "admin/json-util.h"
#include "lun-backends/remote.h"
#include "util/loop.h"

enum health { HEALTH_OK, HEALTH_DEGRADED, HEALTH_CRITICAL };

static const char *const names[] = {
    [HEALTH_OK] = "ok",
    [HEALTH_DEGRADED] = "degraded",
    [HEALTH_CRITICAL] = "critical",
};

struct report {
    enum health worst;
    json_t *problems;
};

static void add(struct report *r, const struct chain *c, enum health health, const char *what)
{
    if (health > r->worst)
        r->worst = health;
    json_array_append_new(r->problems, json_pack("{s:s, s:s, s:o}", "chain", c->rec->name, "health",
                                                 names[health], "what", json_text(what)));
}

static void look_at_source(struct report *r, const struct chain *c)
{
    struct remote_status st;
    char text[512];

    remote_get_status(c->remote, &st);
    if (!st.connected && st.down_since_ns) {
        snprintf(text, sizeof(text), "its source has been away for %llu s: %s",
                 (unsigned long long)((now_ns() - st.down_since_ns) / 1000000000),
                 *st.last_error ? st.last_error : "no error is known");
        add(r, c, HEALTH_DEGRADED, text);
    }
    if (c->rec->stream && !chain_job(c))
        add(r, c, HEALTH_DEGRADED,
            "its stream has ended with an error: see job list, then stream start");
}

static void look_at(struct report *r, const struct chain *c)
{
    const struct job *job = chain_job(c);
    char text[512];

    if (*c->failure.msg) {
        snprintf(text, sizeof(text), "it is not served: %.400s", c->failure.msg);
        add(r, c, HEALTH_CRITICAL, text);
        return;
    }
    if (c->remote)
        look_at_source(r, c);
    if (job && job->io_error) {
        snprintf(text, sizeof(text), "%s job '%s' is stopped by an error (%s): job resume goes on",
                 job->drv->type, job->id, job->io_no_space ? "no space is left" : "I/O failed");
        add(r, c, HEALTH_DEGRADED, text);
    }
}

void health_put(const struct daemon *d, json_t *answer)
{
    struct report r = {.problems = json_array()};
    struct chain *c;

    list_for_each_entry (c, &d->chains, link)
        look_at(&r, c);
    json_put(answer, "health", json_string(names[r.worst]));
    json_put(answer, "problems", r.problems);
}
