/* SPDX-License-Identifier: BSD-3-Clause */
/* Which target ports there are; see ports.h. */
#include "target/ports.h"

#include "target/scsi.h"
#include "target/session.h"

_Static_assert(PORTS_MAX >= PORTAL_MAX, "each portal may be a group of its own");

struct port_list {
    const struct target *target;
    uint16_t *ports;
    unsigned nr;
};

static void insert(struct port_list *l, uint16_t port)
{
    unsigned i = l->nr;

    for (unsigned k = 0; k < l->nr; k++) {
        if (l->ports[k] == port)
            return;
    }
    for (; i && l->ports[i - 1] > port; i--)
        l->ports[i] = l->ports[i - 1];
    l->ports[i] = port;
    l->nr++;
}

static bool add_portal(const struct portal_info *p, void *arg)
{
    struct port_list *l = arg;

    if (target_in_group(l->target, p->group))
        insert(l, p->group);
    return true;
}

unsigned target_ports(const struct target *t, const struct nexus *n, uint16_t *out)
{
    struct port_list l = {t, out, 0};

    portal_for_each(add_portal, &l);
    if (n)
        insert(&l, n->rel_port);
    return l.nr;
}

bool target_has_port(const struct target *t, const struct nexus *n, uint16_t rel_port)
{
    uint16_t ports[PORTS_MAX];
    unsigned nr = target_ports(t, n, ports);

    for (unsigned i = 0; i < nr; i++) {
        if (ports[i] == rel_port)
            return true;
    }
    return false;
}
