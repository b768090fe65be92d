/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Unit tests in C on top of googletest: TEST() registers a function, the one C++ file
 * (gtest-main.cc) hands them all to googletest, which runs, filters and reports.
 */
#ifndef COWTGT_CTEST_H
#define COWTGT_CTEST_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ctest {
    const char *suite, *name;
    void (*fn)(void);
    const char *file;
    int line;
    struct ctest *next;
};

void ctest_register(struct ctest *t);
void ctest_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Marks the running test as skipped; the caller returns. */
void ctest_skip(const char *why);
/* A fresh directory for this process, removed with all in it at exit. */
const char *ctest_tmpdir(void);

#ifdef __cplusplus
}
#else

#define TEST(suite_, name_)                                                                        \
    static void test_##suite_##_##name_(void);                                                     \
    static void __attribute__((constructor)) register_##suite_##_##name_(void)                     \
    {                                                                                              \
        static struct ctest t = {#suite_, #name_, test_##suite_##_##name_, __FILE__, __LINE__, 0}; \
        ctest_register(&t);                                                                        \
    }                                                                                              \
    static void test_##suite_##_##name_(void)

#define CHECK(cond)                                      \
    do {                                                 \
        if (!(cond))                                     \
            ctest_fail(__FILE__, __LINE__, "%s", #cond); \
    } while (0)

/* Ends the test (returns from a void function) if it does not hold. */
#define REQUIRE(cond)                                    \
    do {                                                 \
        if (!(cond)) {                                   \
            ctest_fail(__FILE__, __LINE__, "%s", #cond); \
            return;                                      \
        }                                                \
    } while (0)

#define CHECK_EQ(a, b)                                                                         \
    do {                                                                                       \
        long long va_ = (long long)(a), vb_ = (long long)(b);                                  \
        if (va_ != vb_)                                                                        \
            ctest_fail(__FILE__, __LINE__, "%s == %s: %lld (0x%llx) != %lld (0x%llx)", #a, #b, \
                       va_, (unsigned long long)va_, vb_, (unsigned long long)vb_);            \
    } while (0)

#define CHECK_STR(a, b)                                                          \
    do {                                                                         \
        const char *sa_ = (a), *sb_ = (b);                                       \
        if (!sa_ || !sb_ || __builtin_strcmp(sa_, sb_))                          \
            ctest_fail(__FILE__, __LINE__, "%s == %s: \"%s\" != \"%s\"", #a, #b, \
                       sa_ ? sa_ : "(null)", sb_ ? sb_ : "(null)");              \
    } while (0)

#endif /* !__cplusplus */
#endif
