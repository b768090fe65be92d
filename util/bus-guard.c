/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SIGBUS within a guard's pages is a jump back to where the guard began; for any other the former
 * handler is put back, and the access is made again. The handler is installed with the first guard
 * and does not block the signal, so the jump has no mask to restore: a guard costs no system call.
 */
#include "util/bus-guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

struct guard {
    sigjmp_buf back;
    uintptr_t from, end; /* whole pages: a failure of memory tells no more of its place */
};

static _Thread_local struct guard *volatile active;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct sigaction former;
static uintptr_t page_bytes;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    struct guard *g = active;
    uintptr_t at = (uintptr_t)info->si_addr;

    (void)context;
    if (g && info->si_code > 0 && at >= g->from && at < g->end)
        siglongjmp(g->back, 1);
    sigaction(sig, &former, NULL);
    if (info->si_code <= 0) /* sent by someone: no access that would be made again */
        raise(sig);
}

static void install(void)
{
    struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};

    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&sa.sa_mask);
    sigaction(SIGBUS, &sa, &former);
}

bool bus_guarded(const void *base, size_t bytes, void (*fn)(void *arg), void *arg)
{
    uintptr_t at = (uintptr_t)base;
    struct guard g;

    pthread_once(&once, install);
    g.from = at & ~(page_bytes - 1);
    g.end = (at + bytes + page_bytes - 1) & ~(page_bytes - 1);
    if (sigsetjmp(g.back, 0)) {
        active = NULL;
        return false;
    }
    active = &g;
    fn(arg);
    active = NULL;
    return true;
}
