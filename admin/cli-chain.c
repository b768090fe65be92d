/* SPDX-License-Identifier: BSD-3-Clause */
/* Showing chains: the list, and one as a tree from the top layer down. */
#include "admin/cli.h"

#include <string.h>

#include "util/size.h"

#define MAX_INDENT 12 /* a chain of a thousand layers still fits a terminal */

static void put_layer_name(const json_t *layer)
{
    const char *name = cli_str(layer, cli_bool(layer, "local") ? "filename" : "url");
    const char *slash = cli_bool(layer, "local") ? strrchr(name, '/') : NULL;

    cli_put(slash ? slash + 1 : name);
}

static void put_layer_facts(const json_t *layer, const json_t *source)
{
    printf("  %s, ", cli_str(layer, "format"));
    cli_put_size(cli_int(layer, "virtual-size"));
    if (json_object_get(layer, "allocated")) {
        fputs(", ", stdout);
        cli_put_size(cli_int(layer, "allocated"));
        fputs(" on disk", stdout);
    }
    fputs(cli_bool(layer, "sealed") ? ", sealed" : ", not sealed", stdout);
    if (cli_bool(layer, "local")) {
        fputs(", here: ", stdout);
        cli_put(cli_str(layer, "filename"));
    } else if (cli_bool(source, "connected")) {
        fputs(", remote, connected", stdout);
    } else {
        printf(", remote, away for %lld s", cli_int(source, "down-seconds"));
    }
}

static void put_holders(const json_t *holders, int indent, const char *what)
{
    const json_t *h;
    size_t i;

    json_array_foreach (holders, i, h) {
        printf("%*s%s held by ", indent, "", what);
        cli_put(cli_str(h, "initiator"));
        printf(", key %s\n", cli_str(h, "key"));
    }
}

static void put_tree(const json_t *chain)
{
    const json_t *layers = json_object_get(chain, "layers");
    const json_t *source = json_object_get(chain, "source");
    int depth = 0;

    for (size_t i = json_array_size(layers); i-- > 0; depth++) {
        const json_t *layer = json_array_get(layers, i);
        int indent = 2 + 3 * (depth < MAX_INDENT ? depth : MAX_INDENT);

        printf("%*s%s", indent, "", depth ? "└─ " : "");
        if (cli_bool(layer, "local") && cli_int(layer, "lun"))
            printf("LUN %lld  ", cli_int(layer, "lun"));
        else if (cli_bool(layer, "local"))
            fputs("no LUN  ", stdout); /* half committed */
        put_layer_name(layer);
        put_layer_facts(layer, source);
        putchar('\n');
        put_holders(json_object_get(layer, "held-by"), indent + 3, "is");
    }
}

static void put_sessions(const json_t *chain)
{
    const json_t *s, *list = json_object_get(chain, "sessions");
    size_t i;

    if (!json_array_size(list))
        puts("  nobody is logged in");
    json_array_foreach (list, i, s) {
        printf("  logged in: ");
        cli_put(cli_str(s, "initiator"));
        printf(" from %s (session %lld)\n", cli_str(s, "peer"), cli_int(s, "id"));
    }
}

static void put_progress(const json_t *chain)
{
    const json_t *job = json_object_get(chain, "job"), *source = json_object_get(chain, "source");

    printf("  local: %.1f %%", cli_real(chain, "local-percent"));
    if (job)
        printf(", %s job '%s' is %s", cli_str(job, "type"), cli_str(job, "id"),
               cli_str(job, "status"));
    if (source) {
        fputs(", read from the source: ", stdout);
        cli_put_size(cli_int(source, "bytes-read"));
    }
    if (json_object_get(chain, "source-bytes-read")) {
        fputs(", read from the source that was dropped: ", stdout);
        cli_put_size(cli_int(chain, "source-bytes-read"));
    }
    putchar('\n');
    if (source && !cli_bool(source, "connected")) {
        fputs("  the source is away: ", stdout);
        cli_put(cli_str(source, "last-error"));
        putchar('\n');
    }
}

static void put_settings(const json_t *settings)
{
    const char *key, *before = "  settings: ";
    json_t *value;

    json_object_foreach ((json_t *)settings, key, value) {
        printf("%s%s ", before, key);
        cli_put_setting(value);
        before = ", ";
    }
    if (json_object_size(settings))
        putchar('\n');
}

/* What it holds at its source. */
static void put_holds(const json_t *holds)
{
    const json_t *luns = json_object_get(holds, "luns"), *lun;
    size_t i;

    if (!holds)
        return;
    if (json_object_get(holds, "problem")) {
        fputs("  the source does not know for good that it is needed: ", stdout);
        cli_put(cli_str(holds, "problem"));
        putchar('\n');
        return;
    }
    if (json_array_size(luns)) {
        fputs(cli_bool(holds, "registered") ? "  holds LUN" : "  is to hold LUN", stdout);
    } else {
        luns = json_object_get(holds, "giving-back");
        fputs("  needs no more, which the source does not know yet: LUN", stdout);
    }
    json_array_foreach (luns, i, lun)
        printf("%s %lld", i ? "," : "", (long long)json_integer_value(lun));
    printf(" of the source, key 0x%016llx\n", (unsigned long long)cli_int(holds, "key"));
}

static void put_chain(const json_t *chain)
{
    printf("%s  %s\n", cli_str(chain, "name"), cli_str(chain, "target"));
    if (json_object_get(chain, "error")) {
        fputs("  NOT SERVED: ", stdout);
        cli_put(cli_str(chain, "error"));
        putchar('\n');
    }
    printf("  LUN 0 is the disk, ");
    cli_put_size(cli_int(chain, "virtual-size"));
    printf(", %s; layers are shown %s; generation %lld\n",
           cli_bool(chain, "writable") ? "writable" : "read-only", cli_str(chain, "view"),
           cli_int(chain, "generation"));
    put_tree(chain);
    put_holders(json_object_get(chain, "held-by"), 2, "LUN 0 is");
    put_progress(chain);
    put_settings(json_object_get(chain, "settings"));
    put_holds(json_object_get(chain, "holds"));
    put_sessions(chain);
}

int cli_run_chain_show(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *list;
    int status = cli_execute(cli, cmd->execute, args, &list);

    if (list)
        put_chain(json_array_get(list, 0));
    json_decref(list);
    return status;
}

int cli_run_chain_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *list, *c;
    int status = cli_execute(cli, cmd->execute, args, &list);
    size_t i;

    json_array_foreach (list, i, c) {
        printf("%s  %s  ", cli_str(c, "name"), cli_str(c, "target"));
        cli_put_size(cli_int(c, "virtual-size"));
        printf("  %s  %zu layers  %.1f %% local  %zu sessions", cli_str(c, "state"),
               json_array_size(json_object_get(c, "layers")), cli_real(c, "local-percent"),
               json_array_size(json_object_get(c, "sessions")));
        if (json_object_get(c, "error")) {
            fputs("  ", stdout);
            cli_put(cli_str(c, "error"));
        }
        putchar('\n');
    }
    json_decref(list);
    return status;
}

static void put_warnings(const json_t *chain)
{
    const json_t *w;
    size_t i;

    json_array_foreach (json_object_get(chain, "warnings"), i, w) {
        fputs("cowtgt: warning: ", stderr);
        cli_put_to(stderr, json_string_value(w));
        fputc('\n', stderr);
    }
}

int cli_run_chain_export(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *chain;
    int status = cli_execute(cli, cmd->execute, args, &chain);

    if (chain) {
        put_warnings(chain);
        printf("%s is served as %s\n", cli_str(chain, "name"), cli_str(chain, "target"));
        put_tree(chain);
    }
    json_decref(chain);
    return status;
}

int cli_run_chain_snapshot(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *chain;
    int status = cli_execute(cli, cmd->execute, args, &chain);

    if (chain) {
        printf("%s: new writes go to ", cli_str(chain, "name"));
        cli_put(cli_str(chain, "image"));
        putchar('\n');
        put_tree(chain);
    }
    json_decref(chain);
    return status;
}

int cli_run_chain_pull(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *chain;
    int status = cli_execute(cli, cmd->execute, args, &chain);
    const json_t *job = json_object_get(chain, "job");

    if (chain) {
        put_warnings(chain);
        printf("%s is served as %s, local data in ", cli_str(chain, "name"),
               cli_str(chain, "target"));
        cli_put(cli_str(chain, "image"));
        putchar('\n');
    }
    if (job)
        printf("job '%s' copies in the background: cowtgt job wait %s\n", cli_str(job, "id"),
               cli_str(job, "id"));
    json_decref(chain);
    return status;
}
