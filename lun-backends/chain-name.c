/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the backing name in an image means. Pure: names in, a path out.
 * Relative names, also those after "file:" and inside "json:", are relative to the directory of
 * the image that carries them. Anything that is not a file on this host is refused by name, and so
 * is every json: key that is not understood: serving other bytes than meant is worse than none.
 */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "lun-backends/chain.h"
#include "util/size.h"

struct meaning {
    const char *image_path, *what, *backing; /* for messages */
    char file[PATH_MAX];
    char format[16];
    struct error *err;
};

static int refuse(struct meaning *m, int errnum, const char *why)
{
    return error_set(m->err, errnum, "'%s': its %s name '%s' %s", m->image_path, m->what,
                     m->backing, why);
}

static int set_text(struct meaning *m, char *out, size_t len, const char *text)
{
    if (*out)
        return refuse(m, EINVAL, "says one thing twice");
    if (!*text || strlen(text) >= len)
        return refuse(m, EINVAL, *text ? "is too long" : "names no file");
    strcpy(out, text);
    return 0;
}

/* A protocol ends in a colon that comes before any slash. */
static size_t protocol_length(const char *name)
{
    size_t n = strcspn(name, ":/");

    return name[n] == ':' ? n : 0;
}

static int take_plain(struct meaning *m, const char *name)
{
    size_t n = protocol_length(name);
    char why[96];

    if (n == 4 && !strncmp(name, "file", 4)) {
        name += 5;
        if (!strncmp(name, "//", 2) && name[2] == '/')
            name += 2; /* file:///path */
    } else if (n) {
        snprintf(why, sizeof(why), "is not a file here (protocol '%.*s')", (int)MIN_OF(n, 32),
                 name);
        return refuse(m, ENOTSUP, why);
    }
    return set_text(m, m->file, sizeof(m->file), name);
}

/* ---- json:{...} --------------------------------------------------------------------- */

enum place { AT_FORMAT, AT_FILE };

static int take_object(struct meaning *m, json_t *object, enum place place);

static int take_driver(struct meaning *m, const char *driver, enum place place)
{
    bool format = !strcmp(driver, "qcow2") || !strcmp(driver, "raw");
    char why[96];

    if (!strcmp(driver, "file") || !strcmp(driver, "host_device"))
        return 0;
    if (place == AT_FORMAT && format)
        return set_text(m, m->format, sizeof(m->format), driver);
    snprintf(why, sizeof(why), "asks for driver '%.32s', which can't be served", driver);
    return refuse(m, ENOTSUP, why);
}

static int take_key(struct meaning *m, const char *key, json_t *value, enum place place)
{
    const char *text = json_string_value(value);
    char why[96];

    if (!strncmp(key, "file.", 5) && place == AT_FORMAT)
        return take_key(m, key + 5, value, AT_FILE);
    if (!strcmp(key, "driver") && text)
        return take_driver(m, text, place);
    if (!strcmp(key, "filename") && text)
        return set_text(m, m->file, sizeof(m->file), text);
    if (!strcmp(key, "file") && json_is_object(value) && place == AT_FORMAT)
        return take_object(m, value, AT_FILE);
    if (!strcmp(key, "node-name") || !strcmp(key, "read-only"))
        return 0;
    snprintf(why, sizeof(why), "has '%.32s', which can't be served", key);
    return refuse(m, ENOTSUP, why);
}

static int take_object(struct meaning *m, json_t *object, enum place place)
{
    const char *key;
    json_t *value;
    int ret = 0;

    json_object_foreach (object, key, value) {
        ret = take_key(m, key, value, place);
        if (ret)
            break;
    }
    return ret;
}

static int take_json(struct meaning *m, const char *text)
{
    json_error_t jerr;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &jerr);
    int ret;

    if (!json_is_object(root)) {
        json_decref(root);
        return refuse(m, EINVAL, "is not valid json:");
    }
    ret = take_object(m, root, AT_FORMAT);
    json_decref(root);
    if (!ret && !*m->file)
        ret = refuse(m, EINVAL, "names no file");
    return ret;
}

/* ------------------------------------------------------------------------------------- */

static int make_path(struct meaning *m, char *out, size_t out_len)
{
    const char *slash = strrchr(m->image_path, '/');
    int dir_len = m->file[0] == '/' || !slash ? 0 : (int)(slash - m->image_path + 1);
    int n = snprintf(out, out_len, "%.*s%s", dir_len, m->image_path, m->file);

    return n < 0 || (size_t)n >= out_len ? refuse(m, ENAMETOOLONG, "is too long") : 0;
}

static int take_name(struct meaning *m, char *out, size_t out_len)
{
    int ret =
        strncmp(m->backing, "json:", 5) ? take_plain(m, m->backing) : take_json(m, m->backing + 5);

    return ret ? ret : make_path(m, out, out_len);
}

int chain_resolve_backing(const char *image_path, const char *backing, char *out, size_t out_len,
                          char *format, size_t format_len, struct error *err)
{
    struct meaning m = {
        .image_path = image_path, .what = "backing", .backing = backing, .err = err};
    int ret = take_name(&m, out, out_len);

    if (!ret && snprintf(format, format_len, "%s", m.format) >= (int)format_len)
        ret = refuse(&m, EINVAL, "has a driver name that is too long");
    return ret;
}

int chain_resolve_data_file(const char *image_path, const char *name, char *out, size_t out_len,
                            struct error *err)
{
    struct meaning m = {.image_path = image_path, .what = "data file", .backing = name, .err = err};
    int ret = take_name(&m, out, out_len);

    if (!ret && *m.format && strcmp(m.format, "raw"))
        ret = refuse(&m, ENOTSUP, "is not raw");
    return ret;
}
