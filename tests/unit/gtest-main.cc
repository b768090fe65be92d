// SPDX-License-Identifier: BSD-3-Clause
// The one C++ file: hands the C tests to googletest.
#include <gtest/gtest.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "tests/unit/ctest.h"

static struct ctest *first, **last = &first;
static std::string tmpdir;

extern "C" void ctest_register(struct ctest *t)
{
    *last = t;
    last = &t->next;
}

extern "C" void ctest_fail(const char *file, int line, const char *fmt, ...)
{
    char msg[4096];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    ADD_FAILURE_AT(file, line) << msg;
}

static void skip_now(const char *why)
{
    GTEST_SKIP() << why;
}

extern "C" void ctest_skip(const char *why)
{
    skip_now(why);
}

extern "C" const char *ctest_tmpdir(void)
{
    if (tmpdir.empty()) {
        const char *base = getenv("TMPDIR");
        std::string pattern = std::string(base ? base : "/tmp") + "/cowtgt-unit-XXXXXX";

        if (!mkdtemp(pattern.data())) {
            perror(pattern.c_str());
            exit(1);
        }
        tmpdir = pattern;
    }
    return tmpdir.c_str();
}

namespace
{
class CTest : public testing::Test
{
  public:
    explicit CTest(void (*fn)()) : fn_(fn)
    {
    }
    void TestBody() override
    {
        fn_();
    }

  private:
    void (*fn_)();
};
} // namespace

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    for (struct ctest *t = first; t; t = t->next) {
        testing::RegisterTest(t->suite, t->name, nullptr, nullptr, t->file, t->line,
                              [fn = t->fn]() -> testing::Test * { return new CTest(fn); });
    }
    int ret = RUN_ALL_TESTS();

    if (!tmpdir.empty())
        std::filesystem::remove_all(tmpdir);
    return ret;
}
