/* SPDX-License-Identifier: BSD-3-Clause */
/* config save and apply: reading and writing the file, asking the daemon, doing the steps. */
#include "admin/cli-config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/cli.h"

/* Written whole, then moved into place: never half a configuration. */
static int write_file(const char *path, const char *text)
{
    char tmp[PATH_MAX];
    size_t len = strlen(text);
    int fd, bad;

    if (snprintf(tmp, sizeof(tmp), "%s.tmp", path) >= (int)sizeof(tmp))
        return cli_fail("%s: the name is too long", path);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return cli_fail("can't write %s: %s", tmp, strerror(errno));
    bad = write(fd, text, len) != (ssize_t)len || write(fd, "\n", 1) != 1 || fsync(fd);
    bad |= close(fd);
    if (!bad && !rename(tmp, path))
        return CLI_OK;
    bad = errno;
    unlink(tmp);
    return cli_fail("can't write %s: %s", path, strerror(bad));
}

static int save(struct cli *cli, const char *path)
{
    json_t *now, *item;
    int status = cli_ask(cli, "query-config", NULL, &now);
    char *text;
    size_t i;

    if (!now)
        return status;
    json_array_foreach (json_object_get(now, "chains"), i, item)
        json_object_del(item, "now");
    json_array_foreach (json_object_get(now, "portals"), i, item)
        json_object_del(item, "fixed");
    text = json_dumps(now, JSON_INDENT(2));
    json_decref(now);
    if (!text)
        return cli_fail("out of memory");
    if (!strcmp(path, "-"))
        puts(text);
    else
        status = write_file(path, text);
    free(text);
    return status;
}

/* 1: an account has the secret already; 0: it has not; < 0: an error was said. */
static int is_same(struct cli *cli, json_t *args)
{
    json_t *ret;

    if (!args)
        return 0;
    if (cli_ask(cli, "account-compare", args, &ret))
        return -1;
    args = json_object_get(ret, "same");
    json_decref(ret);
    return json_is_true(args);
}

static int do_step(struct cli *cli, const json_t *step, bool dry_run, unsigned *nr)
{
    const char *execute = cli_str(step, "execute");
    int same = is_same(cli, json_object_get(step, "unless-same")), status;
    json_t *ret;

    if (same)
        return same < 0 ? CLI_FAILED : CLI_OK;
    printf("%s%s\n", !*execute ? "note: " : dry_run ? "would: " : "", cli_str(step, "says"));
    fflush(stdout);
    if (!*execute)
        return CLI_OK;
    ++*nr;
    if (dry_run)
        return CLI_OK;
    status = cli_ask(cli, execute, json_object_get(step, "arguments"), &ret);
    json_decref(ret);
    return status;
}

static int do_steps(struct cli *cli, const json_t *steps, bool dry_run)
{
    const json_t *step;
    unsigned nr = 0;
    size_t i;

    json_array_foreach (steps, i, step) {
        if (do_step(cli, step, dry_run, &nr))
            return cli_fail("stopped there: what comes before is done, and apply can be run again");
    }
    if (!nr)
        puts("nothing to do");
    return CLI_OK;
}

static json_t *read_config(const char *path)
{
    json_error_t jerr;
    json_t *wanted = !strcmp(path, "-") ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &jerr)
                                        : json_load_file(path, JSON_REJECT_DUPLICATES, &jerr);
    struct error err = ERROR_INIT;

    if (!wanted) {
        if (jerr.line < 0)
            cli_fail("%s", jerr.text); /* it could not be opened, and says so with its name */
        else
            cli_fail("%s: line %d: %s", path, jerr.line, jerr.text);
    } else if (config_check(wanted, &err)) {
        cli_fail("%s: %s", path, err.msg);
        json_decref(wanted);
        wanted = NULL;
    }
    return wanted;
}

static int apply(struct cli *cli, const json_t *args)
{
    const struct config_opts opts = {
        .prune = cli_bool(args, "prune"),
        .replace = cli_bool(args, "replace"),
        .force = cli_bool(args, "force"),
    };
    json_t *wanted = read_config(cli_str(args, "file")), *now, *steps;
    struct error err = ERROR_INIT;
    int status;

    if (!wanted)
        return CLI_FAILED;
    status = cli_ask(cli, "query-config", NULL, &now);
    if (now) {
        steps = json_array();
        status = config_plan(now, wanted, &opts, steps, &err)
                     ? cli_fail("nothing was done: %s", err.msg)
                     : do_steps(cli, steps, cli_bool(args, "dry-run"));
        json_decref(steps);
    }
    json_decref(now);
    json_decref(wanted);
    return status;
}

int cli_run_config(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    return !strcmp(cmd->verb, "save") ? save(cli, cli_str(args, "file")) : apply(cli, args);
}
