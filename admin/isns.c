/* SPDX-License-Identifier: BSD-3-Clause */
/* What of the daemon a name server is told: see isns.h. */
#include "admin/isns.h"

#include <errno.h>
#include <stdlib.h>

#include "discovery/isns.h"
#include "target/target.h"
#include "util/loop.h"

#define MAX_PORTALS 64

struct gather {
    struct sns_portal_want portals[MAX_PORTALS];
    unsigned nr_portals;
    const char **targets;
    unsigned nr_targets, max_targets;
};

static bool take_portal(const struct portal_info *p, void *arg)
{
    struct gather *g = arg;

    g->portals[g->nr_portals++] =
        (struct sns_portal_want){p->advertise ? p->advertise : p->name, p->group};
    return g->nr_portals < MAX_PORTALS;
}

static bool take_target(struct target *t, void *arg)
{
    struct gather *g = arg;

    if (g->nr_targets == g->max_targets) {
        unsigned max = g->max_targets ? g->max_targets * 2 : 64;
        const char **more = realloc(g->targets, max * sizeof(*more));

        if (!more)
            return false;
        g->targets = more;
        g->max_targets = max;
    }
    g->targets[g->nr_targets++] = target_name(t);
    return true;
}

static void tell(struct deferred *d)
{
    struct gather g = {0};
    struct sns_want want;

    (void)d;
    portal_for_each(take_portal, &g);
    target_for_each(take_target, &g);
    want = (struct sns_want){g.portals, g.nr_portals, g.targets, g.nr_targets};
    sns_set(&want);
    free(g.targets);
}

static struct deferred change = {.fn = tell};

static void on_change(void)
{
    loop_defer(&change, LOOP_END);
}

int sns_follow(const char *server, bool domains, struct error *err)
{
    int ret = sns_start(server, domains, err);

    if (ret)
        return ret;
    target_set_list_sink(on_change);
    on_change();
    return 0;
}
