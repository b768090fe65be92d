/* SPDX-License-Identifier: BSD-3-Clause */
/* What is to be done so that a daemon is as a configuration says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/cli-config.h"
#include "tests/unit/ctest.h"

static json_t *parse(const char *text)
{
    return json_loads(text, 0, NULL);
}

/* The commands of the plan, with spaces between; "?" for a remark, "E" if there is none. */
static const char *plan_with(const char *now_text, const char *wanted_text,
                             const struct config_opts *opts)
{
    static char out[512];
    json_t *now = parse(now_text), *wanted = parse(wanted_text), *steps = json_array(), *step;
    struct error err = ERROR_INIT;
    size_t i;

    strcpy(out, "");
    if (!now || !wanted || config_check(wanted, &err) ||
        config_plan(now, wanted, opts, steps, &err))
        strcpy(out, "E");
    json_array_foreach (steps, i, step) {
        const char *execute = json_string_value(json_object_get(step, "execute"));

        strcat(out, *out ? " " : "");
        strcat(out, execute ? execute : "?");
    }
    json_decref(steps);
    json_decref(now);
    json_decref(wanted);
    return out;
}

static const char *plan(const char *now, const char *wanted)
{
    return plan_with(now, wanted, &(struct config_opts){0});
}

#define NOW(chain)  "{\"chains\": [" chain "], \"portals\": []}"
#define WANT(chain) "{\"version\": 1, \"chains\": [" chain "]}"
#define X           "\"name\": \"x\", \"target\": \"iqn.2026-11.a:x\", \"image\": \"/x\""
#define IS          "\"now\": {\"kind\": \"export\", \"layers\": [\"/x\"]}"

TEST(config, nothing_differs_nothing_is_done)
{
    CHECK_STR(plan(NOW("{" X "," IS "}"), WANT("{" X "}")), "");
    CHECK_STR(plan(NOW("{" X ",\"block-size\":4096," IS "}"),
                   WANT("{" X ",\"block-size\":4096,\"view\":\"flat\",\"writable\":false}")),
              "");
}

TEST(config, a_chain_that_is_not_there_is_exported)
{
    CHECK_STR(plan(NOW(""), WANT("{" X "}")), "chain-export");
    CHECK_STR(plan(NOW(""), WANT("{\"name\":\"x\",\"pull\":{\"url\":\"u\",\"into\":\"/d\"}}")),
              "chain-pull");
    CHECK_STR(
        plan(NOW(""), WANT("{" X ",\"throttle\":{\"bps\":9},\"settings\":{\"label\":\"l\"}}")),
        "chain-export chain-set block_set_io_throttle");
}

TEST(config, a_chain_never_stands_open)
{
    const char *wanted = WANT("{" X ",\"accounts\":[{\"user\":\"u\",\"secret-file\":\"/s\"}]}");
    json_t *now = parse(NOW("")), *want = parse(wanted), *steps = json_array();
    struct error err = ERROR_INIT;
    const json_t *args;

    REQUIRE(!config_plan(now, want, &(struct config_opts){0}, steps, &err));
    args = json_object_get(json_array_get(steps, 0), "arguments");
    CHECK_STR(json_string_value(json_object_get(args, "user")), "u");
    CHECK_STR(json_string_value(json_object_get(args, "secret-file")), "/s");
    json_decref(now);
    json_decref(want);
    json_decref(steps);
}

TEST(config, what_changes_in_use_is_changed)
{
    CHECK_STR(plan(NOW("{" X ",\"allow\":[\"a\",\"b\"]," IS "}"),
                   WANT("{" X ",\"allow\":[\"b\",\"a\"]}")),
              "");
    CHECK_STR(plan(NOW("{" X ",\"allow\":[\"a\"]," IS "}"), WANT("{" X "}")), "chain-access");
    CHECK_STR(
        plan(NOW("{" X ",\"mask\":[\"i=1\",\"k=2\"]," IS "}"), WANT("{" X ",\"mask\":[\"i=3\"]}")),
        "lun-mask lun-unmask");
    CHECK_STR(plan(NOW("{" X ",\"redirect\":{\"to\":\"h\",\"permanently\":false}," IS "}"),
                   WANT("{" X "}")),
              "chain-redirect");
    CHECK_STR(plan(NOW("{" X ",\"throttle\":{\"group\":\"x\",\"bps\":5}," IS "}"),
                   WANT("{" X ",\"throttle\":{\"bps\":5,\"iops\":0}}")),
              "");
    CHECK_STR(plan(NOW("{" X ",\"throttle\":{\"group\":\"x\",\"bps\":5}," IS "}"), WANT("{" X "}")),
              "block_set_io_throttle");
    CHECK_STR(plan(NOW("{" X ",\"settings\":{\"label\":\"a\"}," IS "}"),
                   WANT("{" X ",\"settings\":{\"label\":\"a\"}}")),
              "");
}

TEST(config, accounts_come_before_others_go)
{
    CHECK_STR(plan(NOW("{" X ",\"accounts\":[{\"user\":\"a\"}]," IS "}"),
                   WANT("{" X ",\"accounts\":[{\"user\":\"b\",\"secret-file\":\"/s\"}]}")),
              "account-add account-remove");
    CHECK_STR(plan(NOW("{" X ",\"accounts\":[{\"user\":\"a\"}]," IS "}"), WANT("{" X "}")), "");
    CHECK_STR(plan(NOW("{" X ",\"accounts\":[{\"user\":\"a\"}]," IS "}"),
                   WANT("{" X ",\"accounts\":[]}")),
              "account-remove");
    CHECK_STR(plan(NOW("{" X "," IS "}"), WANT("{" X ",\"accounts\":[{\"user\":\"b\"}]}")), "E");
}

TEST(config, what_cannot_change_in_use_is_refused_until_asked_for)
{
    const char *now = NOW("{" X "," IS "}"), *wanted = WANT("{" X ",\"view\":\"delta\"}");

    CHECK_STR(plan(now, wanted), "E");
    CHECK_STR(plan_with(now, wanted, &(struct config_opts){.replace = true}),
              "chain-remove chain-export");
}

TEST(config, a_live_snapshot_is_no_difference)
{
    CHECK_STR(plan(NOW("{\"name\":\"x\",\"image\":\"/sn1\",\"format\":\"qcow2\",\"now\":{\"kind\":"
                       "\"export\",\"layers\":[\"/x\",\"/sn1\"]}}"),
                   WANT("{\"name\":\"x\",\"image\":\"/x\",\"format\":\"raw\"}")),
              "");
}

TEST(config, a_pull_that_has_ended_is_no_difference)
{
    CHECK_STR(plan(NOW("{\"name\":\"x\",\"image\":\"/d/x\",\"writable\":true,"
                       "\"now\":{\"kind\":\"pull\",\"layers\":[\"/d/x\"]}}"),
                   WANT("{\"name\":\"x\",\"pull\":{\"url\":\"u\",\"into\":\"/d\"}}")),
              "");
}

TEST(config, what_the_file_does_not_have_stays_until_pruned)
{
    CHECK_STR(plan(NOW("{" X "," IS "}"), WANT("")), "?");
    CHECK_STR(plan_with(NOW("{" X "," IS "}"), WANT(""), &(struct config_opts){.prune = true}),
              "chain-remove");
    CHECK_STR(plan(NOW("{" X "," IS "}"), "{\"version\": 1}"), "");
}

#define PORTALS(now, wanted) \
    plan("{\"portals\":[" now "]}", "{\"version\":1,\"portals\":[" wanted "]}")

TEST(config, portals)
{
    CHECK_STR(PORTALS("{\"portal\":\"10.0.0.1:3260\"}", "{\"portal\":\"10.0.0.1\"}"), "");
    CHECK_STR(PORTALS("{\"portal\":\"[::1]:3260\"}", "{\"portal\":\"0:0::1\"}"), "");
    CHECK_STR(PORTALS("{\"portal\":\"10.0.0.1:3260\"}", "{\"portal\":\"10.0.0.2\"}"),
              "portal-add portal-remove");
    CHECK_STR(PORTALS("{\"portal\":\"10.0.0.1:9\",\"fixed\":true}", "{\"portal\":\"10.0.0.2\"}"),
              "portal-add ?");
    CHECK_STR(PORTALS("{\"portal\":\"10.0.0.1:9\",\"advertise\":\"h:9\"}",
                      "{\"portal\":\"10.0.0.1:9\",\"advertise\":\"h\"}"),
              "");
    CHECK_STR(PORTALS("{\"portal\":\"10.0.0.1:9\"}", "{\"portal\":\"10.0.0.1:9\",\"group\":2}"),
              "portal-remove portal-add");
}

static void check_refused(const char *text, const char *what)
{
    struct error err = ERROR_INIT;
    json_t *j = parse(text);

    CHECK(j && config_check(j, &err) == -EINVAL);
    CHECK(strstr(err.msg, what) != NULL);
    json_decref(j);
}

TEST(config, mistakes_are_named)
{
    check_refused("[]", "object");
    check_refused("{\"chains\":[]}", "version");
    check_refused("{\"version\":2}", "version");
    check_refused("{\"version\":1,\"chian\":[]}", "chian");
    check_refused(WANT("{\"name\":\"x\"}"), "either");
    check_refused(WANT("{" X ",\"allow\":\"a\"}"), "allow");
    check_refused(WANT("{" X ",\"accounts\":[{}]}"), "user");
    check_refused(WANT("{" X ",\"accounts\":[{\"user\":\"u\",\"secret-file\":\"s\"}]}"), "path");
    check_refused(WANT("{" X "},{" X "}"), "twice");
    check_refused(WANT("{\"name\":\"x\",\"pull\":{\"url\":\"u\"}}"), "into");
}
