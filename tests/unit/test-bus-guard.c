/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings of files that are cut short: what a guard answers, and that no other SIGBUS is kept from
 * whom it went to before. Each in a process of its own, where no guard has been yet.
 */
#include "util/bus-guard.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/ctest.h"

#define PAGE       4096u
#define FILE_BYTES (16u * PAGE)
#define FORMER     42 /* how a process ends whose own handler was called */

struct look {
    const volatile uint8_t *data;
    unsigned bytes, sum;
};

static int fd;
static const uint8_t *map;

static void add_up(void *arg)
{
    struct look *l = arg;

    for (unsigned i = 0; i < l->bytes; i++)
        l->sum += l->data[i];
}

/* The sum of the bytes, or -1. */
static int sum_of(unsigned at, unsigned bytes)
{
    struct look l = {.data = map + at, .bytes = bytes};

    return bus_guarded(map + at, bytes, add_up, &l) ? (int)l.sum : -1;
}

static void on_former(int sig)
{
    (void)sig;
    _exit(FORMER);
}

static int run(int (*fn)(void))
{
    char path[4096];
    int status;
    pid_t pid;

    snprintf(path, sizeof(path), "%s/file", ctest_tmpdir());
    pid = fork();
    if (pid) {
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        return status;
    }
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (unsigned i = 0; i < FILE_BYTES; i++)
        if (write(fd, "\1", 1) != 1)
            _exit(1);
    map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    _exit(map == MAP_FAILED ? 1 : fn());
}

static int good_pages(void)
{
    return sum_of(0, FILE_BYTES) != FILE_BYTES || sum_of(3, PAGE) != PAGE;
}

TEST(bus_guard, what_is_there_is_looked_at)
{
    CHECK_EQ(run(good_pages), 0);
}

static int cut_pages(void)
{
    if (ftruncate(fd, 2 * PAGE))
        return 1;
    for (int i = 0; i < 3; i++)
        if (sum_of(0, FILE_BYTES) != -1 || sum_of(2 * PAGE + 5, 1) != -1)
            return 2;
    if (sum_of(0, 2 * PAGE) != 2 * PAGE)
        return 3;
    return ftruncate(fd, FILE_BYTES) || sum_of(0, FILE_BYTES) != 2 * PAGE;
}

TEST(bus_guard, pages_of_a_file_cut_short_are_an_answer_each_time)
{
    CHECK_EQ(run(cut_pages), 0);
}

/* As far as the end, and then past it. */
static void look_past(void *arg)
{
    add_up(arg);
    add_up(&(struct look){.data = map + 4 * PAGE, .bytes = 1});
}

static void outside(void)
{
    struct look l = {.data = map, .bytes = PAGE};

    if (ftruncate(fd, 2 * PAGE))
        _exit(1);
    bus_guarded(map, PAGE, look_past, &l);
}

static int outside_with_handler(void)
{
    signal(SIGBUS, on_former);
    outside();
    return 0;
}

static int outside_without_handler(void)
{
    signal(SIGBUS, SIG_DFL);
    outside();
    return 0;
}

TEST(bus_guard, a_page_outside_of_the_guard_is_not_its_own)
{
    CHECK_EQ(WEXITSTATUS(run(outside_with_handler)), FORMER);
    CHECK_EQ(WTERMSIG(run(outside_without_handler)), SIGBUS);
}

static int after_the_guard(void)
{
    signal(SIGBUS, on_former);
    if (ftruncate(fd, 2 * PAGE) || sum_of(0, FILE_BYTES) != -1)
        return 1;
    add_up(&(struct look){.data = map, .bytes = FILE_BYTES});
    return 0;
}

TEST(bus_guard, without_a_guard_the_former_handler_is_called)
{
    CHECK_EQ(WEXITSTATUS(run(after_the_guard)), FORMER);
}

static void send_it(void *arg)
{
    (void)arg;
    kill(getpid(), SIGBUS);
}

static int sent_signal(void)
{
    signal(SIGBUS, SIG_DFL);
    bus_guarded(map, FILE_BYTES, send_it, NULL);
    return 0;
}

TEST(bus_guard, a_signal_that_someone_sends_is_not_its_own)
{
    CHECK_EQ(WTERMSIG(run(sent_signal)), SIGBUS);
}
