/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * x-inject-error, x-clear-errors: faults on purpose below a layer's image, for tests of how the
 * daemon and what depends on it take them. Nothing of them outlives the process.
 */
#include <errno.h>
#include <string.h>

#include "admin/chains.h"
#include "admin/commands.h"
#include "lun-backends/inject.h"

#define NS_PER_MS    UINT64_C(1000000)
#define DELAY_MAX_MS 60000

static const char *const operation_names[] = {"read",  "write",  "zeroes", "discard",
                                              "flush", "status", "any",    NULL};
static const unsigned operation_verbs[] = {
    1u << BLK_READ,  1u << BLK_WRITE,  1u << BLK_WRITE_ZEROES,   1u << BLK_DISCARD,
    1u << BLK_FLUSH, 1u << BLK_STATUS, (1u << BLK_NR_VERBS) - 1,
};
static const char *const error_names[] = {"EIO", "ENOSPC", "EDQUOT", "none", NULL};
static const int error_numbers[] = {EIO, ENOSPC, EDQUOT, 0};
static const char *const part_names[] = {
    [INJECT_ANY] = "any", [INJECT_DATA] = "data", [INJECT_METADATA] = "metadata", NULL};

static const struct cmd_arg inject_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = "operation", .type = ARG_STRING, .choices = operation_names},
    {.name = "errno", .type = ARG_STRING, .optional = true, .choices = error_names},
    {.name = "part", .type = ARG_STRING, .optional = true, .choices = part_names},
    {.name = "offset", .type = ARG_SIZE, .optional = true},
    {.name = "size", .type = ARG_SIZE, .optional = true},
    {.name = "skip", .type = ARG_SIZE, .optional = true},
    {.name = "once", .type = ARG_BOOL, .optional = true},
    {.name = "delay-ms", .type = ARG_SIZE, .optional = true},
    {.name = NULL},
};

static const struct cmd_arg clear_args[] = {
    {.name = "device", .type = ARG_STRING},
    {.name = NULL},
};

/* Which of @names; the first where nothing is given. */
static unsigned choice(const char *const *names, const char *given)
{
    unsigned i = 0;

    while (given && names[i + 1] && strcmp(names[i], given))
        i++;
    return i;
}

static int rule_from(const json_t *args, struct inject_rule *rule, struct error *err)
{
    uint64_t offset = arg_size(args, "offset", 0);
    uint64_t size = arg_size(args, "size", UINT64_MAX - offset);
    uint64_t delay_ms = arg_size(args, "delay-ms", 0);

    if (!size)
        return error_set(err, EINVAL, "'size' is 0: no request touches that");
    if (delay_ms > DELAY_MAX_MS)
        return error_set(err, EINVAL, "'delay-ms' ends at %u", DELAY_MAX_MS);
    *rule = (struct inject_rule){
        .verbs = operation_verbs[choice(operation_names, arg_string(args, "operation"))],
        .part = (enum inject_part)choice(part_names, arg_string(args, "part")),
        .start_bytes = offset,
        .end_bytes = size > UINT64_MAX - offset ? UINT64_MAX : offset + size,
        .skip = arg_size(args, "skip", 0),
        .once = arg_bool(args, "once", false),
        .error = error_numbers[choice(error_names, arg_string(args, "errno"))],
        .delay_ns = delay_ms * NS_PER_MS,
    };
    return 0;
}

/* A chain's name means its top layer. */
static struct blk_node *layer_node(const struct chain *c, const char *device, struct error *err)
{
    for (unsigned i = 0; i < c->nr_layers; i++) {
        if (!strcmp(c->layers[i].node->name, device))
            return c->layers[i].node;
    }
    if (c->nr_layers)
        return chain_top(c)->node;
    error_set(err, EINVAL, "chain '%s' is not served", c->rec->name);
    return NULL;
}

/* The chain claimed and its layer's node, or NULL. */
static struct blk_node *claim_layer(struct daemon *d, const json_t *args, struct chain **c,
                                    struct error *err)
{
    const char *device = arg_string(args, "device");
    struct blk_node *node;

    *c = chain_lookup_device(d, device, err);
    if (!*c || chain_claim(*c, "errors are being injected", err))
        return NULL;
    node = layer_node(*c, device, err);
    if (!node)
        chain_release(*c);
    return node;
}

static json_t *run_inject(struct daemon *d, const json_t *args, struct error *err)
{
    struct blk_node *node, *inject;
    struct inject_rule rule;
    struct chain *c;
    int ret;

    if (rule_from(args, &rule, err))
        return NULL;
    node = claim_layer(d, args, &c, err);
    if (!node)
        return NULL;
    ret = co_inject_insert(node, &inject, err);
    if (!ret)
        ret = inject_add_rule(inject, &rule, err);
    chain_release(c);
    return ret ? NULL : json_object();
}

static json_t *run_clear(struct daemon *d, const json_t *args, struct error *err)
{
    struct chain *c;
    struct blk_node *node = claim_layer(d, args, &c, err), *inject;
    uint64_t hits;

    if (!node)
        return NULL;
    inject = inject_node_below(node);
    hits = inject ? inject_hits(inject) : 0;
    co_inject_remove(node);
    chain_release(c);
    return json_pack("{s:I}", "hits", (json_int_t)hits);
}

const struct command inject_commands[] = {
    {"x-inject-error", "for tests: fails or delays requests of a layer's image file", inject_args,
     run_inject},
    {"x-clear-errors", "for tests: takes all rules of x-inject-error away again", clear_args,
     run_clear},
    {NULL, NULL, NULL, NULL},
};
