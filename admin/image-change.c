/* SPDX-License-Identifier: BSD-3-Clause */
/* resize and update: changes of what an image says of itself. */
#include "admin/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-offline.h"
#include "util/size.h"

/* ---- resize ------------------------------------------------------------------------------- */

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
    const char *word = cli_str(args, "preallocation"), *format = top->drv->name;
    enum qcow2_prealloc how = QCOW2_PREALLOC_OFF;
    struct error err = ERROR_INIT;
    uint64_t size = 0, before = top->size_bytes;

    if (*word && !image_prealloc(word, format, &how))
        return CLI_FAILED;
    if (parse_size(cli_str(args, "size"), before, &size))
        return CLI_FAILED;
    if (how && size < before)
        return cli_fail("preallocation is for what is added: the image would become smaller");
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
    return co_image_preallocate(top, before, how, false);
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

/* ---- update ------------------------------------------------------------------------------- */

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
        if (image_setting_take(&s, json_string_value(item), &err))
            return cli_fail("%s", err.msg);
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
