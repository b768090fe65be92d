/* SPDX-License-Identifier: BSD-3-Clause */
/* Settings of chains; see settings.h. */
#define LOG_AREA "chain"
#include "admin/settings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "admin/json-util.h"
#include "admin/live.h"
#include "lun-backends/formats.h"
#include "lun-backends/image-settings.h"
#include "lun-backends/pace.h"
#include "lun-backends/qcow2.h"
#include "util/log.h"

#define SETTING_TEXT_MAX (QCOW2_LABEL_MAX + 64)

/* ---- kept in the state ---------------------------------------------------------------------- */

static void setting_text(const char *key, const json_t *value, char text[SETTING_TEXT_MAX])
{
    if (json_is_boolean(value))
        snprintf(text, SETTING_TEXT_MAX, "%s=%s", key, json_is_true(value) ? "on" : "off");
    else if (json_is_string(value))
        snprintf(text, SETTING_TEXT_MAX, "%s=%s", key, json_string_value(value));
    else
        snprintf(text, SETTING_TEXT_MAX, "%s=%" JSON_INTEGER_FORMAT, key,
                 json_integer_value(value));
}

static int settings_to_strings(const struct qcow2_settings *s, struct string_list *list)
{
    json_t *obj = image_settings_json(s), *value;
    char text[SETTING_TEXT_MAX];
    const char *key;
    int ret = 0;

    json_object_foreach (obj, key, value) {
        setting_text(key, value, text);
        ret = ret ? ret : string_list_add(list, text);
    }
    json_decref(obj);
    return ret;
}

static int co_keep_in_state(struct chain *c, const struct qcow2_settings *s, struct error *err)
{
    struct string_list list = {0}, before = c->rec->settings;
    int ret;

    if (settings_to_strings(s, &list)) {
        string_list_release(&list);
        return error_set(err, ENOMEM, "out of memory");
    }
    c->rec->settings = list;
    ret = co_state_save(c->d->state, err);
    if (ret) {
        c->rec->settings = before;
        before = list;
    }
    string_list_release(&before);
    return ret;
}

/* ---- kept in the image ---------------------------------------------------------------------- */

/* Whoever has the file open, too, keeps it from being written. */
static int co_keep_in_sealed(struct chain *c, struct layer *l, const struct qcow2_settings *s,
                             struct error *err)
{
    int ret;

    if (chain_view(c->rec) == COWL_VIEW_IMAGE)
        return error_set_class(err, ERR_NOT_SUPPORTED, ENOTSUP,
                               "chain '%s' shows the bytes of its image files: they can't change",
                               c->rec->name);
    co_blk_drain_begin(l->node);
    ret = co_blk_reopen(l->node, true, err);
    if (!ret) {
        ret = co_qcow2_node_set_settings(l->node, s, err);
        co_layer_seal(c, l, true); /* as a disk it has not changed */
    }
    blk_drain_end(l->node);
    return ret;
}

static int co_keep(struct chain *c, const struct qcow2_settings *s, struct error *err)
{
    struct layer *top = chain_top(c);
    struct qcow2_settings ignored;
    int ret;

    if (!qcow2_node_settings(top->node, &ignored))
        return co_keep_in_state(c, s, err);
    if (top->writable)
        return co_qcow2_node_set_settings(top->node, s, err);
    ret = co_keep_in_sealed(c, top, s, err);
    return ret ? ret : co_state_save(c->d->state, err);
}

void co_chain_settings_follow(struct chain *c)
{
    struct error err = ERROR_INIT;
    struct qcow2_settings has;

    if (qcow2_node_settings(chain_top(c)->node, &has) && !memcmp(&has, &c->settings, sizeof(has)))
        return;
    if ((has.set || c->settings.set || c->rec->settings.nr) && co_keep(c, &c->settings, &err))
        log_warn("chain %s: its settings are not kept for the next start: %s", c->rec->name,
                 err.msg);
}

/* ---- what they do ---------------------------------------------------------------------------- */

void chain_settings_adopt(struct chain *c)
{
    struct chain_record *rec = c->rec;
    struct qcow2_settings *s = &c->settings;
    struct error err = ERROR_INIT;

    if (!c->nr_layers)
        return;
    if (!qcow2_node_settings(chain_top(c)->node, s)) {
        for (unsigned i = 0; i < rec->settings.nr; i++) {
            if (image_setting_take(s, rec->settings.items[i], &err))
                log_warn("chain %s: %s", rec->name, err.msg);
        }
    }
    if (s->set & QCOW2_SET_COPY_ON_READ)
        rec->copy_on_read = s->copy_on_read;
    if (s->set & QCOW2_SET_MAX_RATE)
        rec->speed_bytes = s->max_rate;
    if ((s->set & QCOW2_SET_PREFETCH) && rec->source_url) {
        rec->stream = rec->stream || s->prefetch;
        rec->stream_paused = rec->stream_paused || !s->prefetch;
    }
}

/* Off pauses a stream that runs, on resumes it or starts one. */
static int apply_prefetch(struct chain *c, struct error *err)
{
    struct stream_opts opts = {
        .speed_bytes = c->rec->speed_bytes,
        .on_error = job_on_error_from(c->rec->stream_on_error, JOB_ERR_ENOSPC),
        .auto_finalize = true,
        .auto_dismiss = true,
    };
    bool on = c->settings.prefetch;

    c->rec->stream_paused = !on;
    if (c->stream && on != c->stream->user_paused)
        return 0;
    if (c->stream)
        return on ? job_resume(c->stream, err) : job_pause(c->stream, err);
    if (!on)
        return 0;
    c->rec->stream = true;
    return co_chain_start_stream(c, &opts, err);
}

void co_chain_prefetch_said(struct chain *c, bool on)
{
    struct qcow2_settings s = c->settings;
    struct error err = ERROR_INIT;

    if (!(s.set & QCOW2_SET_PREFETCH) || s.prefetch == on)
        return;
    s.prefetch = on;
    c->settings = s;
    if (co_keep(c, &s, &err))
        log_warn("chain %s: prefetch=%s is not kept for the next start: %s", c->rec->name,
                 on ? "on" : "off", err.msg);
}

/* @changed: enum qcow2_setting. */
static void co_apply(struct chain *c, uint32_t changed)
{
    const struct qcow2_settings *s = &c->settings;
    struct blk_node *top = chain_top(c)->node;
    struct error err = ERROR_INIT;

    if ((changed & QCOW2_SET_METADATA_CACHE) && !strcmp(top->drv->name, "qcow2") &&
        qcow2_set_cache_bytes(top, s->set & QCOW2_SET_METADATA_CACHE ? s->metadata_cache : 0))
        log_warn("chain %s: out of memory, the metadata cache keeps its size", c->rec->name);
    changed &= s->set; /* one taken away: what holds goes on until the next start */
    if (changed & QCOW2_SET_COPY_ON_READ) {
        c->rec->copy_on_read = s->copy_on_read;
        if (c->remote && c->filter)
            pull_apply_copy_on_read(c);
    }
    if (changed & QCOW2_SET_MAX_RATE) {
        c->rec->speed_bytes = s->max_rate;
        if (c->stream && job_set_speed(c->stream, s->max_rate, &err))
            log_warn("chain %s: %s", c->rec->name, err.msg);
    }
    if (changed & (QCOW2_SET_PREFETCH_MODE | QCOW2_SET_PREFETCH_DELAY | QCOW2_SET_PREFETCH_GRACE))
        chain_pace_stream(c);
    if ((changed & QCOW2_SET_PREFETCH) && c->remote && apply_prefetch(c, &err))
        log_warn("chain %s: %s", c->rec->name, err.msg);
    if (c->remote && changed)
        co_state_save_or_log(c->d->state);
}

/* The settings that @text names. */
static uint32_t named(const char *text)
{
    struct qcow2_settings all = {.set = QCOW2_SET_ALL};
    struct error ignored = ERROR_INIT;
    char key[SETTING_TEXT_MAX];
    const char *eq = strchr(text, '=');

    snprintf(key, sizeof(key), "%.*s=", (int)(eq - text), text);
    image_setting_take(&all, key, &ignored);
    return all.set ^ QCOW2_SET_ALL;
}

int co_chain_settings_change(struct chain *c, const json_t *list, struct error *err)
{
    struct qcow2_settings s = c->settings;
    uint32_t changed = 0;
    const json_t *item;
    size_t i;
    int ret;

    if (*c->failure.msg || !c->target || !c->nr_layers)
        return error_set(err, EINVAL, "chain '%s' is not served", c->rec->name);
    json_array_foreach (list, i, item) {
        ret = image_setting_take(&s, json_string_value(item), err);
        if (ret)
            return ret;
        changed |= named(json_string_value(item));
    }
    ret = changed ? co_keep(c, &s, err) : 0;
    if (ret)
        return ret;
    c->settings = s;
    co_apply(c, changed);
    return 0;
}

json_t *chain_settings_info(const struct chain *c)
{
    struct qcow2_settings s = c->settings;

    if (c->remote) {
        s.set |= QCOW2_SET_COPY_ON_READ | QCOW2_SET_PREFETCH | QCOW2_SET_PREFETCH_MODE |
                 QCOW2_SET_PREFETCH_DELAY | QCOW2_SET_PREFETCH_GRACE | QCOW2_SET_MAX_RATE;
        if (!(c->settings.set & QCOW2_SET_PREFETCH_GRACE))
            s.prefetch_grace_s = (uint32_t)(PACE_GRACE_NS / UINT64_C(1000000000));
        s.copy_on_read = c->rec->copy_on_read;
        s.prefetch = c->stream && !c->stream->user_paused;
        s.max_rate = c->rec->speed_bytes;
    }
    return image_settings_json(&s);
}
