/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of an image's first cluster, cut off at every moment: of the writes after the last flush
 * any sector alone, all but one, a half, all or none. What is left has to say the old or the new.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lun-backends/qcow2-format.h"
#include "lun-backends/qcow2-offline.h"
#include "lun-backends/qcow2.h"
#include "tests/unit/ctest.h"
#include "tests/unit/mem-node.h"
#include "util/byteorder.h"
#include "util/loop.h"
#include "util/size.h"

#define CLUSTER    4096u
#define FILE_BYTES (1u << 20)

enum { EXT_FEATURES = 0x6803f857, EXT_FORMAT = 0xe2792aca, EXT_OTHER = 0x12345678 };

static const char old_name[] = "/srv/images/a-backing-file-with-a-name-of-some-length.qcow2";
static const char new_name[] = "/srv/images/another-backing-file-with-a-name-that-is-longer.qcow2";

/* ---- a file that remembers ------------------------------------------------------------------ */

struct rec_file {
    struct blk_node node;
    uint8_t *data;
    uint8_t before[CLUSTER]; /* as at the last flush */
    void (*crash)(const uint8_t *disk);
};

static void crash_all_ways(const struct rec_file *f)
{
    uint8_t disk[CLUSTER];
    const unsigned n = CLUSTER / QCOW2_SECTOR;

    for (unsigned way = 0; way < 2 * n + 2; way++) {
        for (unsigned i = 0; i < n; i++) {
            bool is_new = way < n       ? i == way
                          : way < 2 * n ? i != way - n
                                        : (i < 2) == (way == 2 * n);

            memcpy(disk + i * QCOW2_SECTOR, (is_new ? f->data : f->before) + i * QCOW2_SECTOR,
                   QCOW2_SECTOR);
        }
        f->crash(disk);
    }
}

static void rec_submit(struct blk_node *node, struct blk_req *req)
{
    struct rec_file *f = container_of(node, struct rec_file, node);
    uint64_t end = req->offset_bytes + req->length_bytes;

    if (req->verb != BLK_FLUSH && end > FILE_BYTES) {
        blk_complete(req, -ENOSPC);
        return;
    }
    if (req->verb == BLK_READ) {
        iov_from_buf(req->iov, req->niov, 0, f->data + req->offset_bytes, req->length_bytes);
    } else if (req->verb == BLK_WRITE_ZEROES) {
        memset(f->data + req->offset_bytes, 0, req->length_bytes);
        node->size_bytes = MAX_OF(node->size_bytes, end);
    } else if (req->verb == BLK_WRITE) {
        iov_to_buf(req->iov, req->niov, 0, f->data + req->offset_bytes, req->length_bytes);
        node->size_bytes = MAX_OF(node->size_bytes, end);
    } else {
        if (f->crash)
            crash_all_ways(f);
        memcpy(f->before, f->data, CLUSTER);
    }
    blk_complete(req, 0);
}

static int co_rec_resize(struct blk_node *node, uint64_t size_bytes, struct error *err)
{
    (void)err;
    node->size_bytes = size_bytes;
    return size_bytes > FILE_BYTES ? -ENOSPC : 0;
}

static void rec_close(struct blk_node *node)
{
    free(container_of(node, struct rec_file, node)->data);
}

static const struct blk_driver rec_driver = {
    .name = "recorded",
    .instance_bytes = sizeof(struct rec_file),
    .grows = true,
    .submit = {[BLK_READ] = rec_submit,
               [BLK_WRITE] = rec_submit,
               [BLK_WRITE_ZEROES] = rec_submit,
               [BLK_FLUSH] = rec_submit},
    .co_close = rec_close,
    .co_resize = co_rec_resize,
};

static struct rec_file *rec_file_new(void)
{
    struct blk_node *node = blk_node_new(&rec_driver, NULL);
    struct rec_file *f = container_of(node, struct rec_file, node);

    node->limits.align_bytes = 1;
    f->data = calloc(1, FILE_BYTES);
    return f;
}

/* ---- images --------------------------------------------------------------------------------- */

struct image {
    const char *format; /* of the backing file; NULL: not said */
    bool features;      /* the table of names that qemu-img writes */
    uint32_t other;     /* bytes of another extension; 0: none */
    const char *label;  /* in the settings it has; NULL: none */
};

static struct qcow2_settings settings_of(const char *label)
{
    struct qcow2_settings s = {.set = QCOW2_SET_LABEL | QCOW2_SET_MAX_RATE, .max_rate = 4096};

    snprintf(s.label, sizeof(s.label), "%s", label);
    return s;
}

/* Puts the extensions and the name behind the header of the image in @f. */
static void dress(struct rec_file *f, const struct image *im)
{
    static const uint8_t junk[512] = {[0 ... 511] = 0x6a};
    uint8_t *d = f->data, buf[QCOW2_SETTINGS_BYTES];
    size_t to = 112;

    memset(d + to, 0, CLUSTER - to);
    if (im->format)
        to = qcow2_ext_put(d, to, CLUSTER, EXT_FORMAT, im->format, (uint32_t)strlen(im->format));
    if (im->features)
        to = qcow2_ext_put(d, to, CLUSTER, EXT_FEATURES, junk, 384);
    if (im->other)
        to = qcow2_ext_put(d, to, CLUSTER, EXT_OTHER, junk, im->other);
    if (im->label) {
        struct qcow2_settings s = settings_of(im->label);

        to = qcow2_ext_put(d, to, CLUSTER, QCOW2_EXT_COWTGT, buf, qcow2_settings_encode(&s, buf));
    }
    to = qcow2_ext_put(d, to, CLUSTER, QCOW2_EXT_END, NULL, 0);
    memcpy(d + to, old_name, strlen(old_name));
    put_be64(d + QCOW2_POS_BACKING_OFFSET, to);
    put_be32(d + QCOW2_POS_BACKING_BYTES, (uint32_t)strlen(old_name));
    memcpy(f->before, d, CLUSTER);
}

static struct rec_file *co_image(const struct image *im)
{
    struct rec_file *f = rec_file_new();
    struct qcow2_create_opts opts = {
        .size_bytes = 1 << 16, .cluster_bytes = CLUSTER, .backing = old_name};
    struct error err = ERROR_INIT;

    CHECK_EQ(co_qcow2_create(&f->node, &opts, &err), 0);
    dress(f, im);
    return f;
}

/* What a disk says of itself. */
struct said {
    char name[128], format[16], label[QCOW2_LABEL_MAX + 1];
    bool features, has_settings;
    uint32_t other;
};

static bool read_disk(const uint8_t *disk, struct said *s)
{
    struct error err = ERROR_INIT;
    struct qcow2_settings settings;
    struct qcow2_ext_item item;
    struct qcow2_header h;
    size_t pos = 0;
    int ret;

    memset(s, 0, sizeof(*s));
    if (qcow2_header_decode(disk, CLUSTER, &h, &err) || h.backing_bytes >= sizeof(s->name))
        return false;
    memcpy(s->name, disk + h.backing_offset, h.backing_bytes);
    while ((ret = qcow2_ext_next(disk + h.header_bytes, h.backing_offset - h.header_bytes, &pos,
                                 &item)) == 1) {
        s->features |= item.type == EXT_FEATURES && item.len == 384 && item.data[383] == 0x6a;
        if (item.type == EXT_FORMAT && item.len < sizeof(s->format))
            memcpy(s->format, item.data, item.len);
        if (item.type == EXT_OTHER && item.len && item.data[item.len - 1] == 0x6a)
            s->other = item.len;
        if (item.type != QCOW2_EXT_COWTGT)
            continue;
        if (qcow2_settings_decode(item.data, item.len, &settings) || settings.max_rate != 4096)
            return false;
        s->has_settings = true;
        strcpy(s->label, settings.label);
    }
    return !ret;
}

static struct image now;
static const char *next_label;
static bool may_be_gone, was_gone;
static unsigned crashes, bad;

static void __attribute__((constructor)) start(void)
{
    loop_init();
    blk_init();
}

/* ---- settings ------------------------------------------------------------------------------- */

static void settings_crash(const uint8_t *disk)
{
    struct said s;
    bool good = read_disk(disk, &s) && !strcmp(s.name, old_name) &&
                !strcmp(s.format, now.format ? now.format : "") && s.features == now.features &&
                s.other == now.other;

    crashes++;
    if (good && s.has_settings)
        good = !strcmp(s.label, next_label) || (now.label && !strcmp(s.label, now.label));
    else if (good && now.label)
        good = was_gone = true;
    bad += !good;
}

static void settings_co(void *arg)
{
    struct rec_file *f = co_image(&now);
    struct qcow2_settings s = settings_of(next_label), got;
    struct error err = ERROR_INIT;
    struct said said;

    (void)arg;
    f->crash = settings_crash;
    CHECK_EQ(co_qcow2_set_settings(&f->node, &s, &err), 0);
    CHECK_EQ(co_qcow2_get_settings(&f->node, &got, &err), 0);
    CHECK_STR(got.label, next_label);
    CHECK(read_disk(f->data, &said) && !strcmp(said.name, old_name) && said.other == now.other);
    CHECK(!memcmp(f->before, f->data, CLUSTER));
    co_blk_node_unref(&f->node);
}

static void change_settings(const char *label)
{
    next_label = label;
    crashes = bad = was_gone = 0;
    mem_node_run(settings_co, NULL);
    CHECK(crashes);
    CHECK_EQ(bad, 0);
    CHECK(may_be_gone || !was_gone);
}

TEST(qcow2_first, settings_and_a_name_in_their_way_survive_any_crash)
{
    static const struct image images[] = {
        {"qcow2", true, 0, NULL},  /* as qemu-img makes them: the name is at 528 */
        {NULL, true, 0, NULL},     /* without a format: at 512 */
        {"qcow2", false, 0, NULL}, /* as ours */
        {"qcow2", true, 0, "was"}, {"raw", false, 0, "was"},
    };

    may_be_gone = false;
    for (size_t i = 0; i < ARRAY_LEN(images); i++) {
        now = images[i];
        change_settings("a label");
        change_settings("0123456789012345678901234567890123456789012345678901234567890123");
    }
}

TEST(qcow2_first, settings_across_sectors_are_there_or_not)
{
    may_be_gone = true;
    for (uint32_t other = 8; other <= 512; other += 8) {
        now = (struct image){"qcow2", false, other, NULL};
        change_settings("a label");
        now.label = "was";
        change_settings("0123456789012345678901234567890123456789012345678901234567890123");
        now.label = "0123456789012345678901234567890123456789012345678901234567890123";
        change_settings("short");
    }
}

/* ---- the backing file ----------------------------------------------------------------------- */

static void backing_crash(const uint8_t *disk)
{
    const char *format = now.format ? now.format : "";
    struct said s;
    bool good = read_disk(disk, &s) && s.features == now.features && s.other == now.other;

    crashes++;
    good = good && ((!strcmp(s.name, old_name) && !strcmp(s.format, format)) ||
                    (!strcmp(s.name, new_name) && !strcmp(s.format, "qcow2")));
    bad += !good;
}

static void backing_co(void *arg)
{
    struct rec_file *f = co_image(&now);
    struct blk_node *node = NULL;
    struct error err = ERROR_INIT;
    struct said said;

    (void)arg;
    if (co_qcow2_open(&f->node, true, &node, &err)) {
        CHECK_STR(err.msg, "");
        return;
    }
    f->crash = backing_crash;
    CHECK_EQ(node->drv->co_change_backing(node, new_name, "qcow2", &err), 0);
    f->crash = NULL;
    CHECK(read_disk(f->data, &said) && !strcmp(said.name, new_name) &&
          !strcmp(said.format, "qcow2"));
    co_blk_node_unref(node);
    co_blk_node_unref(&f->node);
}

TEST(qcow2_first, another_backing_file_survives_any_crash)
{
    static const struct image images[] = {
        {"qcow2", true, 0, NULL}, {NULL, true, 0, NULL},    {"raw", true, 0, NULL},
        {NULL, false, 0, NULL},   {"raw", false, 80, NULL},
    };

    for (size_t i = 0; i < ARRAY_LEN(images); i++) {
        now = images[i];
        crashes = bad = 0;
        mem_node_run(backing_co, NULL);
        CHECK(crashes);
        CHECK_EQ(bad, 0);
    }
}
