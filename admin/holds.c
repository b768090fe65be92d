/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See holds.h. One coroutine at a time talks to the source (h->running); what it could not do is
 * tried again by a timer, ever more slowly, and at once when the source comes back.
 */
#define LOG_AREA "hold"
#include "admin/holds.h"

#include <errno.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "admin/json-util.h"
#include "admin/secret.h"
#include "lun-backends/hold.h"
#include "util/coroutine.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/size.h"

#define RETRY_FIRST_S 1.0
#define RETRY_MAX_S   60.0
#define KEY_MASK      ((UINT64_C(1) << 62) - 1) /* JSON has it as a signed number */

struct holder {
    struct chain *c;
    struct blk_head head; /* hears of a source that comes back */
    bool has_head;
    bool running, closing;
    bool wanted; /* what is needed is to be registered (again) */
    struct iscsi_conn *conn;
    struct ev_timer timer;
    double retry_s;
    struct co_queue ended;
    struct error why; /* nothing is held, or not for good; msg "": all is well */
};

/* ---- the record ------------------------------------------------------------------------------ */

static void remove_number(struct number_list *l, unsigned i)
{
    memmove(&l->items[i], &l->items[i + 1], (l->nr - i - 1) * sizeof(*l->items));
    l->nr--;
}

static void remove_string(struct string_list *l, unsigned i)
{
    free(l->items[i]);
    memmove(&l->items[i], &l->items[i + 1], (l->nr - i - 1) * sizeof(*l->items));
    l->nr--;
}

static int find_number(const struct number_list *l, uint64_t number)
{
    for (unsigned i = 0; i < l->nr; i++) {
        if (l->items[i] == number)
            return (int)i;
    }
    return -1;
}

static int new_key(uint64_t *key)
{
    do {
        if (getrandom(key, sizeof(*key), 0) != (ssize_t)sizeof(*key))
            return -errno;
        *key &= KEY_MASK;
    } while (!(*key & 0xffffffffff)); /* the ISID is made of it */
    return 0;
}

static int add_hold(struct chain_record *rec, const struct found_lun *lun)
{
    char uuid[UUID_STRLEN] = "";

    if (lun->has_cowl)
        uuid_to_text(&lun->cowl.layer_uuid, uuid);
    return number_list_add(&rec->hold_luns, lun->number) | string_list_add(&rec->hold_layers, uuid);
}

/* A layer LUN of the same chain that the disk @top is made of, among its uppermost @layers (0:
 * all).
 */
static bool is_below(const struct found_lun *l, const struct found_lun *top, uint64_t layers)
{
    return l->is_disk && l->number && l->has_cowl && top->has_cowl &&
           uuid_equal(&l->cowl.chain_uuid, &top->cowl.chain_uuid) &&
           l->cowl.layer_index <= top->cowl.layer_index &&
           (!layers || l->cowl.layer_index + layers > top->cowl.layer_index);
}

int holds_plan(struct chain_record *rec, const struct found_chain *found, unsigned picked,
               const struct iscsi_url *url, struct error *err)
{
    const struct found_lun *top = &found->luns[picked];
    bool bad = false, whole = false;
    char text[640];

    for (unsigned i = 0; i < found->nr_luns; i++) {
        const struct found_lun *l = &found->luns[i];

        if (!is_below(l, top, rec->base_layers))
            continue;
        bad = bad || add_hold(rec, l);
        whole = whole || l->cowl.layer_index == top->cowl.layer_index;
    }
    bad = bad || (!whole && add_hold(rec, top));
    if (iscsi_url_format(url, text, sizeof(text)))
        return error_set(err, ENAMETOOLONG, "the source's name is too long");
    bad = bad || record_set(&rec->hold_url, text) ||
          record_set(&rec->hold_user, *url->user ? url->user : NULL) ||
          record_set(&rec->hold_secret_file, rec->source_secret_file);
    if (bad)
        return error_set(err, ENOMEM, "out of memory");
    if (new_key(&rec->hold_key))
        return error_set(err, EIO, "no random bytes for a registration key");
    return 0;
}

void holds_give_up(struct chain_record *rec)
{
    while (rec->hold_luns.nr)
        holds_give_up_one(rec, (uint16_t)rec->hold_luns.items[0]);
}

/* Without memory the LUN is forgotten here and stays registered there: people can help that. */
int holds_give_up_one(struct chain_record *rec, uint16_t lun)
{
    int i = find_number(&rec->hold_luns, lun);

    if (i < 0)
        return -ENOENT;
    if (find_number(&rec->drop_luns, lun) < 0 && number_list_add(&rec->drop_luns, lun))
        log_err("chain %s: no memory to unregister LUN %u of the source", rec->name, lun);
    remove_number(&rec->hold_luns, (unsigned)i);
    remove_string(&rec->hold_layers, (unsigned)i);
    return 0;
}

static bool any_left(const struct chain_record *rec)
{
    return rec->hold_luns.nr || rec->drop_luns.nr;
}

static void forget_url(struct chain_record *rec)
{
    record_set(&rec->hold_url, NULL);
    record_set(&rec->hold_user, NULL);
    record_set(&rec->hold_secret_file, NULL);
}

/* ---- talking to the source ------------------------------------------------------------------- */

static bool try_later(int ret)
{
    return ret == -EHOSTDOWN || ret == -EAGAIN;
}

static int co_log_in(struct holder *h, struct error *err)
{
    const struct chain_record *rec = h->c->rec;
    struct hold_opts *ho = calloc(1, sizeof(*ho));
    int ret;

    if (!ho)
        return error_set(err, ENOMEM, "out of memory");
    ho->key = rec->hold_key;
    ho->digests = rec->source_digests;
    snprintf(ho->initiator, sizeof(ho->initiator), "%s", h->c->d->state->initiator);
    ret = iscsi_url_parse(rec->hold_url, &ho->url, err);
    if (rec->hold_user)
        snprintf(ho->url.user, sizeof(ho->url.user), "%s", rec->hold_user);
    if (!ret && rec->hold_secret_file)
        ret = co_secret_read(rec->hold_secret_file, ho->secret, sizeof(ho->secret), err);
    if (!ret && h->closing)
        ret = error_set(err, ECANCELED, "it is being closed");
    if (!ret)
        ret = co_hold_open(ho, &h->conn, err);
    explicit_bzero(ho->secret, sizeof(ho->secret));
    free(ho);
    return ret;
}

static int unknown(struct error *err)
{
    return error_prefix(err, "the source does not know that this host needs it");
}

/* Told once, and shown as long as it lasts; the source is used without. */
static void note_refusal(struct holder *h, const struct error *err)
{
    if (!*h->why.msg)
        log_warn("chain %s: the source does not take a registration, so it can't know that this "
                 "host needs it: %s",
                 h->c->rec->name, err->msg);
    h->why = *err;
    unknown(&h->why);
}

static int co_take_all(struct holder *h, struct error *err)
{
    const struct number_list *l = &h->c->rec->hold_luns;
    bool lasting, all_last = true;
    int ret = 0;

    h->why.msg[0] = '\0';
    for (int i = 0; !h->closing && i < (int)l->nr; i++) {
        uint16_t lun = (uint16_t)l->items[i];

        ret = co_hold_take(h->conn, lun, h->c->rec->hold_key, &lasting, err);
        if (try_later(ret))
            return ret;
        if (ret) {
            note_refusal(h, err);
            break; /* as it does for one, it does for all */
        }
        all_last = all_last && lasting;
        i = find_number(l, lun); /* some may have been given up meanwhile: then from the start */
    }
    if (!ret && !all_last)
        error_set(&h->why, ENOTSUP,
                  "the source forgets that this host needs it when it is restarted");
    err->msg[0] = '\0';
    h->wanted = false;
    return 0;
}

static int co_release_all(struct holder *h, struct error *err)
{
    struct chain_record *rec = h->c->rec;

    while (!h->closing && rec->drop_luns.nr) {
        uint16_t lun = (uint16_t)rec->drop_luns.items[0];
        int ret = co_hold_release(h->conn, lun, rec->hold_key, err), i;

        if (try_later(ret))
            return ret;
        if (ret) /* it never took one, or the LUN is gone */
            log_info("chain %s: %s", rec->name, err->msg);
        err->msg[0] = '\0';
        i = find_number(&rec->drop_luns, lun);
        if (i >= 0)
            remove_number(&rec->drop_luns, (unsigned)i);
    }
    return 0;
}

static bool has_work(const struct holder *h)
{
    const struct chain_record *rec = h->c->rec;

    return rec->hold_url && ((h->wanted && rec->hold_luns.nr) || rec->drop_luns.nr);
}

static int co_talk(struct holder *h, struct error *err)
{
    struct chain_record *rec = h->c->rec;
    unsigned owed = rec->drop_luns.nr;
    struct iscsi_conn *conn;
    int ret = co_log_in(h, err);

    if (ret)
        return ret;
    ret = h->wanted ? co_take_all(h, err) : 0;
    if (!ret)
        ret = co_release_all(h, err);
    conn = h->conn;
    h->conn = NULL;
    co_iscsi_close(conn);
    if (!any_left(rec))
        forget_url(rec);
    if (owed != rec->drop_luns.nr)
        co_state_save_or_log(h->c->d->state);
    return ret;
}

static void retry_later(struct holder *h)
{
    if (h->closing || !has_work(h))
        return;
    ev_now_update(loop_ev());
    ev_timer_stop(loop_ev(), &h->timer);
    ev_timer_set(&h->timer, h->retry_s, 0);
    ev_timer_start(loop_ev(), &h->timer);
    h->retry_s = MIN_OF(2 * h->retry_s, RETRY_MAX_S);
}

static int co_work_off(struct holder *h, struct error *err)
{
    int ret = 0;

    while (h->running) /* it sees what we want, or leaves it to us */
        co_queue_wait(&h->ended);
    if (h->closing || !has_work(h))
        return 0;
    h->running = true;
    ev_timer_stop(loop_ev(), &h->timer);
    while (!ret && !h->closing && has_work(h))
        ret = co_talk(h, err);
    if (ret)
        log_info("chain %s: what is held at the source: %s", h->c->rec->name, err->msg);
    else
        h->retry_s = RETRY_FIRST_S;
    h->running = false;
    retry_later(h);
    co_queue_wake_all(&h->ended);
    return ret;
}

static void co_work_off_alone(void *arg)
{
    struct holder *h = arg;
    struct error err = ERROR_INIT;

    co_work_off(h, &err);
}

static void kick(struct holder *h)
{
    if (!h->running && !h->closing && has_work(h))
        co_spawn(co_work_off_alone, h);
}

static void on_timer(struct ev_loop *ev, struct ev_timer *t, int revents)
{
    (void)ev;
    (void)revents;
    kick(t->data);
}

/* It may have lost what it did not keep. */
static void on_source_event(struct blk_head *head, enum blk_event event)
{
    struct holder *h = head->opaque;

    if (event != BLK_EV_SOURCE_UP || h->closing)
        return;
    h->wanted = true;
    ev_timer_stop(loop_ev(), &h->timer);
    ev_timer_set(&h->timer, 0, 0);
    ev_timer_start(loop_ev(), &h->timer);
}

/* ---- its life ----------------------------------------------------------------------------- */

static struct holder *holder_of(struct chain *c)
{
    struct holder *h = c->holder;

    if (h || !any_left(c->rec))
        return h;
    h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->c = c;
    h->retry_s = RETRY_FIRST_S;
    co_queue_init(&h->ended);
    ev_init(&h->timer, on_timer);
    h->timer.data = h;
    if (c->remote) {
        blk_head_init(&h->head, "holder", c->remote, false);
        h->head.on_event = on_source_event;
        h->head.opaque = h;
        h->has_head = true;
        h->wanted = true;
    }
    c->holder = h;
    return h;
}

int co_holds_start(struct chain *c, struct error *err)
{
    struct holder *h = holder_of(c);
    int ret = h ? co_work_off(h, err) : 0;

    if (ret)
        unknown(err);
    if (!ret && h && *h->why.msg) {
        *err = h->why;
        ret = -err->errnum;
    }
    return ret;
}

void holds_start(struct chain *c)
{
    struct holder *h = holder_of(c);

    if (h)
        kick(h);
}

static void co_let_go_of_source(struct holder *h)
{
    if (h->has_head)
        co_blk_head_fini(&h->head);
    h->has_head = false;
}

void co_holds_give_back(struct chain *c)
{
    struct error err = ERROR_INIT;
    struct holder *h = holder_of(c);

    if (!h)
        return;
    h->wanted = false;
    co_let_go_of_source(h);
    co_work_off(h, &err);
}

void co_holds_close(struct chain *c)
{
    struct holder *h = c->holder;

    if (!h)
        return;
    h->closing = true;
    c->holder = NULL;
    ev_timer_stop(loop_ev(), &h->timer);
    if (h->running && h->conn)
        iscsi_conn_cancel(h->conn, "the chain is being closed");
    while (h->running)
        co_queue_wait(&h->ended);
    co_let_go_of_source(h);
    free(h);
}

/* ---- what is told ------------------------------------------------------------------------- */

json_t *holds_dropped_event(const struct chain_record *rec, unsigned i)
{
    struct error ignored = ERROR_INIT;
    char text[640], own[UUID_STRLEN];
    struct iscsi_url url;

    uuid_to_text(&rec->source_layer, own);
    if (!rec->hold_url || iscsi_url_parse(rec->hold_url, &url, &ignored))
        return NULL;
    url.lun = (int)rec->hold_luns.items[i];
    if (!*rec->hold_layers.items[i] || !strcmp(rec->hold_layers.items[i], own) ||
        iscsi_url_format(&url, text, sizeof(text)))
        return NULL;
    return json_pack("{s:s, s:s, s:s, s:s}", "chain", rec->name, "layer", text, "uuid",
                     rec->hold_layers.items[i], "target", url.target);
}

json_t *holds_dropped_events(const struct chain_record *rec)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < rec->hold_luns.nr; i++) {
        json_t *event = holds_dropped_event(rec, i);

        if (event)
            json_array_append_new(list, event);
    }
    return list;
}

static json_t *numbers(const struct number_list *l)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < l->nr; i++)
        json_array_append_new(list, json_integer((json_int_t)l->items[i]));
    return list;
}

json_t *holds_info(const struct chain *c)
{
    const struct chain_record *rec = c->rec;
    const struct holder *h = c->holder;
    json_t *j;

    if (!any_left(rec))
        return NULL;
    j = json_pack("{s:I, s:o, s:o, s:b}", "key", (json_int_t)rec->hold_key, "luns",
                  numbers(&rec->hold_luns), "giving-back", numbers(&rec->drop_luns), "registered",
                  h && !h->wanted && !*h->why.msg);
    if (h && *h->why.msg)
        json_put(j, "problem", json_text(h->why.msg));
    return j;
}

/* ---- who holds ours -------------------------------------------------------------------------- */

static void add_holder(uint16_t lun, const char *initiator, uint64_t key, void *arg)
{
    char text[19];

    (void)lun;
    snprintf(text, sizeof(text), "0x%016llx", (unsigned long long)key);
    json_array_append_new(arg,
                          json_pack("{s:o, s:s}", "initiator", json_text(initiator), "key", text));
}

json_t *holders_of(const struct chain *c, uint16_t number)
{
    const struct lun *lun = c->target ? target_find_lun(c->target, number) : NULL;
    json_t *list = json_array();

    if (lun)
        lun_for_each_registrant(lun, add_holder, list);
    for (unsigned i = 0; !c->target && i < c->rec->reservations.nr; i++) {
        if (lun_text_is_of(c->rec->reservations.items[i], number))
            reservations_for_each(c->rec->reservations.items[i], add_holder, list);
    }
    if (json_array_size(list))
        return list;
    json_decref(list);
    return NULL;
}

struct held {
    bool found;
    uint16_t lun;
    char initiator[ISCSI_NAME_MAX + 1];
    uint64_t key;
};

static void note_first(uint16_t lun, const char *initiator, uint64_t key, void *arg)
{
    struct held *held = arg;

    if (held->found)
        return;
    *held = (struct held){.found = true, .lun = lun, .key = key};
    snprintf(held->initiator, sizeof(held->initiator), "%s", initiator);
}

/* Without a target what is kept says it: initiators that are switched off count, too. */
int holders_check(const struct chain *c, struct error *err)
{
    struct held held = {0};
    const struct lun *lun;

    if (c->target && (lun = target_find_lun(c->target, 0)))
        lun_for_each_registrant(lun, note_first, &held);
    for (unsigned i = 0; c->target && i < c->nr_layers; i++) {
        lun = c->layers[i].lun ? target_find_lun(c->target, c->layers[i].lun) : NULL;
        if (lun)
            lun_for_each_registrant(lun, note_first, &held);
    }
    for (unsigned i = 0; !c->target && i < c->rec->reservations.nr; i++)
        reservations_for_each(c->rec->reservations.items[i], note_first, &held);
    if (!held.found)
        return 0;
    return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY,
                           "%s holds LUN %u of chain '%s' (registration key 0x%016llx): it still "
                           "needs it, also while it is switched off. Let it finish, or use --force",
                           held.initiator, held.lun, c->rec->name, (unsigned long long)held.key);
}
