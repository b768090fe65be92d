/* SPDX-License-Identifier: BSD-3-Clause */
/* Access lists: prefixes are read right, and names and addresses must both agree. */
#include "target/access.h"
#include "tests/unit/ctest.h"

static bool in(const char *prefix, const char *peer)
{
    struct access_list l = {0};
    struct access_prefix p;
    bool allowed;

    if (!access_prefix_parse(prefix, &p) || access_add_prefix(&l, &p))
        return false;
    allowed = access_allows(&l, "iqn.2026-11.com.example:x", peer);
    access_release(&l);
    return allowed;
}

TEST(access, addresses_lie_in_prefixes)
{
    CHECK(in("192.0.2.0/24", "192.0.2.255:40000"));
    CHECK(!in("192.0.2.0/24", "192.0.3.0:40000"));
    CHECK(in("192.0.2.77/25", "192.0.2.1:1"));
    CHECK(!in("192.0.2.77/25", "192.0.2.128:1"));
    CHECK(in("10.1.2.3", "10.1.2.3:1"));
    CHECK(!in("10.1.2.3", "10.1.2.2:1"));
    CHECK(in("0.0.0.0/0", "203.0.113.9:1"));
    CHECK(in("2001:db8::/33", "[2001:db8:7fff::1]:3260"));
    CHECK(!in("2001:db8::/33", "[2001:db8:8000::1]:3260"));
    CHECK(in("[::1]/128", "[::1]:5"));
}

TEST(access, families_do_not_mix)
{
    CHECK(!in("0.0.0.0/0", "[::1]:5"));
    CHECK(!in("::/0", "127.0.0.1:5"));
}

TEST(access, what_is_no_prefix_is_refused)
{
    static const char *const bad[] = {"",          "/8",        "10.0.0.0/",   "10.0.0.0/33",
                                      "::/129",    "10.0.0/8",  "10.0.0.0/-1", "10.0.0.0/8/8",
                                      "localhost", "[10.0.0.1", "10.0.0.0/ 8", "iqn.2026-11.x:y"};
    struct access_prefix p;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        CHECK(!access_prefix_parse(bad[i], &p));
}

TEST(access, names_and_addresses_must_both_agree)
{
    struct access_list l = {0};
    struct access_prefix p;

    CHECK(access_allows(&l, "iqn.2026-11.com.example:x", "10.0.0.1:1"));
    CHECK_EQ(access_add_name(&l, "iqn.2026-11.com.example:x"), 0);
    CHECK_EQ(access_add_name(&l, "iqn.2026-11.com.example:x"), 0);
    CHECK_EQ(l.nr_names, 1);
    REQUIRE(access_prefix_parse("10.0.0.0/8", &p));
    CHECK_EQ(access_add_prefix(&l, &p), 0);
    CHECK(access_allows(&l, "iqn.2026-11.com.example:x", "10.0.0.1:1"));
    CHECK(!access_allows(&l, "iqn.2026-11.com.example:y", "10.0.0.1:1"));
    CHECK(!access_allows(&l, "iqn.2026-11.com.example:x", "11.0.0.1:1"));
    access_release(&l);
}

TEST(access, a_peer_that_is_no_address_is_in_no_prefix)
{
    CHECK(!in("0.0.0.0/0", ""));
    CHECK(!in("0.0.0.0/0", "unknown:1"));
    CHECK(!in("0.0.0.0/0", "10.0.0.1"));
}
