/* SPDX-License-Identifier: BSD-3-Clause */
/* iscsi:// URLs: what is taken, what is refused, and that no secret is ever repeated. */
#include "tests/unit/ctest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lun-backends/remote.h"
#include "util/size.h"

TEST(url, all_parts)
{
    struct iscsi_url u;
    struct error err = ERROR_INIT;

    REQUIRE(!iscsi_url_parse("iscsi://joe@host-1.example:3333/iqn.2026-11.com.example:vm1/7", &u,
                             &err));
    CHECK_STR(u.user, "joe");
    CHECK_STR(u.host, "host-1.example");
    CHECK_EQ(u.port, 3333);
    CHECK_STR(u.target, "iqn.2026-11.com.example:vm1");
    CHECK_EQ(u.lun, 7);
}

TEST(url, defaults)
{
    struct iscsi_url u;
    struct error err = ERROR_INIT;

    REQUIRE(!iscsi_url_parse("iscsi://10.0.0.1/iqn.2026-11.com.example:vm1", &u, &err));
    CHECK_STR(u.user, "");
    CHECK_EQ(u.port, 3260);
    CHECK_EQ(u.lun, -1);
    REQUIRE(!iscsi_url_parse("ISCSI://10.0.0.1/eui.02004567a425678d/", &u, &err));
    CHECK_EQ(u.lun, -1);
}

TEST(url, ipv6)
{
    struct iscsi_url u;
    struct error err = ERROR_INIT;

    REQUIRE(!iscsi_url_parse("iscsi://[fe80::1%eth0]:860/naa.52004567ba64678d/0", &u, &err));
    CHECK_STR(u.host, "fe80::1%eth0");
    CHECK_EQ(u.port, 860);
    REQUIRE(!iscsi_url_parse("iscsi://[::1]/naa.52004567ba64678d", &u, &err));
    CHECK_STR(u.host, "::1");
    CHECK_EQ(u.port, 3260);
}

TEST(url, percent_in_target_is_decoded)
{
    struct iscsi_url u;
    struct error err = ERROR_INIT;

    REQUIRE(!iscsi_url_parse("iscsi://h/iqn.2026-11.com.example%3avm%311", &u, &err));
    CHECK_STR(u.target, "iqn.2026-11.com.example:vm11");
}

TEST(url, refused)
{
    static const char *const bad[] = {
        "",
        "iscsi",
        "iscsi://",
        "http://h/iqn.x",
        "iscsi://h",
        "iscsi:///iqn.2026-11.com.example:vm1",
        "iscsi://h:0/iqn.2026-11.x:y",
        "iscsi://h:65536/iqn.2026-11.x:y",
        "iscsi://h:-1/iqn.2026-11.x:y",
        "iscsi://h:/iqn.2026-11.x:y",
        "iscsi://h:99999999999999999999/iqn.2026-11.x:y",
        "iscsi://h:1x/iqn.2026-11.x:y",
        "iscsi://[::1/iqn.2026-11.x:y",
        "iscsi://[::1]x/iqn.2026-11.x:y",
        "iscsi://[]/iqn.2026-11.x:y",
        "iscsi://[host]/iqn.2026-11.x:y",
        "iscsi://[%%]/iqn.2026-11.x:y",
        "iscsi://::1/iqn.2026-11.x:y",
        "iscsi://h h/iqn.2026-11.x:y",
        "iscsi://@h/iqn.2026-11.x:y",
        "iscsi://h/",
        "iscsi://h//0",
        "iscsi://h/iqn.",
        "iscsi://h/disk1/0",
        "iscsi://h/iqn.2026-11.x:y/16384",
        "iscsi://h/iqn.2026-11.x:y/-1",
        "iscsi://h/iqn.2026-11.x:y/1/2",
        "iscsi://h/iqn.2026-11.x:y/1 ",
        "iscsi://h/iqn.2026-11.x:y/99999999999999999999",
        "iscsi://h/iqn.2026-11.x:y?user=joe",
        "iscsi://h/iqn.2026-11.x%3",
        "iscsi://h/iqn.2026-11.x%zz",
        "iscsi://h/iqn.2026-11.x%00y",
        "iscsi://h/iqn.2026-11.x%2fy",
        "iscsi://h/iqn.2026-11.x y",
        "iscsi://h/iqn.2026-11.x\ny",
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct iscsi_url u;
        struct error err = ERROR_INIT;

        if (iscsi_url_parse(bad[i], &u, &err) != -EINVAL)
            ctest_fail(__FILE__, __LINE__, "accepted: %s", bad[i]);
        CHECK(err.msg[0]);
    }
}

TEST(url, a_password_is_refused_and_not_repeated)
{
    static const char *const urls[] = {
        "iscsi://joe%s3cr3t@h/iqn.2026-11.x:y/0",
        "iscsi://joe:s3cr3t@h/iqn.2026-11.x:y/0",
        "iscsi://joe%s3cr3t@@h h/iqn.2026-11.x:y/0",
    };

    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        struct iscsi_url u;
        struct error err = ERROR_INIT;

        CHECK_EQ(iscsi_url_parse(urls[i], &u, &err), -EINVAL);
        CHECK(!strstr(err.msg, "s3cr3t"));
    }
}

TEST(url, overlong_parts_are_refused)
{
    static const char *const forms[] = {"iscsi://%s/iqn.2026-11.x:y",
                                        "iscsi://%s@h/iqn.2026-11.x:y", "iscsi://h/iqn.%s"};
    char part[400], text[600];

    memset(part, 'a', sizeof(part) - 1);
    part[sizeof(part) - 1] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        struct iscsi_url u;
        struct error err = ERROR_INIT;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof(text), forms[i], part);
#pragma GCC diagnostic pop
        CHECK_EQ(iscsi_url_parse(text, &u, &err), -EINVAL);
    }
}

TEST(url, format_round_trip_without_user)
{
    static const char *const urls[] = {
        "iscsi://h:3260/iqn.2026-11.x:y/0", "iscsi://[::1]:99/iqn.2026-11.x:y/16383",
        "iscsi://h:3260/iqn.2026-11.x:y", "iscsi://[%eth0:]:1/iqn.2026-11.x:%25y%3f%2541/7"};

    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        struct iscsi_url u;
        struct error err = ERROR_INIT;
        char buf[128];

        REQUIRE(!iscsi_url_parse(urls[i], &u, &err));
        snprintf(u.user, sizeof(u.user), "joe");
        REQUIRE(!iscsi_url_format(&u, buf, sizeof(buf)));
        CHECK_STR(buf, urls[i]);
    }
}

TEST(url, format_says_when_it_does_not_fit)
{
    struct iscsi_url u = {.host = "h", .port = 1, .target = "iqn.2026-11.x:y", .lun = 10};
    char buf[64];

    REQUIRE(!iscsi_url_format(&u, buf, sizeof(buf)));
    for (size_t n = 0; n <= strlen("iscsi://h:1/iqn.2026-11.x:y/10"); n++)
        CHECK_EQ(iscsi_url_format(&u, buf, n), -ENAMETOOLONG);
}
