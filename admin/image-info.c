/* SPDX-License-Identifier: BSD-3-Clause */
/* info: what an image file says of itself, with qemu-img's words and JSON. */
#include "admin/image.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/json-util.h"
#include "lun-backends/qcow2-offline.h"
#include "util/size.h"

/* One image: all that is shown of it, and where the next one is. */
struct info {
    struct qcow2_description d;
    struct qcow2_settings s;
    const char *format;
    uint64_t size_bytes, allocated_bytes;
    char full_backing[PATH_MAX];
    char backing_format[16]; /* as a json: name says it */
};

/* ---- json --------------------------------------------------------------------------------- */

static json_t *snapshot_json(const struct qcow2_snapshot_info *s)
{
    json_t *obj =
        json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "id", json_text(s->id), "name",
                  json_text(s->name), "vm-state-size", (json_int_t)s->vm_state_bytes, "date-sec",
                  (json_int_t)s->date_sec, "date-nsec", (json_int_t)s->date_nsec, "vm-clock-sec",
                  (json_int_t)(s->vm_clock_ns / 1000000000), "vm-clock-nsec",
                  (json_int_t)(s->vm_clock_ns % 1000000000));

    if (s->icount != UINT64_MAX)
        json_object_set_new(obj, "icount", json_integer((json_int_t)s->icount));
    return obj;
}

static json_t *bitmap_json(const struct qcow2_bitmap_info *b)
{
    json_t *flags = json_array();

    if (b->in_use)
        json_array_append_new(flags, json_string("in-use"));
    if (b->autoload)
        json_array_append_new(flags, json_string("auto"));
    return json_pack("{s:o, s:I, s:o}", "name", json_text(b->name), "granularity",
                     (json_int_t)b->granularity_bytes, "flags", flags);
}

static json_t *qcow2_json(const struct qcow2_description *d)
{
    json_t *data =
        json_pack("{s:s, s:s, s:i}", "compat", d->version < 3 ? "0.10" : "1.1", "compression-type",
                  d->zstd ? "zstd" : "zlib", "refcount-bits", (int)d->refcount_bits);
    json_t *list;

    if (d->version >= 3) {
        json_object_set_new(data, "lazy-refcounts", json_boolean(d->lazy_refcounts));
        json_object_set_new(data, "corrupt", json_boolean(d->corrupt));
        json_object_set_new(data, "extended-l2", json_boolean(d->extended_l2));
    }
    if (d->data_file) {
        json_object_set_new(data, "data-file", json_text(d->data_file));
        json_object_set_new(data, "data-file-raw", json_boolean(d->data_file_raw));
    }
    if (d->nr_bitmaps) {
        list = json_array();
        for (unsigned i = 0; i < d->nr_bitmaps; i++)
            json_array_append_new(list, bitmap_json(&d->bitmaps[i]));
        json_object_set_new(data, "bitmaps", list);
    }
    return json_pack("{s:s, s:o}", "type", "qcow2", "data", data);
}

/* One with a protocol ("file:", "json:") is complete as it is. */
static const char *shown_backing(const struct info *in)
{
    const char *name = in->d.backing;

    return name[strcspn(name, ":/")] == ':' ? name : in->full_backing;
}

static json_t *info_json(const char *path, const struct info *in)
{
    const struct qcow2_description *d = &in->d;
    json_t *obj = json_pack("{s:o, s:s, s:I, s:I, s:b}", "filename", json_text(path), "format",
                            in->format, "virtual-size", (json_int_t)in->size_bytes, "actual-size",
                            (json_int_t)in->allocated_bytes, "dirty-flag", d->dirty);
    json_t *list;

    if (strcmp(in->format, "qcow2"))
        return obj;
    json_object_set_new(obj, "cluster-size", json_integer(d->cluster_bytes));
    if (d->encryption)
        json_object_set_new(obj, "encrypted", json_true());
    if (d->backing) {
        json_object_set_new(obj, "backing-filename", json_text(d->backing));
        json_object_set_new(obj, "full-backing-filename", json_text(shown_backing(in)));
    }
    if (d->backing && d->backing_fmt)
        json_object_set_new(obj, "backing-filename-format", json_text(d->backing_fmt));
    if (d->nr_snapshots) {
        list = json_array();
        for (unsigned i = 0; i < d->nr_snapshots; i++)
            json_array_append_new(list, snapshot_json(&d->snapshots[i]));
        json_object_set_new(obj, "snapshots", list);
    }
    json_object_set_new(obj, "format-specific", qcow2_json(d));
    if (in->s.set)
        json_object_set_new(obj, "cowtgt-settings", image_settings_json(&in->s));
    return obj;
}

/* ---- for people --------------------------------------------------------------------------- */

static void put_named(const char *name, const char *text)
{
    printf("%s: ", name);
    cli_put(text);
    putchar('\n');
}

/* Three digits, as qemu-img has it: 1000 KiB are 0.977 MiB. */
static const char *size_short(uint64_t bytes, char *buf, size_t len)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    unsigned u = 0;

    for (; v >= 1000 && u < ARRAY_LEN(units) - 1; u++)
        v /= 1024;
    snprintf(buf, len, "%.3g %s", v, units[u]);
    return buf;
}

/* @text, and spaces up to @width. */
static void put_padded(const char *text, size_t width)
{
    cli_put(text);
    for (size_t n = strlen(text); n < width; n++)
        putchar(' ');
}

static void print_snapshots(const struct qcow2_description *d)
{
    printf("Snapshot list:\n%-9s %-16s %8s %19s %12s %10s\n", "ID", "TAG", "VM SIZE", "DATE",
           "VM CLOCK", "ICOUNT");
    for (unsigned i = 0; i < d->nr_snapshots; i++) {
        const struct qcow2_snapshot_info *s = &d->snapshots[i];
        uint64_t ms = s->vm_clock_ns / 1000000;
        char date[32] = "", size[32], clock[40], icount[24] = "";
        time_t when = s->date_sec;
        struct tm tm;

        if (localtime_r(&when, &tm))
            strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        snprintf(clock, sizeof(clock), "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64,
                 ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
        if (s->icount != UINT64_MAX)
            snprintf(icount, sizeof(icount), "%" PRIu64, s->icount);
        put_padded(s->id, 9);
        putchar(' ');
        put_padded(s->name, 16);
        printf(" %8s %19s %12s %10s\n", size_short(s->vm_state_bytes, size, sizeof(size)), date,
               clock, icount);
    }
}

static void print_bitmaps(const struct qcow2_description *d)
{
    if (d->nr_bitmaps)
        puts("    bitmaps:");
    for (unsigned i = 0; i < d->nr_bitmaps; i++) {
        const struct qcow2_bitmap_info *b = &d->bitmaps[i];
        unsigned flags = 0;

        printf("        [%u]:\n            flags:\n", i);
        if (b->in_use)
            printf("                [%u]: in-use\n", flags++);
        if (b->autoload)
            printf("                [%u]: auto\n", flags);
        put_named("            name", b->name);
        printf("            granularity: %" PRIu64 "\n", b->granularity_bytes);
    }
}

static void print_qcow2(const struct qcow2_description *d)
{
    printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
           d->version < 3 ? "0.10" : "1.1", d->zstd ? "zstd" : "zlib");
    if (d->version >= 3)
        printf("    lazy refcounts: %s\n", d->lazy_refcounts ? "true" : "false");
    print_bitmaps(d);
    printf("    refcount bits: %u\n", d->refcount_bits);
    if (d->data_file) {
        put_named("    data file", d->data_file);
        printf("    data file raw: %s\n", d->data_file_raw ? "true" : "false");
    }
    if (d->version >= 3)
        printf("    corrupt: %s\n    extended l2: %s\n", d->corrupt ? "true" : "false",
               d->extended_l2 ? "true" : "false");
}

static void print_settings(const struct qcow2_settings *s)
{
    json_t *obj = image_settings_json(s), *value;
    const char *key;

    puts("cowtgt settings:");
    json_object_foreach (obj, key, value) {
        printf("    %s: ", key);
        cli_put_setting(value);
        putchar('\n');
    }
    json_decref(obj);
}

static void print_human(const char *path, const struct info *in)
{
    const struct qcow2_description *d = &in->d;
    char size[32];

    put_named("image", path);
    printf("file format: %s\nvirtual size: %s (%" PRIu64 " bytes)\n", in->format,
           size_short(in->size_bytes, size, sizeof(size)), in->size_bytes);
    printf("disk size: %s\n", size_short(in->allocated_bytes, size, sizeof(size)));
    if (strcmp(in->format, "qcow2"))
        return;
    if (d->encryption)
        puts("encrypted: yes");
    printf("cluster_size: %u\n", d->cluster_bytes);
    if (d->dirty)
        puts("cleanly shut down: no");
    if (d->backing) {
        printf("backing file: ");
        cli_put(d->backing);
        if (*shown_backing(in) && strcmp(shown_backing(in), d->backing)) {
            printf(" (actual path: ");
            cli_put(shown_backing(in));
            putchar(')');
        }
        putchar('\n');
    }
    if (d->backing && d->backing_fmt)
        put_named("backing file format", d->backing_fmt);
    if (d->nr_snapshots)
        print_snapshots(d);
    print_qcow2(d);
    if (in->s.set)
        print_settings(&in->s);
}

/* ---- reading ------------------------------------------------------------------------------ */

/* A backing file that is elsewhere is shown as it is written. */
static void find_backing(const char *path, struct info *in)
{
    struct error err = ERROR_INIT;

    in->full_backing[0] = in->backing_format[0] = '\0';
    if (!in->d.backing)
        return;
    if (chain_resolve_backing(path, in->d.backing, in->full_backing, sizeof(in->full_backing),
                              in->backing_format, sizeof(in->backing_format), &err))
        snprintf(in->full_backing, sizeof(in->full_backing), "%s", in->d.backing);
}

static int co_read_info(const char *path, const char *format, bool share, struct info *in)
{
    struct blk_node *file = co_image_open_file(path, false, share);
    struct error err = ERROR_INIT;
    int ret = 0;

    in->d = (struct qcow2_description){0};
    in->s = (struct qcow2_settings){0};
    if (!file)
        return CLI_FAILED;
    in->format = co_image_format(file, format);
    in->size_bytes = round_up_pow2(file->size_bytes, 512);
    if (!in->format) {
        ret = CLI_FAILED;
    } else if (!strcmp(in->format, "qcow2")) {
        ret = co_qcow2_describe(file, &in->d, &err);
        if (!ret && co_qcow2_get_settings(file, &in->s, &err))
            cli_fail("'%s': %s", path, err.msg); /* the rest is shown all the same */
        else if (ret)
            ret = cli_fail("'%s': %s", path, err.msg);
        in->size_bytes = round_up_pow2(in->d.size_bytes, 512);
    }
    if (!ret && co_file_allocated_bytes(file, &in->allocated_bytes))
        in->allocated_bytes = 0;
    co_blk_node_unref(file);
    if (!ret)
        find_backing(path, in);
    return ret;
}

/* Shows the image at @path, and with --backing-chain those below it. */
static int co_show(char *path, const json_t *args, bool json, json_t *list, struct info *in)
{
    bool chain = cli_bool(args, "backing-chain"), more;
    char format[16];
    int ret, nr = 0;

    if (snprintf(format, sizeof(format), "%s", cli_str(args, "format")) >= (int)sizeof(format))
        return cli_fail("no image format '%s': raw or qcow2", cli_str(args, "format"));
    do {
        ret = co_read_info(path, format, cli_bool(args, "force-share"), in);
        if (ret)
            return ret;
        if (json) {
            json_array_append_new(list, info_json(path, in));
        } else {
            if (nr)
                putchar('\n');
            print_human(path, in);
        }
        more = chain && in->d.backing;
        snprintf(path, PATH_MAX, "%s", in->full_backing);
        snprintf(format, sizeof(format), "%s",
                 *in->backing_format ? in->backing_format
                 : in->d.backing_fmt ? in->d.backing_fmt
                                     : "");
        qcow2_description_release(&in->d);
        if (more && ++nr == CHAIN_MAX_LAYERS)
            return cli_fail("'%s' is in a loop of backing files", path);
    } while (more);
    return 0;
}

int co_image_info(json_t *args)
{
    struct info *in = calloc(1, sizeof(*in));
    char *path = malloc(PATH_MAX);
    json_t *list = json_array();
    bool json;
    int ret = CLI_FAILED;

    if (!in || !path)
        cli_fail("out of memory");
    else if (snprintf(path, PATH_MAX, "%s", cli_str(args, "filename")) >= PATH_MAX)
        cli_fail("the file name is too long");
    else if (image_output(args, &json))
        ret = co_show(path, args, json, list, in);
    if (!ret && json)
        image_print_json(
            json_incref(cli_bool(args, "backing-chain") ? list : json_array_get(list, 0)));
    json_decref(list);
    free(path);
    free(in);
    return ret;
}
