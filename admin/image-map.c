/* SPDX-License-Identifier: BSD-3-Clause */
/* map: for each part of the disk the layer that decides it and the place in that layer's file. */
#include "admin/image.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "lun-backends/qcow2-offline.h"
#include "lun-backends/qcow2.h"
#include "util/size.h"

struct entry {
    uint64_t start, length, offset;
    unsigned depth;
    bool present, zero, data, has_offset;
};

struct map {
    const struct chain_image *chain;
    bool json;
    bool lost;                /* for people: data that has no place to be shown */
    char directory[PATH_MAX]; /* that relative names are from, with a slash; empty: unknown */
    unsigned nr_relative;     /* layers, from the top, that are reached by relative names alone */
    unsigned printed;
    struct entry last; /* length 0: none yet */
};

static const char *word(bool b)
{
    return b ? "true" : "false";
}

static void print_json(struct map *m, const struct entry *e)
{
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
           ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
           m->printed++ ? ",\n" : "[", e->start, e->length, e->depth, word(e->present),
           word(e->zero), word(e->data));
    if (e->has_offset)
        printf(", \"offset\": %" PRIu64, e->offset);
    putchar('}');
}

static void find_relative(struct map *m, const char *top)
{
    const struct chain_image *chain = m->chain;
    struct qcow2_info info;
    size_t len;

    if (*top == '/' || !getcwd(m->directory, sizeof(m->directory) - 1))
        return;
    len = strlen(m->directory);
    memcpy(m->directory + len, "/", 2);
    for (m->nr_relative = 1; m->nr_relative < chain->nr_layers; m->nr_relative++) {
        qcow2_get_info(chain->layers[chain->nr_layers - m->nr_relative].node, &info);
        if (!info.backing || *info.backing == '/')
            break;
    }
}

/* As qemu-img has it: as far as the names on the way are relative, so is this. */
static const char *shown_name(const struct map *m, const char *filename, unsigned depth)
{
    size_t len = strlen(m->directory);

    return depth < m->nr_relative && !strncmp(filename, m->directory, len) ? filename + len
                                                                           : filename;
}

static void print_entry(struct map *m, const struct entry *e)
{
    const struct chain_layer *layer = &m->chain->layers[m->chain->nr_layers - 1 - e->depth];
    const struct blk_node *data = layer->node->data.child;

    if (!e->length)
        return;
    if (m->json) {
        print_json(m, e);
    } else if (e->data && !e->has_offset) {
        m->lost = true;
    } else if (e->data && !e->zero) {
        printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64, e->start, e->length, e->offset);
        cli_put(shown_name(m, data && data->filename ? data->filename : layer->filename, e->depth));
        putchar('\n');
    }
}

static void add(struct map *m, const struct entry *e)
{
    struct entry *l = &m->last;

    if (l->length && l->depth == e->depth && l->present == e->present && l->zero == e->zero &&
        l->data == e->data && l->has_offset == e->has_offset &&
        (!e->has_offset || e->offset == l->offset + l->length)) {
        l->length += e->length;
        return;
    }
    print_entry(m, l);
    *l = *e;
}

/* Raw: of the sector that the file ends in only the file's bytes are data, as qemu-img has it. */
static int co_raw_place(struct blk_node *node, uint64_t start, uint64_t length,
                        struct qcow2_place *place)
{
    const struct blk_node *file = node->file.child;
    uint64_t file_end = file ? file->size_bytes : node->size_bytes;
    struct blk_extent ext;
    int ret;

    *place = (struct qcow2_place){BLK_ST_ZERO, true, start, length};
    if (start >= file_end)
        return 0;
    ret = co_blk_status(node, start, length, &ext);
    if (ret)
        return ret;
    place->state = ext.state;
    place->length_bytes = ext.length_bytes;
    if (ext.state == BLK_ST_DATA)
        place->length_bytes = MIN_OF(ext.length_bytes, file_end - start);
    return 0;
}

/* What the layer at @depth has at @e->start, up to e->length; fills the rest of @e. */
static int co_ask_layer(const struct map *m, unsigned depth, struct entry *e)
{
    const struct chain_layer *layer = &m->chain->layers[m->chain->nr_layers - 1 - depth];
    struct qcow2_place place = {0};
    int ret;

    if (!strcmp(layer->format, "qcow2"))
        ret = co_qcow2_place(layer->node, e->start, e->length, &place);
    else
        ret = co_raw_place(layer->node, e->start, e->length, &place);
    if (ret)
        return ret;
    e->length = place.length_bytes;
    e->depth = depth;
    e->data = place.state == BLK_ST_DATA || place.state == BLK_ST_COMPRESSED;
    e->zero = place.state == BLK_ST_ZERO;
    e->present = e->data || e->zero;
    e->has_offset = place.has_host;
    e->offset = place.host_bytes;
    return 0;
}

/* The deciding layer at @e->start. Where none has a say it is zero, and not present: decided by
 * the base, or by the layer above a backing that is too short. */
static int co_decide(const struct map *m, struct entry *e)
{
    for (unsigned depth = 0; depth < m->chain->nr_layers; depth++) {
        const struct chain_image *c = m->chain;
        struct blk_node *node = c->layers[c->nr_layers - 1 - depth].node, *below;
        int ret;

        e->length = MIN_OF(e->length, node->size_bytes - e->start);
        ret = co_ask_layer(m, depth, e);
        if (ret)
            return ret;
        below = node->backing.child;
        if (!e->present && (!below || e->start >= below->size_bytes))
            e->zero = true;
        if (e->zero || e->data)
            return 0;
    }
    return -EIO;
}

static int co_walk(struct map *m, uint64_t start, uint64_t end)
{
    while (start < end) {
        struct entry e = {.start = start, .length = end - start};
        int ret = co_decide(m, &e);

        if (ret)
            return cli_fail("reading the mapping at offset %" PRIu64 ": %s", start, strerror(-ret));
        add(m, &e);
        start += e.length;
    }
    print_entry(m, &m->last);
    return 0;
}

int co_image_map(json_t *args)
{
    struct image_open how = {.format = cli_str(args, "format"),
                             .share = cli_bool(args, "force-share")};
    struct map m = {0};
    struct chain_image *chain;
    uint64_t start = (uint64_t)cli_int(args, "start"), end;
    int ret;

    if (!image_output(args, &m.json))
        return CLI_FAILED;
    chain = co_image_open(cli_str(args, "filename"), &how);
    if (!chain)
        return CLI_FAILED;
    m.chain = chain;
    find_relative(&m, cli_str(args, "filename"));
    end = image_top(chain)->size_bytes;
    if (json_object_get(args, "length"))
        end = MIN_OF(end, start + (uint64_t)cli_int(args, "length"));
    if (!m.json)
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    ret = co_walk(&m, start, end);
    if (m.json)
        puts(m.printed ? "]" : "[]");
    co_chain_close(chain);
    if (!ret && m.lost)
        ret = cli_fail("some data is compressed and has no offset: see --output=json");
    return ret;
}
