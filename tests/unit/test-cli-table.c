/* SPDX-License-Identifier: BSD-3-Clause */
/* The tool's table of commands: complete, without duplicates, and parsed as it says. */
#include <string.h>

#include "admin/cli.h"
#include "tests/unit/ctest.h"

/* The table names its runners; only what they are called for needs a daemon. */
#define RUNNER(name)                                                   \
    int name(struct cli *cli, const struct cli_cmd *cmd, json_t *args) \
    {                                                                  \
        (void)cli;                                                     \
        (void)cmd;                                                     \
        (void)args;                                                    \
        return CLI_FAILED;                                             \
    }
RUNNER(cli_run_plain)
RUNNER(cli_run_chain_export)
RUNNER(cli_run_chain_commit)
RUNNER(cli_run_chain_mirror)
RUNNER(cli_run_chain_snapshot)
RUNNER(cli_run_chain_pull)
RUNNER(cli_run_chain_list)
RUNNER(cli_run_chain_show)
RUNNER(cli_run_job_list)
RUNNER(cli_run_job_show)
RUNNER(cli_run_job_wait)
RUNNER(cli_run_job_cancel)
RUNNER(cli_run_throttle_list)
RUNNER(cli_run_discover)
RUNNER(cli_run_account_list)
RUNNER(cli_run_session_list)
RUNNER(cli_run_event_follow)
RUNNER(cli_run_completion)
RUNNER(cli_run_config)
RUNNER(cli_run_portal_list)
RUNNER(cli_run_log_list)
RUNNER(cli_run_status)
RUNNER(cli_run_qmp)
RUNNER(cli_run_image)

static const struct cli_cmd *find(const char *noun, const char *verb)
{
    for (const struct cli_cmd *c = cli_commands; c->noun; c++) {
        if (!strcmp(c->noun, noun) && c->verb && !strcmp(c->verb, verb))
            return c;
    }
    return NULL;
}

static json_t *parse(const char *noun, const char *verb, int argc, const char *const *argv,
                     struct error *err)
{
    return cli_parse(find(noun, verb), argc, (char **)argv, err);
}

TEST(cli_table, every_command_has_help_and_a_runner)
{
    for (const struct cli_cmd *c = cli_commands; c->noun; c++) {
        CHECK(c->help && *c->help);
        CHECK(c->run);
        CHECK(c->run != cli_run_plain || c->execute);
    }
}

TEST(cli_table, no_command_is_there_twice)
{
    for (const struct cli_cmd *a = cli_commands; a->noun; a++) {
        for (const struct cli_cmd *b = a + 1; b->noun; b++) {
            CHECK(strcmp(a->noun, b->noun) || !a->verb || !b->verb || strcmp(a->verb, b->verb));
            CHECK(strcmp(a->noun, b->noun) || (a->verb && b->verb));
        }
    }
}

TEST(cli_table, options_are_well_formed)
{
    for (const struct cli_cmd *c = cli_commands; c->noun; c++) {
        for (const struct cli_arg *a = c->options; a && a->name; a++) {
            bool flag = a->kind == CLI_TRUE || a->kind == CLI_FALSE;

            CHECK(!strncmp(a->name, "--", 2) || (a->name[0] == '-' && strlen(a->name) == 2));
            CHECK(flag == !a->metavar);
            CHECK(a->key && a->help && *a->help);
            for (const struct cli_arg *b = a + 1; b->name; b++)
                CHECK(strcmp(a->name, b->name));
        }
        for (const struct cli_arg *a = c->positionals; a && a->name; a++)
            CHECK((a->required || !a[1].name) && a->key && a->help && *a->name != '-');
    }
}

TEST(cli_parse, options_anywhere_and_in_both_forms)
{
    static const char *const argv[] = {
        "--speed",     "1.5M",    "vm1",     "--allow=iqn.a:1", "iscsi://h/iqn.x:y",
        "--no-stream", "--allow", "iqn.a:2", "--into=/d"};
    struct error err = ERROR_INIT;
    json_t *args = parse("chain", "pull", 9, argv, &err), *want;

    REQUIRE(args);
    want = json_pack("{s:i, s:s, s:[s,s], s:s, s:b, s:s}", "speed", 1536 * 1024, "name", "vm1",
                     "allow", "iqn.a:1", "iqn.a:2", "url", "iscsi://h/iqn.x:y", "stream", 0, "into",
                     "/d");
    CHECK(json_equal(args, want));
    json_decref(want);
    json_decref(args);
}

TEST(cli_parse, letters_as_getopt_takes_them)
{
    static const char *const argv[] = {"-pqOqcow2", "-f", "raw", "a", "-o", "x=1", "-oy=2", "b"};
    struct error err = ERROR_INIT;
    json_t *args = parse("image", "convert", 8, argv, &err), *want;

    REQUIRE(args);
    want = json_pack("{s:b, s:b, s:s, s:s, s:[s,s], s:[s,s]}", "progress", 1, "quiet", 1,
                     "target-format", "qcow2", "format", "raw", "filenames", "a", "b", "options",
                     "x=1", "y=2");
    CHECK(json_equal(args, want));
    json_decref(want);
    json_decref(args);
}

TEST(cli_parse, a_negative_size_is_no_option)
{
    static const char *const argv[] = {"-q", "a", "-1G"};
    struct error err = ERROR_INIT;
    json_t *args = parse("image", "resize", 3, argv, &err);

    REQUIRE(args);
    CHECK_STR(cli_str(args, "size"), "-1G");
    json_decref(args);
}

TEST(cli_parse, paths_become_absolute)
{
    static const char *const argv[] = {"vm1", "image.qcow2"};
    struct error err = ERROR_INIT;
    json_t *args = parse("chain", "export", 2, argv, &err);

    REQUIRE(args);
    CHECK_EQ(cli_str(args, "image")[0], '/');
    CHECK(strstr(cli_str(args, "image"), "/image.qcow2"));
    json_decref(args);
}

TEST(cli_parse, refuses_what_does_not_fit)
{
    static const struct {
        const char *noun, *verb, *argv[4];
        int argc;
    } bad[] = {
        {"chain", "export", {"vm1"}, 1},
        {"chain", "export", {"vm1", "a", "b"}, 3},
        {"chain", "export", {"vm1", "a", "--nonsense"}, 3},
        {"chain", "export", {"vm1", "a", "--writable=yes"}, 3},
        {"chain", "export", {"vm1", "a", "--target"}, 3},
        {"chain", "pull", {"vm1", "iscsi://h/iqn.x:y"}, 2}, /* --into is missing */
        {"job", "set-speed", {"vm1", "fast"}, 2},
        {"job", "set-speed", {"vm1", "10X"}, 2},
        {"session", "close", {"-1"}, 1},
        {"session", "close", {"1x"}, 1},
        {"chain", "show", {"\xff\xfe"}, 1},
    };

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error err = ERROR_INIT;
        json_t *args = parse(bad[i].noun, bad[i].verb, bad[i].argc, bad[i].argv, &err);

        CHECK(!args);
        CHECK(*err.msg);
        json_decref(args);
    }
}

TEST(cli_parse, two_dashes_end_the_options)
{
    static const char *const argv[] = {"--", "--odd-name"};
    struct error err = ERROR_INIT;
    json_t *args = parse("chain", "show", 2, argv, &err);

    REQUIRE(args);
    CHECK_STR(cli_str(args, "name"), "--odd-name");
    json_decref(args);
}
