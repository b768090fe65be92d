/* SPDX-License-Identifier: BSD-3-Clause */
/* What backing names mean, and which are refused; formats by their magic numbers. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "lun-backends/chain.h"
#include "lun-backends/image-probe.h"
#include "tests/unit/ctest.h"

static char out[PATH_MAX], format[16];
static struct error err;

static int resolve(const char *image, const char *backing)
{
    err = (struct error)ERROR_INIT;
    strcpy(out, "?");
    strcpy(format, "?");
    return chain_resolve_backing(image, backing, out, sizeof(out), format, sizeof(format), &err);
}

TEST(chain_name, relative_is_relative_to_the_image)
{
    CHECK_EQ(resolve("/vm/disks/top.qcow2", "base.img"), 0);
    CHECK_STR(out, "/vm/disks/base.img");
    CHECK_STR(format, "");
    CHECK_EQ(resolve("/vm/disks/top.qcow2", "../base/b.img"), 0);
    CHECK_STR(out, "/vm/disks/../base/b.img");
    CHECK_EQ(resolve("/top.qcow2", "b"), 0);
    CHECK_STR(out, "/b");
}

TEST(chain_name, absolute_stays)
{
    CHECK_EQ(resolve("/vm/top.qcow2", "/other/base.img"), 0);
    CHECK_STR(out, "/other/base.img");
}

TEST(chain_name, file_protocol_is_taken)
{
    CHECK_EQ(resolve("/vm/top.qcow2", "file:base.img"), 0);
    CHECK_STR(out, "/vm/base.img");
    CHECK_EQ(resolve("/vm/top.qcow2", "file:/a/base.img"), 0);
    CHECK_STR(out, "/a/base.img");
    CHECK_EQ(resolve("/vm/top.qcow2", "file:///a/base.img"), 0);
    CHECK_STR(out, "/a/base.img");
}

TEST(chain_name, colon_after_a_slash_is_no_protocol)
{
    CHECK_EQ(resolve("/vm/top.qcow2", "./a:b.img"), 0);
    CHECK_STR(out, "/vm/./a:b.img");
}

TEST(chain_name, other_protocols_are_refused_by_name)
{
    CHECK_EQ(resolve("/vm/top.qcow2", "nbd://host/x"), -ENOTSUP);
    CHECK(strstr(err.msg, "'nbd'") && strstr(err.msg, "/vm/top.qcow2"));
    CHECK_EQ(resolve("/vm/top.qcow2", "iscsi://h:3260/iqn/1"), -ENOTSUP);
    CHECK(strstr(err.msg, "'iscsi'"));
    CHECK_EQ(resolve("/vm/top.qcow2", "fat:rw:dir"), -ENOTSUP);
}

TEST(chain_name, json_with_a_plain_file_is_taken)
{
    CHECK_EQ(resolve("/v/t", "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
                             "\"filename\":\"/b/x.qcow2\"}}"),
             0);
    CHECK_STR(out, "/b/x.qcow2");
    CHECK_STR(format, "qcow2");
    CHECK_EQ(resolve("/v/t", "json:{\"file.filename\":\"x\",\"driver\":\"raw\","
                             "\"file.driver\":\"file\"}"),
             0);
    CHECK_STR(out, "/v/x");
    CHECK_STR(format, "raw");
    CHECK_EQ(resolve("/v/t", "json:{\"driver\":\"file\",\"filename\":\"/x\"}"), 0);
    CHECK_STR(out, "/x");
}

TEST(chain_name, json_that_means_more_is_refused)
{
    CHECK_EQ(resolve("/v/t", "json:{\"driver\":\"raw\",\"offset\":512,\"file\":{\"driver\":"
                             "\"file\",\"filename\":\"/x\"}}"),
             -ENOTSUP);
    CHECK(strstr(err.msg, "'offset'"));
    CHECK_EQ(resolve("/v/t", "json:{\"driver\":\"nbd\",\"host\":\"h\"}"), -ENOTSUP);
    CHECK(strstr(err.msg, "nbd"));
    CHECK_EQ(resolve("/v/t", "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"qcow2\","
                             "\"file\":{\"filename\":\"/x\"}}}"),
             -ENOTSUP);
    CHECK_EQ(resolve("/v/t", "json:{\"driver\":\"qcow2\",\"backing\":null,\"file.filename\":"
                             "\"/x\"}"),
             -ENOTSUP);
    CHECK(strstr(err.msg, "'backing'"));
}

TEST(chain_name, bad_json_is_an_error)
{
    static const char *const bad[] = {"json:",
                                      "json:{",
                                      "json:[]",
                                      "json:{}",
                                      "json:{\"filename\":5}",
                                      "json:{\"filename\":\"/a\",\"file.filename\":\"/b\"}",
                                      "json:{\"filename\":\"\"}",
                                      "json:null"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(resolve("/v/t", bad[i]) < 0);
}

TEST(chain_name, too_long_and_empty_are_errors)
{
    char image[PATH_MAX], name[PATH_MAX];

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    memset(image, '/', sizeof(image) - 1);
    image[sizeof(image) - 1] = 0;
    CHECK_EQ(resolve(image, name), -ENAMETOOLONG);
    CHECK_EQ(resolve("/v/t", ""), -EINVAL);
    CHECK_EQ(resolve("/v/t", "file:"), -EINVAL);
}

TEST(image_probe, knows_foreign_formats)
{
    uint8_t head[IMAGE_PROBE_HEAD] = {0}, foot[IMAGE_PROBE_FOOT] = {0};

    CHECK_STR(image_probe(head, sizeof(head), foot), "raw");
    CHECK_STR(image_probe(head, 0, foot), "raw");
    memcpy(head, "KDMV", 4);
    CHECK_STR(image_probe(head, sizeof(head), foot), "vmdk");
    CHECK_STR(image_probe(head, 3, foot), "raw");
    memcpy(head, "QFI\xfb\0\0\0\1", 8);
    CHECK_STR(image_probe(head, sizeof(head), foot), "qcow (v1)");
    memset(head, 0, 8);
    memcpy(foot, "conectix", 8);
    CHECK_STR(image_probe(head, sizeof(head), foot), "vhd");
}
