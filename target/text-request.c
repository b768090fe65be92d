/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Text Requests in full feature phase (RFC 7143 11.10): SendTargets and what may be renegotiated.
 * One exchange at a time a session; the request is collected over the C bit, the answer goes out
 * in pieces that the initiator asks for one by one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "discovery/sendtargets.h"
#include "target/session.h"
#include "util/size.h"

#define SENDTARGETS_MAX_BYTES (4u << 20)

void text_request_reset(struct session *s)
{
    text_release(&s->text.in);
    text_release(&s->text.out);
    s->text.in.max_bytes = TEXT_MAX_BYTES;
    s->text.out.max_bytes = TEXT_MAX_BYTES;
    s->text.out_sent = 0;
    s->text.active = false;
}

struct target_list {
    const struct session *session;
    struct sendtargets_entry *entries;
    unsigned nr, alloc;
    bool failed;
};

static bool add_target(struct target *t, void *arg)
{
    struct target_list *l = arg;

    if (t->closing || !target_allows(t, l->session->initiator, l->session->conn->peer))
        return true;
    if (l->session->target && l->session->target != t) /* Appendix C: its own target only */
        return true;
    if (l->nr == l->alloc) {
        unsigned alloc = l->alloc ? 2 * l->alloc : 16;
        void *p = realloc(l->entries, alloc * sizeof(*l->entries));

        if (!p) {
            l->failed = true;
            return false;
        }
        l->entries = p;
        l->alloc = alloc;
    }
    l->entries[l->nr++] = (struct sendtargets_entry){
        .name = t->name,
        .groups = t->portal_groups,
        .nr_groups = t->nr_portal_groups,
    };
    return true;
}

static int send_targets(struct conn *c, const char *which, struct text_buf *out)
{
    struct portal_address addresses[PORTAL_MAX];
    struct sendtargets_portal portals[PORTAL_MAX];
    unsigned nr_portals = portal_addresses(c, addresses);
    struct target_list l = {.session = c->session};
    char *text = NULL;
    size_t len = 0;
    int rc;

    /* Appendix C: All is for discovery sessions, the empty value for normal ones */
    if (c->session->target ? !strcmp(which, "All") : !*which)
        return -EPROTO;
    for (unsigned i = 0; i < nr_portals; i++)
        portals[i] = (struct sendtargets_portal){addresses[i].text, addresses[i].group};
    target_for_each(add_target, &l);
    rc = l.failed ? -ENOMEM
                  : sendtargets_format(l.entries, l.nr, portals, nr_portals, *which ? which : NULL,
                                       &text, &len);
    if (!rc) {
        out->max_bytes = SENDTARGETS_MAX_BYTES;
        text_append(out, text, len);
    }
    free(text);
    free(l.entries);
    return rc;
}

static int take_keys(struct conn *c)
{
    struct session *s = c->session;
    struct negotiation n;
    int rc;

    negotiation_init(&n);
    n.params = s->params;
    n.discovery = !s->target;
    rc = negotiate_text(&n, NEG_FULL, s->text.in.data, s->text.in.len, &s->text.out);
    if (!rc && n.have_send_targets)
        rc = send_targets(c, n.send_targets, &s->text.out);
    if (rc || s->text.out.failed)
        return rc ? rc : -E2BIG;
    s->params = n.params;
    text_release(&s->text.in);
    return 0;
}

/* The next piece of the answer; the exchange ends with the last one, if both sides say so. */
static void answer(struct conn *c, const struct pdu *p)
{
    struct session *s = c->session;
    uint32_t left = (uint32_t)s->text.out.len - s->text.out_sent;
    uint32_t n = MIN_OF(left, s->params.max_xmit_segment);
    bool cont = n < left, final = !cont && p->final;
    uint8_t bhs[PDU_BHS_BYTES];
    uint8_t *data = NULL;

    if (n) {
        data = malloc(n);
        if (!data) {
            conn_close(c, "out of memory");
            return;
        }
        memcpy(data, s->text.out.data + s->text.out_sent, n);
        s->text.out_sent += n;
    }
    if (!final)
        s->text.ttt = conn_new_ttt(c);
    pdu_text_rsp(bhs, p->itt, final ? PDU_NO_TAG : s->text.ttt, final, cont);
    if (!cont) {
        text_release(&s->text.out);
        s->text.out_sent = 0;
    }
    if (final)
        text_request_reset(s);
    conn_send_pdu(c, bhs, data, n, true);
}

void text_request(struct conn *c, const struct pdu *p, const uint8_t *data)
{
    struct session *s = c->session;

    if (p->ttt == PDU_NO_TAG && !(s->text.active && p->itt == s->text.itt)) {
        /* a new exchange; one that was under way is reset, 11.10.4 */
        text_request_reset(s);
        s->text.active = true;
        s->text.itt = p->itt;
    } else if (!s->text.active || p->itt != s->text.itt ||
               (p->ttt != s->text.ttt && p->ttt != PDU_NO_TAG)) {
        text_request_reset(s);
        ffp_reject(c, PDU_REJECT_PROTOCOL);
        return;
    }
    if (s->text.out_sent < s->text.out.len) { /* more of the answer is asked for */
        if (p->data_bytes) {
            text_request_reset(s);
            ffp_reject(c, PDU_REJECT_PROTOCOL);
        } else {
            answer(c, p);
        }
        return;
    }
    if (data)
        text_append(&s->text.in, data, p->data_bytes);
    if (s->text.in.failed || (!p->cont && take_keys(c))) {
        text_request_reset(s);
        ffp_reject(c, PDU_REJECT_PROTOCOL);
        return;
    }
    answer(c, p);
}
