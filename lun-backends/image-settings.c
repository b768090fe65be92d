/* SPDX-License-Identifier: BSD-3-Clause */
/* Settings of an image as words and as JSON; see image-settings.h. */
#include "lun-backends/image-settings.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "util/size.h"

#define DELAY_MAX_S     86400
#define CACHE_MIN_BYTES 65536

static const char *const mode_names[PREFETCH_NR_MODES] = {
    [PREFETCH_ADAPTIVE] = "adaptive",
    [PREFETCH_IDLE] = "idle",
    [PREFETCH_FIXED] = "fixed",
};

const char *prefetch_mode_name(enum prefetch_mode mode)
{
    return mode_names[mode];
}

int prefetch_mode_parse(const char *text, enum prefetch_mode *mode)
{
    for (int i = 0; i < PREFETCH_NR_MODES; i++) {
        if (!strcmp(text, mode_names[i])) {
            *mode = (enum prefetch_mode)i;
            return 0;
        }
    }
    return -EINVAL;
}

static int take_switch(const char *value, bool *out)
{
    *out = !strcmp(value, "on");
    return *out || !strcmp(value, "off") ? 0 : -EINVAL;
}

static int take_copy_on_read(struct qcow2_settings *s, const char *value)
{
    return take_switch(value, &s->copy_on_read);
}

static json_t *show_copy_on_read(const struct qcow2_settings *s)
{
    return json_boolean(s->copy_on_read);
}

static int take_prefetch(struct qcow2_settings *s, const char *value)
{
    return take_switch(value, &s->prefetch);
}

static json_t *show_prefetch(const struct qcow2_settings *s)
{
    return json_boolean(s->prefetch);
}

static int take_mode(struct qcow2_settings *s, const char *value)
{
    return prefetch_mode_parse(value, &s->prefetch_mode);
}

static json_t *show_mode(const struct qcow2_settings *s)
{
    return json_string(mode_names[s->prefetch_mode]);
}

static int take_seconds(const char *value, uint32_t *out)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);

    if (*value < '0' || *value > '9' || *end || n > DELAY_MAX_S)
        return -EINVAL;
    *out = (uint32_t)n;
    return 0;
}

static int take_delay(struct qcow2_settings *s, const char *value)
{
    return take_seconds(value, &s->prefetch_delay_s);
}

static json_t *show_delay(const struct qcow2_settings *s)
{
    return json_integer(s->prefetch_delay_s);
}

static int take_grace(struct qcow2_settings *s, const char *value)
{
    return take_seconds(value, &s->prefetch_grace_s);
}

static json_t *show_grace(const struct qcow2_settings *s)
{
    return json_integer(s->prefetch_grace_s);
}

static int take_max_rate(struct qcow2_settings *s, const char *value)
{
    return size_parse(value, &s->max_rate) || s->max_rate > INT64_MAX ? -EINVAL : 0;
}

static json_t *show_max_rate(const struct qcow2_settings *s)
{
    return json_integer((json_int_t)s->max_rate);
}

static int take_cache(struct qcow2_settings *s, const char *value)
{
    return size_parse(value, &s->metadata_cache) || s->metadata_cache < CACHE_MIN_BYTES ||
                   s->metadata_cache > INT64_MAX
               ? -EINVAL
               : 0;
}

static json_t *show_cache(const struct qcow2_settings *s)
{
    return json_integer((json_int_t)s->metadata_cache);
}

static int take_label(struct qcow2_settings *s, const char *value)
{
    if (strlen(value) > QCOW2_LABEL_MAX)
        return -EINVAL;
    memset(s->label, 0, sizeof(s->label));
    memcpy(s->label, value, strlen(value));
    return 0;
}

/* Any bytes may be in an image: what is no UTF-8 is not shown. */
static json_t *show_label(const struct qcow2_settings *s)
{
    json_t *text = json_string(s->label);

    return text ? text : json_string("?");
}

static const struct {
    const char *key, *want;
    enum qcow2_setting bit;
    int (*take)(struct qcow2_settings *s, const char *value);
    json_t *(*show)(const struct qcow2_settings *s);
} table[] = {
    {"copy-on-read", "on or off", QCOW2_SET_COPY_ON_READ, take_copy_on_read, show_copy_on_read},
    {"prefetch", "on or off", QCOW2_SET_PREFETCH, take_prefetch, show_prefetch},
    {"prefetch-mode", "adaptive, idle or fixed", QCOW2_SET_PREFETCH_MODE, take_mode, show_mode},
    {"prefetch-delay", "seconds, at most a day", QCOW2_SET_PREFETCH_DELAY, take_delay, show_delay},
    {"prefetch-grace", "seconds, at most a day", QCOW2_SET_PREFETCH_GRACE, take_grace, show_grace},
    {"max-rate", "bytes per second", QCOW2_SET_MAX_RATE, take_max_rate, show_max_rate},
    {"metadata-cache", "a size of at least 64k", QCOW2_SET_METADATA_CACHE, take_cache, show_cache},
    {"label", "text of at most 64 bytes", QCOW2_SET_LABEL, take_label, show_label},
};

int image_setting_take(struct qcow2_settings *s, const char *text, struct error *err)
{
    const char *eq = strchr(text, '=');

    for (size_t i = 0; eq && i < ARRAY_LEN(table); i++) {
        if (strlen(table[i].key) != (size_t)(eq - text) ||
            strncmp(table[i].key, text, (size_t)(eq - text)))
            continue;
        s->set &= ~(unsigned)table[i].bit;
        if (!eq[1])
            return 0;
        if (table[i].take(s, eq + 1))
            return error_set(err, EINVAL, "%s: '%.80s' is not %s", table[i].key, eq + 1,
                             table[i].want);
        s->set |= table[i].bit;
        return 0;
    }
    return error_set(err, EINVAL,
                     "no setting '%.80s': copy-on-read, prefetch, prefetch-mode, prefetch-delay, "
                     "prefetch-grace, max-rate, metadata-cache or label, each with =VALUE",
                     text);
}

json_t *image_settings_json(const struct qcow2_settings *s)
{
    json_t *obj = json_object();

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (s->set & table[i].bit)
            json_object_set_new(obj, table[i].key, table[i].show(s));
    }
    return obj;
}
