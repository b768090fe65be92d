/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * verify-writer: random writes, zero writes, unmaps, flushes and reads on a LUN, each read checked
 * against a model of what was acknowledged and what was flushed (model.h).
 *
 *   verify-writer run [options] iscsi://HOST:PORT/IQN/LUN    write and check until told to stop
 *   verify-writer check --model M [--base B] URL|RAWFILE     compare every block with the model
 *   verify-writer expect --model M [--base B] --out RAWFILE  the disk as the model has it
 *
 * Operations under way never overlap. A lost connection is made again (same ISID, so the target
 * ends the old session first); what was not acknowledged may then be there or not.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include "tests/tools/model.h"

#define MAX_DEPTH   64
#define CHECK_BYTES (1u << 20)
#define MAX_UA      8

enum op_kind {
    OP_READ,
    OP_WRITE,
    OP_WRITE_FUA,
    OP_ZERO,
    OP_ZERO_UNMAP,
    OP_UNMAP,
    OP_FLUSH,
    NR_OPS
};
static const char *const op_names[NR_OPS] = {"reads",        "writes", "fua-writes", "zeroes",
                                             "unmap-zeroes", "unmaps", "flushes"};
/* Out of 100; the rest of the draw goes to reads. */
static const unsigned op_weight[NR_OPS] = {0, 44, 6, 5, 5, 4, 4};

struct writer;
struct op {
    struct writer *w;
    enum op_kind kind;
    bool used, done, acked;
    uint64_t lba;
    uint32_t nr;
    unsigned unit_attentions;
    uint8_t *buf;
};

struct options {
    const char *model_path, *base_path, *out_path, *stop_path, *ready_path;
    uint64_t seed;
    double seconds, reconnect_s;
    uint64_t max_ops;
    unsigned depth, max_io_bytes, timeout_s, rate;
    bool no_unmap, aligned, update, tolerate;
};

struct writer {
    struct options o;
    struct model m;
    const char *url_text;
    struct iscsi_context *iscsi;
    int lun;
    bool broken;     /* the connection is to be made again */
    bool cancelling; /* callbacks of a context that is being destroyed */
    struct op ops[MAX_DEPTH];
    bool flush_under_way;
    uint64_t counts[NR_OPS];
    uint64_t lost, busy, errors, wrong;
    uint64_t rng;
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int sig)
{
    stop_signal = sig;
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void pause_ms(int ms)
{
    poll(NULL, 0, ms);
}

static uint64_t draw(struct writer *w, uint64_t bound)
{
    w->rng ^= w->rng << 13;
    w->rng ^= w->rng >> 7;
    w->rng ^= w->rng << 17;
    return bound ? (w->rng >> 11) % bound : 0;
}

static void fail(const char *what, const char *detail)
{
    fprintf(stderr, "verify-writer: %s: %s\n", what, detail);
    exit(1);
}

/* ---- connection ---------------------------------------------------------------------- */

static bool connect_once(struct writer *w)
{
    struct iscsi_context *c = iscsi_create_context("iqn.2026-11.com.example:verify-writer");
    struct iscsi_url *url = c ? iscsi_parse_full_url(c, w->url_text) : NULL;

    if (!url)
        fail("bad URL", w->url_text);
    w->lun = url->lun;
    iscsi_set_targetname(c, url->target);
    iscsi_set_session_type(c, ISCSI_SESSION_NORMAL);
    iscsi_set_isid_random(c, (uint32_t)w->o.seed, 1);
    iscsi_set_noautoreconnect(c, 1);
    iscsi_set_timeout(c, 5);
    bool up = iscsi_full_connect_sync(c, url->portal, url->lun) == 0;
    iscsi_destroy_url(url);
    if (!up) {
        iscsi_destroy_context(c);
        return false;
    }
    iscsi_set_timeout(c, (int)w->o.timeout_s);
    w->iscsi = c;
    w->broken = false;
    return true;
}

static void connect_or_fail(struct writer *w)
{
    double end = now_s() + w->o.reconnect_s;
    while (!connect_once(w)) {
        if (now_s() > end)
            fail("no connection", w->url_text);
        pause_ms(50);
    }
}

static uint64_t lun_blocks(struct writer *w)
{
    struct scsi_task *task = iscsi_readcapacity16_sync(w->iscsi, w->lun);
    struct scsi_readcapacity16 *rc = NULL;
    if (task && task->status == SCSI_STATUS_GOOD)
        rc = scsi_datain_unmarshall(task);
    if (!rc || rc->block_length != MODEL_BLOCK_BYTES)
        fail("READ CAPACITY(16)", "no answer, or blocks of another size");
    uint64_t n = rc->returned_lba + 1;
    scsi_free_scsi_task(task);
    return n;
}

/* ---- operations ---------------------------------------------------------------------- */

static bool is_write(enum op_kind k)
{
    return k != OP_READ && k != OP_FLUSH;
}

static bool is_sure(enum op_kind k)
{
    return k != OP_UNMAP; /* it may leave parts as they were */
}

static void finish(struct writer *w, struct op *op, bool acked)
{
    if (is_write(op->kind)) {
        model_end(&w->m, op->lba, op->nr, acked, is_sure(op->kind));
        if (acked && op->kind == OP_WRITE_FUA)
            model_stable(&w->m, op->lba, op->nr);
    } else if (op->kind == OP_FLUSH) {
        w->flush_under_way = false;
        if (acked)
            model_flush_acked(&w->m);
    } else if (acked) {
        char why[512] = "";
        unsigned wrong = model_check(&w->m, op->lba, op->nr, op->buf, why, sizeof(why));
        if (wrong) {
            w->wrong += wrong;
            fprintf(stderr, "verify-writer: WRONG: read of %" PRIu64 "+%u: %u blocks, first: %s\n",
                    op->lba, op->nr, wrong, why);
        }
    }
    if (acked)
        w->counts[op->kind]++;
    op->used = false;
}

static void submit(struct writer *w, struct op *op);

static void on_done(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    struct op *op = opaque;
    struct writer *w = op->w;
    struct scsi_task *task = data;

    if (w->cancelling || !op->used) {
        scsi_free_scsi_task(task);
        return;
    }
    bool again = status == SCSI_STATUS_CHECK_CONDITION &&
                 task->sense.key == SCSI_SENSE_UNIT_ATTENTION && op->unit_attentions++ < MAX_UA;
    bool acked = status == SCSI_STATUS_GOOD;
    if (acked && op->kind == OP_READ && task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
        acked = false;
    if (status == SCSI_STATUS_BUSY || status == SCSI_STATUS_TASK_SET_FULL) {
        w->busy++;
    } else if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_TIMEOUT ||
               status == SCSI_STATUS_ERROR) {
        w->broken = true;
    } else if (!acked && !again) {
        w->errors++;
        if (!w->o.tolerate || w->errors <= 3)
            fprintf(stderr, "verify-writer: %s at %" PRIu64 "+%u: status 0x%x, %s\n",
                    op_names[op->kind], op->lba, op->nr, (unsigned)status, iscsi_get_error(iscsi));
    }
    scsi_free_scsi_task(task);
    if (again)
        submit(w, op);
    else if (!w->broken || acked)
        finish(w, op, acked);
}

static void submit(struct writer *w, struct op *op)
{
    uint32_t bytes = op->nr * MODEL_BLOCK_BYTES;
    struct scsi_task *task = NULL;
    struct unmap_list list = {.lba = op->lba, .num = op->nr};

    switch (op->kind) {
    case OP_READ:
        task = iscsi_read16_task(w->iscsi, w->lun, op->lba, bytes, MODEL_BLOCK_BYTES, 0, 0, 0, 0, 0,
                                 on_done, op);
        if (task && scsi_task_add_data_in_buffer(task, (int)bytes, op->buf) != 0)
            fail("memory", "data-in buffer");
        break;
    case OP_WRITE:
    case OP_WRITE_FUA:
        task = iscsi_write16_task(w->iscsi, w->lun, op->lba, op->buf, bytes, MODEL_BLOCK_BYTES, 0,
                                  0, op->kind == OP_WRITE_FUA, 0, 0, on_done, op);
        break;
    case OP_ZERO:
    case OP_ZERO_UNMAP:
        memset(op->buf, 0, MODEL_BLOCK_BYTES);
        task = iscsi_writesame16_task(w->iscsi, w->lun, op->lba, op->buf, MODEL_BLOCK_BYTES, op->nr,
                                      0, op->kind == OP_ZERO_UNMAP, 0, 0, on_done, op);
        break;
    case OP_UNMAP:
        task = iscsi_unmap_task(w->iscsi, w->lun, 0, 0, &list, 1, on_done, op);
        break;
    default:
        task = iscsi_synchronizecache16_task(w->iscsi, w->lun, 0, 0, 0, 0, on_done, op);
    }
    if (!task)
        w->broken = true;
}

static bool overlaps(const struct writer *w, uint64_t lba, uint32_t nr)
{
    for (unsigned i = 0; i < w->o.depth; i++) {
        const struct op *op = &w->ops[i];
        if (op->used && op->kind != OP_FLUSH && lba < op->lba + op->nr && op->lba < lba + nr)
            return true;
    }
    return false;
}

static enum op_kind draw_kind(struct writer *w)
{
    unsigned r = (unsigned)draw(w, 100);
    for (unsigned k = 0; k < NR_OPS; k++) {
        if (r < op_weight[k]) {
            bool unmaps = k == OP_UNMAP || k == OP_ZERO_UNMAP;
            return unmaps && w->o.no_unmap ? OP_WRITE : (enum op_kind)k;
        }
        r -= op_weight[k];
    }
    return OP_READ;
}

/* Half of all ranges are 4 KiB units in place, the others are as crooked as sectors allow. */
static void draw_range(struct writer *w, uint64_t *lba, uint32_t *nr)
{
    uint64_t blocks = w->m.nr_blocks;
    uint64_t most = w->o.max_io_bytes / MODEL_BLOCK_BYTES;
    uint64_t longest = draw(w, 8) == 0 || most < 64 ? most : 64;

    if (w->o.aligned || draw(w, 2)) {
        *nr = (uint32_t)(8 * (1 + draw(w, longest / 8 ? longest / 8 : 1)));
        *lba = 8 * draw(w, (blocks + 7) / 8);
    } else {
        *nr = (uint32_t)(1 + draw(w, longest));
        *lba = draw(w, blocks);
    }
    if (*nr > blocks - *lba)
        *nr = (uint32_t)(blocks - *lba);
}

static bool start_one(struct writer *w, struct op *op)
{
    enum op_kind kind = draw_kind(w);
    uint64_t lba = 0;
    uint32_t nr = 0;

    if (kind == OP_FLUSH) {
        if (w->flush_under_way)
            return false;
        w->flush_under_way = true;
        model_flush_sent(&w->m);
    } else {
        draw_range(w, &lba, &nr);
        if (overlaps(w, lba, nr) || (is_write(kind) && !model_can_write(&w->m, lba, nr)))
            return false;
    }
    *op = (struct op){.w = w, .kind = kind, .used = true, .lba = lba, .nr = nr, .buf = op->buf};
    if (is_write(kind)) {
        bool zero = kind != OP_WRITE && kind != OP_WRITE_FUA;
        uint32_t gen = zero ? GEN_ZERO : w->m.next_gen++;
        model_begin(&w->m, lba, nr, gen);
        for (uint32_t i = 0; !zero && i < nr; i++)
            model_fill(&w->m, lba + i, gen, op->buf + (size_t)i * MODEL_BLOCK_BYTES);
    }
    submit(w, op);
    return true;
}

static unsigned under_way(const struct writer *w)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->o.depth; i++)
        n += w->ops[i].used;
    return n;
}

/* ---- the loop ------------------------------------------------------------------------ */

static void reconnect(struct writer *w)
{
    w->lost++;
    w->cancelling = true;
    iscsi_destroy_context(w->iscsi);
    w->cancelling = false;
    for (unsigned i = 0; i < w->o.depth; i++)
        if (w->ops[i].used)
            finish(w, &w->ops[i], false);
    model_lost(&w->m);
    connect_or_fail(w);
}

static void turn(struct writer *w, int wait_ms)
{
    struct pollfd p = {.fd = iscsi_get_fd(w->iscsi), .events = (short)iscsi_which_events(w->iscsi)};
    int n = poll(&p, 1, wait_ms);

    if (n < 0 && errno != EINTR)
        fail("poll", strerror(errno));
    if (iscsi_service(w->iscsi, n > 0 ? p.revents : 0) < 0)
        w->broken = true;
    if (w->broken)
        reconnect(w);
}

static bool should_stop(const struct writer *w, double end, uint64_t started)
{
    return stop_signal || now_s() > end || (w->o.max_ops && started >= w->o.max_ops) ||
           (w->o.stop_path && access(w->o.stop_path, F_OK) == 0);
}

static void run_random(struct writer *w)
{
    double begin = now_s(), end = begin + w->o.seconds;
    uint64_t started = 0;

    while (!should_stop(w, end, started)) {
        for (unsigned i = 0; i < w->o.depth && !w->broken; i++) {
            if (w->o.rate && (double)started > (now_s() - begin) * w->o.rate)
                break;
            if (!w->ops[i].used && start_one(w, &w->ops[i]))
                started++;
        }
        turn(w, 10);
        if (started >= w->o.depth && w->o.ready_path) {
            close(open(w->o.ready_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
            w->o.ready_path = NULL;
        }
    }
    while (under_way(w))
        turn(w, 10);
}

/* One operation alone, tried again until it is acknowledged. */
static void alone(struct writer *w, enum op_kind kind, uint64_t lba, uint32_t nr)
{
    struct op *op = &w->ops[0];
    uint64_t before = w->counts[kind], errors = w->errors;

    while (w->counts[kind] == before && w->errors == errors) {
        if (kind == OP_FLUSH) {
            w->flush_under_way = true;
            model_flush_sent(&w->m);
        }
        *op = (struct op){.w = w, .kind = kind, .used = true, .lba = lba, .nr = nr, .buf = op->buf};
        submit(w, op);
        while (op->used)
            turn(w, 10);
    }
}

static void read_all(struct writer *w)
{
    for (uint64_t lba = 0; lba < w->m.nr_blocks && w->errors == 0;) {
        uint64_t left = w->m.nr_blocks - lba;
        uint32_t nr = left < CHECK_BYTES / MODEL_BLOCK_BYTES ? (uint32_t)left
                                                             : CHECK_BYTES / MODEL_BLOCK_BYTES;
        alone(w, OP_READ, lba, nr);
        lba += nr;
    }
}

static void read_file(struct writer *w, const char *path)
{
    uint8_t *buf = w->ops[0].buf;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char why[512];

    if (fd < 0)
        fail(path, strerror(errno));
    for (uint64_t lba = 0; lba < w->m.nr_blocks; lba++) {
        ssize_t n = pread(fd, buf, MODEL_BLOCK_BYTES, (off_t)(lba * MODEL_BLOCK_BYTES));
        if (n != (ssize_t)MODEL_BLOCK_BYTES)
            fail(path, "shorter than the model's disk");
        if (model_check(&w->m, lba, 1, buf, why, sizeof(why)) && w->wrong++ < 3)
            fprintf(stderr, "verify-writer: WRONG: %s\n", why);
    }
    close(fd);
}

/* ---- commands ------------------------------------------------------------------------ */

static int report(const struct writer *w)
{
    for (unsigned k = 0; k < NR_OPS; k++)
        printf("%s %" PRIu64 " ", op_names[k], w->counts[k]);
    printf("lost-connections %" PRIu64 " busy %" PRIu64 " errors %" PRIu64 " wrong-blocks %" PRIu64
           "\n",
           w->lost, w->busy, w->errors, w->wrong);
    return w->wrong || (w->errors && !w->o.tolerate) ? 1 : 0;
}

static int cmd_run(struct writer *w)
{
    connect_or_fail(w);
    if (access(w->o.model_path, F_OK) == 0)
        model_load(&w->m, w->o.model_path);
    else
        model_init(&w->m, w->o.seed, lun_blocks(w));
    if (w->o.base_path)
        model_open_base(&w->m, w->o.base_path);
    if (w->m.nr_blocks != lun_blocks(w))
        fail(w->o.model_path, "is the model of a disk of another size");
    run_random(w);
    alone(w, OP_FLUSH, 0, 0);
    read_all(w);
    alone(w, OP_FLUSH, 0, 0); /* what was uncertain is known by now: make it stable */
    model_save(&w->m, w->o.model_path);
    iscsi_logout_sync(w->iscsi);
    return report(w);
}

static int cmd_check(struct writer *w)
{
    model_load(&w->m, w->o.model_path);
    if (w->o.base_path)
        model_open_base(&w->m, w->o.base_path);
    if (strncmp(w->url_text, "iscsi://", 8) == 0) {
        connect_or_fail(w);
        read_all(w);
        iscsi_logout_sync(w->iscsi);
    } else {
        read_file(w, w->url_text);
    }
    if (w->o.update)
        model_save(&w->m, w->o.model_path);
    return report(w);
}

static int cmd_expect(struct writer *w)
{
    uint8_t block[MODEL_BLOCK_BYTES];
    uint64_t unknown = 0;

    model_load(&w->m, w->o.model_path);
    if (w->o.base_path)
        model_open_base(&w->m, w->o.base_path);
    FILE *f = fopen(w->o.out_path, "wb");
    if (!f)
        fail(w->o.out_path, strerror(errno));
    for (uint64_t lba = 0; lba < w->m.nr_blocks; lba++) {
        const struct model_block *b = &w->m.blocks[lba];
        unknown += !b->known;
        model_fill(&w->m, lba, b->cand[b->nr_cand - 1], block);
        if (fwrite(block, sizeof(block), 1, f) != 1)
            fail(w->o.out_path, strerror(errno));
    }
    if (fclose(f) != 0)
        fail(w->o.out_path, strerror(errno));
    if (unknown)
        fprintf(stderr, "verify-writer: %" PRIu64 " blocks are not certain in the model\n",
                unknown);
    return unknown ? 1 : 0;
}

static int usage(void)
{
    fprintf(
        stderr,
        "usage: verify-writer run --model FILE [--base RAW] [--seed N] [--seconds S] [--ops N]\n"
        "           [--depth N] [--max-io BYTES] [--rate OPS/S] [--timeout S] [--reconnect S]\n"
        "           [--stop-file FILE] [--ready-file FILE] [--no-unmap] [--aligned]\n"
        "           [--tolerate-errors] URL\n"
        "       verify-writer check --model FILE [--base RAW] [--update] URL|RAWFILE\n"
        "       verify-writer expect --model FILE [--base RAW] --out RAWFILE\n");
    return 2;
}

enum opt_type { T_STR, T_U64, T_UINT, T_REAL, T_FLAG };

#define OPT(name, type, field)                      \
    {                                               \
        name, type, offsetof(struct options, field) \
    }
static const struct opt_spec {
    const char *name;
    enum opt_type type;
    size_t offset;
} opt_specs[] = {
    OPT("--model", T_STR, model_path),
    OPT("--base", T_STR, base_path),
    OPT("--out", T_STR, out_path),
    OPT("--stop-file", T_STR, stop_path),
    OPT("--ready-file", T_STR, ready_path),
    OPT("--seed", T_U64, seed),
    OPT("--ops", T_U64, max_ops),
    OPT("--seconds", T_REAL, seconds),
    OPT("--reconnect", T_REAL, reconnect_s),
    OPT("--depth", T_UINT, depth),
    OPT("--max-io", T_UINT, max_io_bytes),
    OPT("--rate", T_UINT, rate),
    OPT("--timeout", T_UINT, timeout_s),
    OPT("--no-unmap", T_FLAG, no_unmap),
    OPT("--aligned", T_FLAG, aligned),
    OPT("--update", T_FLAG, update),
    OPT("--tolerate-errors", T_FLAG, tolerate),
};

/* Takes options off argv from @i on; index of the first argument that is none, or -1. */
static int take_options(struct options *o, int argc, char **argv, int i)
{
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        const struct opt_spec *spec = NULL;
        for (size_t k = 0; k < sizeof(opt_specs) / sizeof(opt_specs[0]); k++)
            if (strcmp(argv[i], opt_specs[k].name) == 0)
                spec = &opt_specs[k];
        if (!spec || (spec->type != T_FLAG && i + 1 == argc))
            return -1;
        void *field = (char *)o + spec->offset;
        if (spec->type == T_FLAG)
            *(bool *)field = true;
        else if (spec->type == T_STR)
            *(const char **)field = argv[++i];
        else if (spec->type == T_U64)
            *(uint64_t *)field = strtoull(argv[++i], NULL, 0);
        else if (spec->type == T_UINT)
            *(unsigned *)field = (unsigned)strtoul(argv[++i], NULL, 0);
        else
            *(double *)field = strtod(argv[++i], NULL);
    }
    return i;
}

int main(int argc, char **argv)
{
    struct writer w = {.o = {.seed = 1,
                             .seconds = 10,
                             .reconnect_s = 30,
                             .depth = 8,
                             .max_io_bytes = 512 << 10,
                             .timeout_s = 60}};
    int status;

    if (argc < 2)
        return usage();
    const char *command = argv[1];
    int first = take_options(&w.o, argc, argv, 2);
    bool wants_url = strcmp(command, "expect") != 0;
    if (first < 0 || first + wants_url != argc || !w.o.model_path || w.o.depth < 1 ||
        w.o.depth > MAX_DEPTH || w.o.max_io_bytes < 4096 || w.o.max_io_bytes > CHECK_BYTES)
        return usage();
    w.url_text = wants_url ? argv[first] : NULL;
    w.rng = w.o.seed * 0x9e3779b97f4a7c15ull | 1;
    for (unsigned i = 0; i < MAX_DEPTH; i++)
        if (!(w.ops[i].buf = malloc(CHECK_BYTES)))
            fail("memory", "buffers");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    if (strcmp(command, "run") == 0)
        status = cmd_run(&w);
    else if (strcmp(command, "check") == 0)
        status = cmd_check(&w);
    else if (strcmp(command, "expect") == 0 && w.o.out_path)
        status = cmd_expect(&w);
    else
        return usage();
    model_free(&w.m);
    if (w.iscsi)
        iscsi_destroy_context(w.iscsi);
    for (unsigned i = 0; i < MAX_DEPTH; i++)
        free(w.ops[i].buf);
    return status;
}
