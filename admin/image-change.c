/* SPDX-License-Identifier: BSD-3-Clause */
/* resize and update: changes of what an image says of itself. */
#include "admin/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-offline.h"
#include "util/size.h"

/* ---- resize
 * -------------------------------------------------------------------------------------- */

static int parse_size(const char *text, uint64_t now, uint64_t *size)
{
    char sign = *text == '+' || *text == '-' ? *text : '\0';
    uint64_t n;

    if (size_parse(text + (sign != 0), &n))
        return cli_fail("'%s' is no size (a number, with k, M, G or T)", text);
    if ((sign == '-' && n > now) || (sign == '+' && n > INT64_MAX - now))
        return cli_fail("%s leads to an impossible size", text);
    *size = sign == '+' ? now + n : sign == '-' ? now - n : n;
    *size = round_up_pow2(*size, 512);
    return 0;
}

static int co_resize(struct blk_node *top, const json_t *args)
{
    struct error err = ERROR_INIT;
    uint64_t size = 0;

    if (parse_size(cli_str(args, "size"), top->size_bytes, &size))
        return CLI_FAILED;
    if (size < top->size_bytes && !cli_bool(args, "shrink"))
        return cli_fail("'%s' would become smaller and lose what is behind the new end: "
                        "--shrink if that is meant",
                        top->filename);
    if (size == top->size_bytes)
        return 0;
    if (!strcmp(top->drv->name, "qcow2") && size < top->size_bytes) {
        if (co_qcow2_shrink(top, size, &err))
            return cli_fail("%s", err.msg);
        return 0;
    }
    if (top->drv->co_resize(top, size, &err))
        return cli_fail("%s", err.msg);
    return 0;
}

int co_image_resize(json_t *args)
{
    struct image_open how = {.format = cli_str(args, "format"), .writable = true};
    struct chain_image *chain = co_image_open(cli_str(args, "filename"), &how);
    int ret;

    if (!chain)
        return CLI_FAILED;
    ret = co_resize(image_top(chain), args);
    if (co_image_finish(chain))
        ret = CLI_FAILED;
    if (!ret && !cli_bool(args, "quiet"))
        puts("Image resized.");
    return ret;
}

/* ---- update
 * --------------------------------------------------------------------------------------- */

static int take_switch(const char *value, bool *out)
{
    *out = !strcmp(value, "on");
    return *out || !strcmp(value, "off") ? 0 : -EINVAL;
}

static int take_copy_on_read(struct qcow2_settings *s, const char *value)
{
    return take_switch(value, &s->copy_on_read);
}

static int take_prefetch(struct qcow2_settings *s, const char *value)
{
    return take_switch(value, &s->prefetch);
}

static int take_delay(struct qcow2_settings *s, const char *value)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);

    if (*value < '0' || *value > '9' || *end || n > 86400)
        return -EINVAL;
    s->prefetch_delay_s = (uint32_t)n;
    return 0;
}

static int take_max_rate(struct qcow2_settings *s, const char *value)
{
    return size_parse(value, &s->max_rate) ? -EINVAL : 0;
}

static int take_cache(struct qcow2_settings *s, const char *value)
{
    return size_parse(value, &s->metadata_cache) || s->metadata_cache < 65536 ? -EINVAL : 0;
}

static int take_label(struct qcow2_settings *s, const char *value)
{
    if (strlen(value) > QCOW2_LABEL_MAX)
        return -EINVAL;
    strcpy(s->label, value);
    return 0;
}

static const struct {
    const char *key, *want;
    enum qcow2_setting bit;
    int (*take)(struct qcow2_settings *s, const char *value);
} settings[] = {
    {"copy-on-read", "on or off", QCOW2_SET_COPY_ON_READ, take_copy_on_read},
    {"prefetch", "on or off", QCOW2_SET_PREFETCH, take_prefetch},
    {"prefetch-delay", "seconds, at most a day", QCOW2_SET_PREFETCH_DELAY, take_delay},
    {"max-rate", "bytes per second", QCOW2_SET_MAX_RATE, take_max_rate},
    {"metadata-cache", "a size of at least 64k", QCOW2_SET_METADATA_CACHE, take_cache},
    {"label", "text of at most 64 bytes", QCOW2_SET_LABEL, take_label},
};

/* "key=value"; "key=" takes it away. */
static int take_setting(struct qcow2_settings *s, const char *text)
{
    const char *eq = strchr(text, '=');

    for (size_t i = 0; eq && i < ARRAY_LEN(settings); i++) {
        if (strlen(settings[i].key) != (size_t)(eq - text) ||
            strncmp(settings[i].key, text, (size_t)(eq - text)))
            continue;
        s->set &= ~(unsigned)settings[i].bit;
        if (!eq[1])
            return 0;
        if (settings[i].take(s, eq + 1))
            return cli_fail("%s: '%s' is not %s", settings[i].key, eq + 1, settings[i].want);
        s->set |= settings[i].bit;
        return 0;
    }
    return cli_fail("no setting '%s': copy-on-read, prefetch, prefetch-delay, max-rate, "
                    "metadata-cache or label, each with =VALUE",
                    text);
}

static int co_update(struct blk_node *file, const json_t *args)
{
    const json_t *list = json_object_get(args, "settings"), *item;
    const char *path = cli_str(args, "filename"), *format = co_image_format(file, NULL);
    struct qcow2_description d;
    struct qcow2_settings s;
    struct error err = ERROR_INIT;
    bool dirty;
    size_t i;

    if (!format)
        return CLI_FAILED;
    if (strcmp(format, "qcow2"))
        return cli_fail("'%s': only qcow2 images keep settings", path);
    if (co_qcow2_describe(file, &d, &err) || co_qcow2_get_settings(file, &s, &err))
        return cli_fail("'%s': %s", path, err.msg);
    dirty = d.dirty || d.corrupt;
    qcow2_description_release(&d);
    if (dirty)
        return cli_fail("'%s' is marked dirty or corrupt: cowtgt image check -r all first", path);
    json_array_foreach (list, i, item) {
        if (take_setting(&s, json_string_value(item)))
            return CLI_FAILED;
    }
    if (co_qcow2_set_settings(file, &s, &err))
        return cli_fail("'%s': %s", path, err.msg);
    return 0;
}

/* Opened writable: its locks keep this away from an image that somebody has open. */
int co_image_update(json_t *args)
{
    struct blk_node *file = co_image_open_file(cli_str(args, "filename"), true, false);
    int ret;

    if (!file)
        return CLI_FAILED;
    ret = co_update(file, args);
    co_blk_node_unref(file);
    if (!ret && !cli_bool(args, "quiet"))
        puts("Settings changed.");
    return ret;
}
