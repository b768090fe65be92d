/* SPDX-License-Identifier: BSD-3-Clause */
/* Chain records and the state file: what is saved comes back, what is damaged is refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/state.h"
#include "tests/unit/ctest.h"
#include "util/loop.h"
#include "util/workers.h"

static char dir[512], path[600];

/* A state directory of its own for each test. */
static void fresh_dir(const char *name)
{
    snprintf(dir, sizeof(dir), "%s/%s", ctest_tmpdir(), name);
    snprintf(path, sizeof(path), "%s/state.json", dir);
}

struct saving {
    struct state *state;
    struct error err;
    int ret;
    bool done;
};

static void co_save(void *arg)
{
    struct saving *s = arg;

    s->ret = co_state_save(s->state, &s->err);
    s->done = true;
}

static int save(struct state *state)
{
    struct saving s = {.state = state};

    loop_init();
    workers_init(2);
    co_spawn(co_save, &s);
    while (!s.done)
        loop_turn(true);
    workers_fini();
    loop_fini();
    return s.ret;
}

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");

    if (!f)
        abort();
    fputs(text, f);
    fclose(f);
}

static struct chain_record *some_pull(void)
{
    struct chain_record *rec = record_new("pull", "vm-1.a_b");

    uuid_make(&rec->uuid);
    rec->generation = 7;
    record_set(&rec->target, "iqn.2026-11.com.example:vm1");
    record_set(&rec->view, "flat");
    record_set(&rec->path, "/images/vm 1 \"ü\".qcow2");
    record_set(&rec->format, "qcow2");
    record_set(&rec->source_url, "iscsi://10.0.0.1:3260/iqn.2026-11.com.example:x/0");
    string_list_add(&rec->allowed, "iqn.2026-11.com.example:one");
    string_list_add(&rec->allowed, "iqn.2026-11.com.example:two");
    rec->source_bytes = UINT64_C(1) << 45;
    rec->source_timeout_s = 120;
    rec->writable = rec->stream = true;
    rec->speed_bytes = 12345;
    record_set(&rec->stream_on_error, "stop");
    string_list_add(&rec->lun_throttles, "2={\"group\":\"g\"}");
    return rec;
}

TEST(record, comes_back_from_json)
{
    struct chain_record *rec = some_pull(), *back;
    struct error err = ERROR_INIT;
    json_t *j = record_to_json(rec);

    back = record_from_json(j, &err);
    REQUIRE(back);
    CHECK_STR(back->name, rec->name);
    CHECK_STR(back->path, rec->path);
    CHECK_STR(back->source_url, rec->source_url);
    CHECK(!back->source_secret_file);
    CHECK(uuid_equal(&back->uuid, &rec->uuid));
    CHECK_EQ(back->generation, 7);
    CHECK_EQ(back->source_bytes, rec->source_bytes);
    CHECK_EQ(back->allowed.nr, 2);
    CHECK_STR(back->allowed.items[1], "iqn.2026-11.com.example:two");
    CHECK(back->writable && back->stream && !back->copy_on_read);
    CHECK_STR(back->stream_on_error, "stop");
    CHECK_EQ(back->lun_throttles.nr, 1);
    CHECK_STR(back->lun_throttles.items[0], rec->lun_throttles.items[0]);
    CHECK(record_is_pull(back));
    json_decref(j);
    record_free(rec);
    record_free(back);
}

TEST(record, each_missing_or_wrong_member_is_named)
{
    struct chain_record *rec = some_pull();
    json_t *good = record_to_json(rec), *bad;
    const char *key;
    json_t *value;

    json_object_foreach (good, key, value) {
        struct error err = ERROR_INIT;
        struct chain_record *back;

        bad = json_copy(good);
        json_object_set_new(bad, key, json_null());
        back = record_from_json(bad, &err);
        CHECK(!back);
        CHECK(strstr(err.msg, key));
        record_free(back);
        json_decref(bad);
    }
    json_decref(good);
    record_free(rec);
}

TEST(record, unknown_members_are_refused)
{
    struct chain_record *rec = some_pull();
    struct error err = ERROR_INIT;
    json_t *j = record_to_json(rec);

    json_object_set_new(j, "from-the-future", json_true());
    CHECK(!record_from_json(j, &err));
    CHECK(strstr(err.msg, "from-the-future"));
    json_decref(j);
    record_free(rec);
}

TEST(record, names)
{
    char long_name[80];

    CHECK(chain_name_ok("vm1"));
    CHECK(chain_name_ok("A.b_c-9"));
    CHECK(chain_name_ok("_"));
    CHECK(!chain_name_ok(""));
    CHECK(!chain_name_ok(".."));
    CHECK(!chain_name_ok("-x"));
    CHECK(!chain_name_ok("a/b"));
    CHECK(!chain_name_ok("a b"));
    CHECK(!chain_name_ok("ü"));
    memset(long_name, 'x', sizeof(long_name));
    long_name[64] = '\0';
    CHECK(chain_name_ok(long_name));
    long_name[64] = 'x';
    long_name[65] = '\0';
    CHECK(!chain_name_ok(long_name));
}

TEST(state, survives_a_restart)
{
    struct file_identity id = {1, 2, 3, 4, 5, false};
    struct error err = ERROR_INIT;
    struct uuid before, after;
    struct chain_record *rec;
    struct state *s;
    char initiator[224];
    struct stat st;

    fresh_dir("survives");
    REQUIRE(!state_open(dir, &s, &err));
    strcpy(initiator, s->initiator);
    rec = some_pull();
    list_add_tail(&s->chains, &rec->link);
    state_file_uuid(s, "/images/base.raw", &id, &before);
    CHECK_EQ(save(s), 0);
    state_close(s);
    REQUIRE(!stat(path, &st));
    CHECK_EQ(st.st_mode & 07777, 0600);

    REQUIRE(!state_open(dir, &s, &err));
    CHECK_STR(s->initiator, initiator);
    REQUIRE(!list_empty(&s->chains));
    rec = list_first_entry(&s->chains, struct chain_record, link);
    CHECK_STR(rec->name, "vm-1.a_b");
    state_file_uuid(s, "/images/base.raw", &id, &after);
    CHECK(uuid_equal(&before, &after));
    state_close(s);
}

TEST(state, a_file_that_changed_gets_a_new_uuid)
{
    struct file_identity id = {1, 2, 3, 4, 5, false};
    struct error err = ERROR_INIT;
    struct uuid first, again, changed, other_name;
    struct state *s;

    fresh_dir("identity");
    REQUIRE(!state_open(dir, &s, &err));
    state_file_uuid(s, "/a", &id, &first);
    state_file_uuid(s, "/a", &id, &again);
    CHECK(uuid_equal(&first, &again));
    state_file_uuid(s, "/hard-link", &id, &other_name);
    CHECK(uuid_equal(&first, &other_name));
    id.ctime_ns++;
    state_file_uuid(s, "/a", &id, &changed);
    CHECK(!uuid_equal(&first, &changed));
    id.ctime_ns--; /* what it was once does not count */
    state_file_uuid(s, "/a", &id, &again);
    CHECK(!uuid_equal(&first, &again));
    state_close(s);
}

TEST(state, a_device_is_never_known_again)
{
    struct file_identity id = {.dev = 1, .inode = 2, .is_device = true};
    struct error err = ERROR_INIT;
    struct uuid a, b;
    struct state *s;

    fresh_dir("device");
    REQUIRE(!state_open(dir, &s, &err));
    state_file_uuid(s, "/dev/x", &id, &a);
    state_file_uuid(s, "/dev/x", &id, &b);
    CHECK(!uuid_equal(&a, &b));
    state_close(s);
}

TEST(state, a_directory_serves_one_daemon)
{
    struct error err = ERROR_INIT;
    struct state *s, *second;

    fresh_dir("locked");
    REQUIRE(!state_open(dir, &s, &err));
    CHECK(state_open(dir, &second, &err) < 0);
    CHECK_EQ(err.class, ERR_DEVICE_IN_USE);
    CHECK(strstr(err.msg, dir));
    state_close(s);
}

TEST(state, damaged_files_are_refused_by_name)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"version\": 99}",
        "{\"version\": 1}",
        "{\"version\": 1, \"initiator-name\": \"x\", \"chains\": {}, \"files\": []}",
        "{\"version\": 1, \"initiator-name\": \"x\", \"chains\": [{}], \"files\": []}",
        "{\"version\": 1, \"initiator-name\": \"x\", \"chains\": [], \"files\": [{}]}",
        "{\"version\": 1, \"initiator-name\": \"x\", \"chains\": [], \"files\": [], \"more\": 1}",
    };

    fresh_dir("damaged");
    mkdir(dir, 0700);
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct error err = ERROR_INIT;
        struct state *s = NULL;

        write_file(texts[i]);
        CHECK(state_open(dir, &s, &err) < 0);
        CHECK(strstr(err.msg, "state.json"));
    }
}

TEST(state, the_same_chain_twice_is_damage)
{
    struct chain_record *rec = some_pull();
    struct error err = ERROR_INIT;
    struct state *s;
    json_t *root;

    fresh_dir("twice");
    mkdir(dir, 0700);
    root = json_pack("{s:i, s:s, s:[o, o], s:[]}", "version", 1, "initiator-name", "x", "chains",
                     record_to_json(rec), record_to_json(rec), "files");
    REQUIRE(root);
    json_dump_file(root, path, 0);
    json_decref(root);
    record_free(rec);
    CHECK(state_open(dir, &s, &err) < 0);
    CHECK(strstr(err.msg, "twice"));
}

TEST(state, a_left_over_temporary_file_does_no_harm)
{
    struct error err = ERROR_INIT;
    struct state *s;
    char tmp[640];
    FILE *f;

    fresh_dir("leftover");
    REQUIRE(!state_open(dir, &s, &err));
    CHECK_EQ(save(s), 0);
    state_close(s);
    snprintf(tmp, sizeof(tmp), "%s.tmp", path);
    f = fopen(tmp, "w");
    REQUIRE(f);
    fputs("{ half a fi", f);
    fclose(f);
    REQUIRE(!state_open(dir, &s, &err));
    CHECK_EQ(save(s), 0);
    CHECK(access(tmp, F_OK) != 0);
    state_close(s);
}
