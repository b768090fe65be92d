/* SPDX-License-Identifier: BSD-3-Clause */
/* Persistent reservations without commands: what each action makes of a state, and its bytes. */
#include "target/pr.h"

#include <stdlib.h>
#include <string.h>
#include "tests/unit/ctest.h"
#include "util/byteorder.h"

static struct pr pr;
static struct pr_change change;

static struct pr_port port(unsigned n)
{
    struct pr_port p = {
        .name = "iqn.2026-11.com.example:a", .isid = {0x80, 0, 0, 0, 0, 0}, .rel_port = 1};

    p.name[strlen(p.name) - 1] = (char)('a' + n);
    p.isid[5] = (uint8_t)n;
    return p;
}

static void start(void)
{
    struct pr none = {0};

    pr_release(&pr);
    pr_copy(&pr, &none);
}

static enum pr_result act(unsigned who, enum pr_action action, uint64_t key, uint64_t action_key,
                          uint8_t type)
{
    struct pr_request rq = {
        .action = action, .type = type, .key = key, .action_key = action_key, .from = port(who)};

    return pr_apply(&pr, &rq, &change);
}

static void enroll(unsigned who, uint64_t key)
{
    CHECK_EQ(act(who, PR_REGISTER, 0, key, 0), PR_OK);
}

static bool forbids(unsigned who, bool write)
{
    struct pr_port p = port(who);

    return pr_forbids(&pr, p.name, p.isid, p.rel_port, write);
}

static int told(unsigned who)
{
    struct pr_port p = port(who);

    for (unsigned i = 0; i < change.nr; i++) {
        if (pr_port_equal(&change.news[i].port, p.name, p.isid, p.rel_port))
            return (int)change.news[i].kind;
    }
    return -1;
}

TEST(pr, registering_needs_the_key_that_is_registered)
{
    start();
    CHECK_EQ(act(0, PR_REGISTER, 5, 1, 0), PR_CONFLICT);
    enroll(0, 1);
    CHECK_EQ(act(0, PR_REGISTER, 9, 2, 0), PR_CONFLICT);
    CHECK_EQ(act(0, PR_REGISTER, 1, 2, 0), PR_OK);
    CHECK_EQ(pr.regs[0].key, 2);
    CHECK_EQ(act(0, PR_REGISTER_AND_IGNORE, 77, 3, 0), PR_OK);
    CHECK_EQ(pr.regs[0].key, 3);
    CHECK_EQ(pr.generation, 3);
    CHECK_EQ(act(0, PR_REGISTER, 3, 0, 0), PR_OK);
    CHECK_EQ(pr.nr, 0);
}

TEST(pr, one_name_with_two_isids_is_two_ports)
{
    struct pr_port a = port(0);

    start();
    enroll(0, 1);
    a.isid[5] = 9;
    CHECK(!pr_find(&pr, a.name, a.isid, a.rel_port));
}

static enum pr_result register_at(uint16_t rel_port, enum pr_action action, uint64_t key,
                                  uint64_t action_key, bool all_ports)
{
    static const uint16_t ports[] = {1, 2, 7};
    struct pr_request rq = {.action = action,
                            .key = key,
                            .action_key = action_key,
                            .from = port(0),
                            .all_ports = all_ports,
                            .ports = ports,
                            .nr_ports = 3};

    rq.from.rel_port = rel_port;
    return pr_apply(&pr, &rq, &change);
}

TEST(pr, one_initiator_at_two_target_ports_is_two_nexuses)
{
    struct pr_port a = port(0);

    start();
    enroll(0, 1);
    CHECK(!pr_find(&pr, a.name, a.isid, 2));
    CHECK_EQ(register_at(2, PR_REGISTER, 1, 5, false), PR_CONFLICT);
    CHECK_EQ(register_at(2, PR_REGISTER, 0, 5, false), PR_OK);
    CHECK_EQ(pr.nr, 2);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_EXCLUSIVE_ACCESS), PR_OK);
    CHECK(!pr_forbids(&pr, a.name, a.isid, 1, true));
    CHECK(pr_forbids(&pr, a.name, a.isid, 2, false));
}

TEST(pr, all_target_ports_registers_at_each)
{
    struct pr_port a = port(0);

    start();
    CHECK_EQ(register_at(2, PR_REGISTER, 0, 5, true), PR_OK);
    CHECK_EQ(pr.nr, 3);
    CHECK(pr_find(&pr, a.name, a.isid, 1) && pr_find(&pr, a.name, a.isid, 7));
    CHECK_EQ(pr.generation, 1);
    CHECK_EQ(register_at(7, PR_REGISTER, 5, 6, false), PR_OK);
    CHECK_EQ(register_at(2, PR_REGISTER, 5, 8, true), PR_CONFLICT); /* the one at 7 has another */
    CHECK_EQ(register_at(2, PR_REGISTER_AND_IGNORE, 0, 8, true), PR_OK);
    CHECK_EQ(pr_find(&pr, a.name, a.isid, 7)->key, 8);
    CHECK_EQ(register_at(1, PR_REGISTER, 8, 0, true), PR_OK);
    CHECK_EQ(pr.nr, 0);
}

TEST(pr, all_target_ports_goes_for_the_others_of_spec_i_pt_too)
{
    static const uint16_t ports[] = {1, 2};
    struct pr_port more[] = {port(1), port(2)};
    struct pr_request rq = {.action = PR_REGISTER,
                            .action_key = 9,
                            .from = port(0),
                            .others = more,
                            .nr_others = 2,
                            .all_ports = true,
                            .ports = ports,
                            .nr_ports = 2};

    start();
    CHECK_EQ(pr_apply(&pr, &rq, &change), PR_OK);
    CHECK_EQ(pr.nr, 6);
    CHECK(pr_find(&pr, more[1].name, more[1].isid, 2));
}

TEST(pr, types_forbid_what_the_standard_says)
{
    /* for an unregistered, a registered port: reading, writing */
    static const struct {
        uint8_t type;
        bool u_read, u_write, r_read, r_write;
    } rows[] = {
        {PR_WRITE_EXCLUSIVE, false, true, false, true},
        {PR_EXCLUSIVE_ACCESS, true, true, true, true},
        {PR_WRITE_EXCLUSIVE_RO, false, true, false, false},
        {PR_EXCLUSIVE_ACCESS_RO, true, true, false, false},
        {PR_WRITE_EXCLUSIVE_AR, false, true, false, false},
        {PR_EXCLUSIVE_ACCESS_AR, true, true, false, false},
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        start();
        enroll(0, 1);
        enroll(1, 2);
        CHECK_EQ(act(0, PR_RESERVE, 1, 0, rows[i].type), PR_OK);
        CHECK(!forbids(0, false) && !forbids(0, true));
        CHECK_EQ(forbids(1, false), rows[i].r_read);
        CHECK_EQ(forbids(1, true), rows[i].r_write);
        CHECK_EQ(forbids(2, false), rows[i].u_read);
        CHECK_EQ(forbids(2, true), rows[i].u_write);
    }
}

TEST(pr, a_second_reservation_conflicts_and_the_same_again_does_not)
{
    start();
    enroll(0, 1);
    enroll(1, 2);
    CHECK_EQ(act(2, PR_RESERVE, 0, 0, PR_WRITE_EXCLUSIVE), PR_CONFLICT);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_WRITE_EXCLUSIVE), PR_OK);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_WRITE_EXCLUSIVE), PR_OK);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_EXCLUSIVE_ACCESS), PR_CONFLICT);
    CHECK_EQ(act(1, PR_RESERVE, 2, 0, PR_WRITE_EXCLUSIVE), PR_CONFLICT);
    CHECK_EQ(pr.generation, 2); /* RESERVE does not count */
}

TEST(pr, only_the_holder_releases_and_with_the_right_type)
{
    start();
    enroll(0, 1);
    enroll(1, 2);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_WRITE_EXCLUSIVE_RO), PR_OK);
    CHECK_EQ(act(1, PR_RELEASE, 2, 0, PR_WRITE_EXCLUSIVE_RO), PR_OK);
    CHECK_EQ(pr.type, PR_WRITE_EXCLUSIVE_RO);
    CHECK_EQ(act(0, PR_RELEASE, 1, 0, PR_WRITE_EXCLUSIVE), PR_BAD_RELEASE);
    CHECK_EQ(act(0, PR_RELEASE, 1, 0, PR_WRITE_EXCLUSIVE_RO), PR_OK);
    CHECK_EQ(pr.type, PR_NONE);
    CHECK_EQ(told(1), PR_NEWS_RELEASED);
    CHECK_EQ(told(0), -1);
}

TEST(pr, a_holder_that_unregisters_gives_up_what_is_not_shared)
{
    start();
    enroll(0, 1);
    enroll(1, 2);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_EXCLUSIVE_ACCESS_RO), PR_OK);
    CHECK_EQ(act(0, PR_REGISTER, 1, 0, 0), PR_OK);
    CHECK_EQ(pr.type, PR_NONE);
    CHECK_EQ(told(1), PR_NEWS_RELEASED);

    enroll(0, 1);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_EXCLUSIVE_ACCESS_AR), PR_OK);
    CHECK_EQ(act(0, PR_REGISTER, 1, 0, 0), PR_OK);
    CHECK_EQ(pr.type, PR_EXCLUSIVE_ACCESS_AR);
    CHECK_EQ(act(1, PR_REGISTER, 2, 0, 0), PR_OK); /* the last one */
    CHECK_EQ(pr.type, PR_NONE);
}

TEST(pr, clear_tells_all_others)
{
    start();
    enroll(0, 1);
    enroll(1, 2);
    enroll(2, 3);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_WRITE_EXCLUSIVE), PR_OK);
    CHECK_EQ(act(1, PR_CLEAR, 2, 0, 0), PR_OK);
    CHECK_EQ(pr.nr, 0);
    CHECK_EQ(pr.type, PR_NONE);
    CHECK_EQ(told(0), PR_NEWS_PREEMPTED);
    CHECK_EQ(told(2), PR_NEWS_PREEMPTED);
    CHECK_EQ(told(1), -1);
}

TEST(pr, preempting_the_holder_takes_the_reservation)
{
    start();
    enroll(0, 1);
    enroll(1, 2);
    enroll(2, 3);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_WRITE_EXCLUSIVE_RO), PR_OK);
    CHECK_EQ(act(1, PR_PREEMPT, 2, 1, PR_EXCLUSIVE_ACCESS), PR_OK);
    CHECK_EQ(pr.type, PR_EXCLUSIVE_ACCESS);
    CHECK_EQ(pr.nr, 2);
    CHECK(!forbids(1, true) && forbids(2, false) && forbids(0, false));
    CHECK_EQ(told(0), PR_NEWS_REGISTRATION_PREEMPTED);
    CHECK_EQ(told(2), PR_NEWS_RELEASED); /* the type changed */
}

TEST(pr, preempting_another_leaves_the_reservation)
{
    start();
    enroll(0, 1);
    enroll(1, 2);
    enroll(2, 3);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_WRITE_EXCLUSIVE), PR_OK);
    CHECK_EQ(act(1, PR_PREEMPT, 2, 3, PR_EXCLUSIVE_ACCESS), PR_OK);
    CHECK_EQ(pr.type, PR_WRITE_EXCLUSIVE);
    CHECK(!forbids(0, true) && forbids(1, true));
    CHECK_EQ(told(2), PR_NEWS_REGISTRATION_PREEMPTED);
    CHECK_EQ(act(1, PR_PREEMPT, 2, 99, PR_EXCLUSIVE_ACCESS), PR_CONFLICT);
    CHECK_EQ(act(1, PR_PREEMPT, 2, 0, PR_EXCLUSIVE_ACCESS), PR_BAD_KEY);
}

TEST(pr, key_0_preempts_a_shared_reservation_and_everyone)
{
    start();
    enroll(0, 1);
    enroll(1, 2);
    enroll(2, 3);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_WRITE_EXCLUSIVE_AR), PR_OK);
    CHECK_EQ(act(1, PR_PREEMPT, 2, 0, PR_NONE), PR_BAD_TYPE); /* a reservation has one */
    CHECK_EQ(act(1, PR_PREEMPT, 2, 0, PR_WRITE_EXCLUSIVE), PR_OK);
    CHECK_EQ(pr.nr, 1);
    CHECK_EQ(pr.type, PR_WRITE_EXCLUSIVE);
    CHECK(!forbids(1, true));
    CHECK_EQ(change.nr, 2);
}

TEST(pr, taking_registrations_away_needs_no_type)
{
    start();
    enroll(0, 1);
    enroll(1, 2);
    CHECK_EQ(act(0, PR_PREEMPT, 1, 2, PR_NONE), PR_OK);
    CHECK_EQ(pr.nr, 1);
    CHECK_EQ(told(1), PR_NEWS_REGISTRATION_PREEMPTED);
    CHECK_EQ(act(0, PR_PREEMPT, 1, 1, PR_NONE), PR_OK); /* its own, too, and it isn't told */
    CHECK_EQ(pr.nr, 0);
    CHECK_EQ(change.nr, 0);
}

TEST(pr, a_holder_that_preempts_itself_changes_the_type)
{
    start();
    enroll(0, 1);
    enroll(1, 1);
    enroll(2, 2);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_WRITE_EXCLUSIVE), PR_OK);
    CHECK_EQ(act(0, PR_PREEMPT, 1, 1, PR_EXCLUSIVE_ACCESS_RO), PR_OK);
    CHECK_EQ(pr.type, PR_EXCLUSIVE_ACCESS_RO);
    CHECK_EQ(pr.nr, 2);
    CHECK_EQ(told(0), -1);
    CHECK_EQ(told(1), PR_NEWS_REGISTRATION_PREEMPTED);
    CHECK_EQ(told(2), PR_NEWS_RELEASED); /* who stays hears that the type is another */
    CHECK_EQ(act(0, PR_PREEMPT, 1, 1, PR_EXCLUSIVE_ACCESS_RO), PR_OK);
    CHECK_EQ(change.nr, 0);
}

TEST(pr, of_a_shared_reservation_the_last_registrant_takes_it_along)
{
    start();
    enroll(0, 1);
    enroll(1, 2);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_EXCLUSIVE_ACCESS_AR), PR_OK);
    CHECK_EQ(act(1, PR_PREEMPT, 2, 9, PR_EXCLUSIVE_ACCESS_AR), PR_CONFLICT); /* nobody's key */
    CHECK_EQ(act(1, PR_PREEMPT, 2, 1, PR_EXCLUSIVE_ACCESS_AR), PR_OK);
    CHECK_EQ(pr.type, PR_EXCLUSIVE_ACCESS_AR);
    CHECK_EQ(pr.nr, 1);
    CHECK_EQ(act(1, PR_REGISTER, 2, 0, 0), PR_OK);
    CHECK_EQ(pr.type, PR_NONE);
}

TEST(pr, who_is_not_registered_and_registers_nothing_changes_nothing)
{
    struct pr_port other = port(3);
    struct pr_request rq = {.action = PR_REGISTER,
                            .from = port(0),
                            .aptpl = true,
                            .spec_i_pt = true,
                            .others = &other,
                            .nr_others = 1};

    start();
    CHECK_EQ(pr_apply(&pr, &rq, &change), PR_OK);
    CHECK(!pr.nr && !pr.aptpl);
    rq.action_key = 1;
    CHECK_EQ(pr_apply(&pr, &rq, &change), PR_OK);
    CHECK_EQ(pr.nr, 2);
    rq.key = 1;
    rq.nr_others = 0;
    CHECK_EQ(pr_apply(&pr, &rq, &change), PR_BAD_PORT); /* SPEC_I_PT from one that is registered */
}

TEST(pr, reserve_and_release_are_harmless_for_those_whom_the_reservation_lets_in)
{
    static const struct {
        uint8_t type;
        bool registered;
    } table[] = {{PR_WRITE_EXCLUSIVE, false},   {PR_EXCLUSIVE_ACCESS, false},
                 {PR_WRITE_EXCLUSIVE_RO, true}, {PR_EXCLUSIVE_ACCESS_RO, true},
                 {PR_WRITE_EXCLUSIVE_AR, true}, {PR_EXCLUSIVE_ACCESS_AR, true}};

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct pr_port p[] = {port(0), port(1), port(2)};

        start();
        enroll(0, 1);
        enroll(1, 2);
        CHECK(!pr_takes_reserve(&pr, p[0].name, p[0].isid, 1)); /* nothing is reserved */
        CHECK_EQ(act(0, PR_RESERVE, 1, 0, table[i].type), PR_OK);
        CHECK(pr_takes_reserve(&pr, p[0].name, p[0].isid, 1));
        CHECK_EQ(pr_takes_reserve(&pr, p[1].name, p[1].isid, 1), table[i].registered);
        CHECK(!pr_takes_reserve(&pr, p[2].name, p[2].isid, 1));
    }
}

TEST(pr, register_and_move_hands_the_reservation_over)
{
    struct pr_port to = port(1), self = port(0);
    struct pr_request rq = {.action = PR_REGISTER_AND_MOVE,
                            .key = 1,
                            .action_key = 7,
                            .unregister = true,
                            .from = port(0),
                            .others = &to,
                            .nr_others = 1};

    start();
    enroll(0, 1);
    CHECK_EQ(pr_apply(&pr, &rq, &change), PR_NOTHING_TO_MOVE);
    CHECK_EQ(act(0, PR_RESERVE, 1, 0, PR_WRITE_EXCLUSIVE), PR_OK);
    rq.others = &self;
    CHECK_EQ(pr_apply(&pr, &rq, &change), PR_BAD_PORT);
    rq.others = &to;
    CHECK_EQ(pr_apply(&pr, &rq, &change), PR_OK);
    CHECK_EQ(pr.nr, 1);
    CHECK_EQ(pr.regs[0].key, 7);
    CHECK_EQ(pr.type, PR_WRITE_EXCLUSIVE);
    CHECK(!forbids(1, true) && forbids(0, true));
}

TEST(pr, registrations_are_bounded)
{
    struct pr_request rq = {.action = PR_REGISTER, .action_key = 1, .from = port(0)};

    start();
    for (unsigned i = 0; i < PR_MAX_REGISTRATIONS; i++) {
        rq.from.isid[4] = (uint8_t)i;
        CHECK_EQ(pr_apply(&pr, &rq, &change), PR_OK);
    }
    rq.from.isid[3] = 1;
    CHECK_EQ(pr_apply(&pr, &rq, &change), PR_NO_ROOM);
}

/* ---- bytes ---- */

static uint8_t list[512], answer[PR_IN_MAX_BYTES];
static struct pr_port others[PR_MAX_OTHER_PORTS];

static uint32_t put_tid(uint8_t *b, const char *text)
{
    size_t len = (strlen(text) + 1 + 3) & ~(size_t)3;

    memset(b, 0, 4 + len);
    b[0] = 0x45;
    put_be16(b + 2, (uint16_t)len);
    memcpy(b + 4, text, strlen(text));
    return (uint32_t)(4 + len);
}

static enum pr_parse parse(enum pr_action action, uint32_t len, struct pr_request *rq)
{
    uint16_t field;

    memset(rq, 0, sizeof(*rq));
    rq->action = action;
    return pr_parse_out(list, len, rq, others, &field);
}

TEST(pr, parameter_lists_are_24_bytes_and_bounded)
{
    struct pr_request rq;

    memset(list, 0, sizeof(list));
    put_be64(list, 1);
    put_be64(list + 8, 2);
    list[20] = 0x05;
    CHECK_EQ(parse(PR_REGISTER, 24, &rq), PR_PARSED);
    CHECK(rq.key == 1 && rq.action_key == 2 && rq.aptpl && !rq.nr_others);
    CHECK_EQ(parse(PR_REGISTER, 23, &rq), PR_BAD_LENGTH);
    CHECK_EQ(parse(PR_REGISTER, 25, &rq), PR_BAD_LENGTH);
    list[20] = 0x08;
    CHECK_EQ(parse(PR_REGISTER_AND_IGNORE, 24, &rq), PR_BAD_FIELD);
}

TEST(pr, spec_i_pt_names_more_ports)
{
    struct pr_request rq;
    uint32_t len = 28;

    memset(list, 0, sizeof(list));
    list[20] = 0x08;
    len += put_tid(list + len, "iqn.2026-11.com.example:x,i,0x80123456789a");
    len += put_tid(list + len, "iqn.2026-11.com.example:y,i,0x1");
    put_be32(list + 24, len - 28);
    CHECK_EQ(parse(PR_REGISTER, len, &rq), PR_PARSED);
    REQUIRE(rq.nr_others == 2);
    CHECK_STR(others[0].name, "iqn.2026-11.com.example:x");
    CHECK_EQ(others[0].isid[0], 0x80);
    CHECK_EQ(others[0].isid[5], 0x9a);
    CHECK_EQ(others[1].isid[5], 0x01);
    CHECK_EQ(parse(PR_REGISTER, len - 4, &rq), PR_BAD_LENGTH);
    list[28 + 4 + 27] = 'z'; /* no separator any more */
    CHECK_EQ(parse(PR_REGISTER, len, &rq), PR_BAD_FIELD);
}

TEST(pr, a_transport_id_without_isid_is_a_device_and_no_place_to_move_to)
{
    struct pr_request rq;
    uint32_t len = 28;

    memset(list, 0, sizeof(list));
    list[20] = 0x08;
    len += put_tid(list + len, "iqn.2026-11.com.example:x,i,0x1");
    list[len] = 0;
    len += put_tid(list + len, "iqn.2026-11.com.example:y");
    list[len - 32] = 0x05;
    put_be32(list + 24, len - 28);
    CHECK_EQ(parse(PR_REGISTER, len, &rq), PR_PARSED);
    CHECK_EQ(rq.nr_others, 2);
    CHECK_EQ(rq.whole_devices, 2);
    CHECK_STR(others[1].name, "iqn.2026-11.com.example:y");
    memset(list, 0, sizeof(list));
    len = 24 + put_tid(list + 24, "iqn.2026-11.com.example:y");
    put_be32(list + 20, len - 24);
    list[24] = 0x05;
    CHECK_EQ(parse(PR_REGISTER_AND_MOVE, len, &rq), PR_BAD_FIELD);
    len = 24 + put_tid(list + 24, "iqn.2026-11.com.example:y,i,0x2");
    put_be32(list + 20, len - 24);
    CHECK_EQ(parse(PR_REGISTER_AND_MOVE, len, &rq), PR_PARSED);
    list[24] = 0x05; /* says that there is none, and there is one */
    CHECK_EQ(parse(PR_REGISTER_AND_MOVE, len, &rq), PR_BAD_FIELD);
}

TEST(pr, full_status_gives_each_registrant_with_its_transport_id)
{
    struct pr_request rq;
    size_t len;

    start();
    enroll(0, 0x1122334455667788);
    enroll(1, 2);
    CHECK_EQ(act(1, PR_RESERVE, 2, 0, PR_WRITE_EXCLUSIVE), PR_OK);
    memset(answer, 0, sizeof(answer));
    len = pr_put_full_status(&pr, answer);
    CHECK_EQ(get_be32(answer), 2);
    CHECK_EQ(get_be32(answer + 4), len - 8);
    CHECK_EQ(get_be64(answer + 8), 0x1122334455667788);
    CHECK_EQ(answer[8 + 12], 0);
    /* what is told can be given back */
    memset(list, 0, sizeof(list));
    memcpy(list + 18, answer + 8 + 18, 2);
    put_be32(list + 20, get_be32(answer + 8 + 20));
    memcpy(list + 24, answer + 8 + 24, get_be32(answer + 8 + 20));
    CHECK_EQ(parse(PR_REGISTER_AND_MOVE, 24 + get_be32(answer + 8 + 20), &rq), PR_PARSED);
    CHECK_STR(others[0].name, port(0).name);
    CHECK_EQ(others[0].rel_port, 1);
}

TEST(pr, saved_text_comes_back_and_damage_is_found)
{
    struct pr back = {0};
    char *text;

    start();
    enroll(0, 0xabc);
    enroll(1, 2);
    strcpy(pr.regs[1].port.name, "iqn.2026-11.com.example:caf\xc3\xa9,%");
    pr.regs[1].port.rel_port = 0x102;
    CHECK_EQ(act(0, PR_RESERVE, 0xabc, 0, PR_EXCLUSIVE_ACCESS_RO), PR_OK);
    text = pr_to_text(&pr, 7);
    REQUIRE(text);
    CHECK(lun_text_is_of(text, 7) && !lun_text_is_of(text, 70));
    CHECK_EQ(pr_from_text(&back, text, 8), -22);
    CHECK_EQ(pr_from_text(&back, text, 7), 0);
    CHECK_EQ(back.nr, 2);
    CHECK(back.aptpl && back.type == PR_EXCLUSIVE_ACCESS_RO && back.regs[0].holder);
    CHECK_STR(back.regs[1].port.name, pr.regs[1].port.name);
    CHECK(back.regs[0].port.rel_port == 1 && back.regs[1].port.rel_port == 0x102);
    pr_release(&back);
    for (size_t cut = 0; cut < strlen(text); cut++) {
        char part[512];

        memcpy(part, text, cut);
        part[cut] = '\0';
        if (!pr_from_text(&back, part, 7)) { /* a shorter name, or one registration: whole lines */
            CHECK(back.nr >= 1);
            pr_release(&back);
        }
    }
    CHECK(pr_from_text(&back, "7:1:0000000000000001/800000000000/a", 7));      /* no holder */
    CHECK(pr_from_text(&back, "7:2:*0000000000000001/800000000000/a", 7));     /* no such type */
    CHECK(pr_from_text(&back, "7:0:0000000000000001/800000000000@0000/a", 7)); /* no such port */
    free(text);
    pr_release(&pr);
}
