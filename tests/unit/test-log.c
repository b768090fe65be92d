/* SPDX-License-Identifier: BSD-3-Clause */
/* Levels of the log by area, and what goes to a journal. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/ctest.h"
#define LOG_AREA "daemon"
#include "util/log.h"

TEST(log, level_for_all)
{
    struct error err = ERROR_INIT;

    CHECK(!log_set_levels("warning", &err));
    CHECK(log_wants(LOG_LVL_WARNING, "iscsi"));
    CHECK(!log_wants(LOG_LVL_NOTICE, "iscsi"));
    CHECK_EQ(log_level_now, LOG_LVL_WARNING);
    log_set_level(LOG_LVL_NOTICE);
}

TEST(log, level_of_one_area)
{
    struct error err = ERROR_INIT;

    CHECK(!log_set_levels("warning,qcow2=debug", &err));
    CHECK(log_wants(LOG_LVL_DEBUG, "qcow2"));
    CHECK(!log_wants(LOG_LVL_NOTICE, "chain"));
    CHECK_EQ(log_level_now, LOG_LVL_DEBUG);
    CHECK(!log_set_levels("qcow2=default", &err));
    CHECK_EQ(log_level_now, LOG_LVL_WARNING);
    log_set_level(LOG_LVL_NOTICE);
}

TEST(log, an_area_may_say_less_than_all)
{
    struct error err = ERROR_INIT;

    CHECK(!log_set_levels("debug,iscsi=error", &err));
    CHECK(!log_wants(LOG_LVL_WARNING, "iscsi"));
    CHECK(log_wants(LOG_LVL_DEBUG, "scsi"));
    log_set_level(LOG_LVL_NOTICE);
}

TEST(log, a_wrong_word_changes_nothing)
{
    struct error err = ERROR_INIT;

    CHECK(log_set_levels("debug,nowhere=info", &err) < 0);
    CHECK(strstr(err.msg, "nowhere") && strstr(err.msg, "qcow2"));
    CHECK_EQ(log_level_now, LOG_LVL_NOTICE);
    CHECK(log_set_levels("loud", &err) < 0);
    CHECK(strstr(err.msg, "debug"));
    CHECK(log_set_levels("", &err) < 0);
    CHECK(log_set_levels("default", &err) < 0);
    CHECK(log_set_levels("qcow2=", &err) < 0);
    CHECK(log_set_levels("info,", &err) < 0);
    CHECK_EQ(log_level_now, LOG_LVL_NOTICE);
}

TEST(log, journal_gets_fields)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct error err = ERROR_INIT;
    char where[256], got[4096] = "";
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/j", ctest_tmpdir());
    REQUIRE(!bind(fd, (struct sockaddr *)&sa, sizeof(sa)));
    snprintf(where, sizeof(where), "journald:%s", sa.sun_path);
    REQUIRE(!log_open(where, &err));
    CHECK(log_is_journal());
    log_warn("a\nPRIORITY=0 %d", 5);
    REQUIRE(recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT) > 0);
    CHECK_STR(got, "MESSAGE=daemon: a?PRIORITY=0 5\nPRIORITY=4\nSYSLOG_IDENTIFIER=cowtgtd\n"
                   "COWTGT_AREA=daemon\n");
    CHECK(!log_open("stderr", &err));
    CHECK(!log_is_journal());
    close(fd);
}

TEST(log, no_journal_is_an_error)
{
    struct error err = ERROR_INIT;

    CHECK(log_open("journald:/nowhere/socket", &err) < 0);
    CHECK(strstr(err.msg, "/nowhere/socket"));
    CHECK(log_open("printer", &err) < 0);
}
