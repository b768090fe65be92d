/* SPDX-License-Identifier: BSD-3-Clause */
/* check: the qcow2 checker with qemu-img's words, statuses and JSON. */
#include "admin/image.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lun-backends/qcow2-offline.h"

/* qemu-img's exit statuses. */
enum { CLEAN = 0, NOT_CHECKED = 1, CORRUPT = 2, LEAKS = 3 };

static void say_line(void *opaque, const char *line)
{
    (void)opaque;
    fprintf(stderr, "%s\n", line);
}

static void print_human(const struct qcow2_check_result *r)
{
    uint64_t errors = r->corruptions + r->check_errors;

    if (!errors && !r->leaks)
        puts("No errors were found on the image.");
    if (r->corruptions)
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               r->corruptions);
    if (r->leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               r->leaks);
    if (r->check_errors)
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", r->check_errors);
    if (r->total_clusters && r->allocated_clusters)
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
               "%0.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters,
               (double)r->allocated_clusters * 100.0 / (double)r->total_clusters,
               (double)r->fragmented_clusters * 100.0 / (double)r->allocated_clusters,
               (double)r->compressed_clusters * 100.0 / (double)r->allocated_clusters);
    if (r->image_end_bytes)
        printf("Image end offset: %" PRIu64 "\n", r->image_end_bytes);
}

/* Members that qemu-img leaves out when they are 0 are left out here too. */
static void add_count(json_t *obj, const char *key, uint64_t n)
{
    if (n)
        json_object_set_new(obj, key, json_integer((json_int_t)n));
}

static void print_json(const char *path, const struct qcow2_check_result *r)
{
    json_t *obj = json_pack("{s:s, s:s, s:I}", "filename", path, "format", "qcow2", "check-errors",
                            (json_int_t)r->check_errors);

    add_count(obj, "image-end-offset", r->image_end_bytes);
    add_count(obj, "corruptions", r->corruptions);
    add_count(obj, "leaks", r->leaks);
    add_count(obj, "corruptions-fixed", r->corruptions_fixed);
    add_count(obj, "leaks-fixed", r->leaks_fixed);
    add_count(obj, "total-clusters", r->total_clusters);
    add_count(obj, "allocated-clusters", r->allocated_clusters);
    add_count(obj, "fragmented-clusters", r->fragmented_clusters);
    add_count(obj, "compressed-clusters", r->compressed_clusters);
    image_print_json(obj);
}

static int status_of(const struct qcow2_check_result *r)
{
    if (r->check_errors)
        return NOT_CHECKED;
    if (r->corruptions)
        return CORRUPT;
    return r->leaks ? LEAKS : CLEAN;
}

/* What was repaired is looked at once more. */
static int co_check(struct blk_node *file, unsigned fix, const json_t *args, bool json)
{
    bool quiet = cli_bool(args, "quiet");
    qcow2_say_fn *say = quiet || json ? NULL : say_line;
    struct qcow2_check_result res, again;
    struct error err = ERROR_INIT;

    if (co_qcow2_check(file, fix, say, NULL, &res, &err)) {
        cli_fail("'%s': %s", file->filename, err.msg);
        return NOT_CHECKED;
    }
    if (res.corruptions_fixed || res.leaks_fixed) {
        if (!json && !quiet)
            printf("The following inconsistencies were found and repaired:\n\n"
                   "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
                   "Double checking the fixed image now...\n",
                   res.leaks_fixed, res.corruptions_fixed);
        if (co_qcow2_check(file, 0, say, NULL, &again, &err)) {
            cli_fail("'%s': %s", file->filename, err.msg);
            return NOT_CHECKED;
        }
        again.corruptions_fixed = res.corruptions_fixed;
        again.leaks_fixed = res.leaks_fixed;
        res = again;
    }
    if (json)
        print_json(cli_str(args, "filename"), &res);
    else if (!quiet)
        print_human(&res);
    return status_of(&res);
}

int co_image_check(json_t *args)
{
    const char *repair = cli_str(args, "repair"), *format;
    struct blk_node *file;
    unsigned fix = 0;
    bool json;
    int ret;

    if (!image_output(args, &json))
        return NOT_CHECKED;
    if (!strcmp(repair, "all"))
        fix = QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS;
    else if (!strcmp(repair, "leaks"))
        fix = QCOW2_FIX_LEAKS;
    else if (*repair)
        return cli_fail("-r: leaks or all, not '%s'", repair);
    if (!image_cache_modes(args))
        return NOT_CHECKED;
    if (fix && cli_bool(args, "force-share"))
        return cli_fail("-r and -U do not go together: a repair needs the image for itself");
    file = co_image_open_file(cli_str(args, "filename"), fix, cli_bool(args, "force-share"));
    if (!file)
        return NOT_CHECKED;
    format = co_image_format(file, cli_str(args, "format"));
    ret = NOT_CHECKED;
    if (format && strcmp(format, "qcow2")) {
        cli_fail("'%s': a %s image has nothing to check", file->filename, format);
        ret = IMAGE_UNSUPPORTED;
    } else if (format) {
        ret = co_check(file, fix, args, json);
    }
    co_blk_node_unref(file);
    return ret;
}
