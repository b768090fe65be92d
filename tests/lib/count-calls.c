/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Preloaded into a daemon: counts allocations, mutex locks and coroutine switches, of all threads,
 * in the file that COUNT_CALLS names (three 64-bit numbers), where the judge "hot-path" reads them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALLOCATIONS, LOCKS, SWITCHES, NR_COUNTS };

static uint64_t before_start[NR_COUNTS], *counts = before_start;

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

static void count(int what)
{
    __atomic_fetch_add(&counts[what], 1, __ATOMIC_RELAXED);
}

static void __attribute__((constructor)) start(void)
{
    const char *path = getenv("COUNT_CALLS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map;

    if (fd < 0)
        return;
    map = mmap(NULL, sizeof(before_start), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        counts = map;
    close(fd);
}

void *malloc(size_t bytes)
{
    count(ALLOCATIONS);
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    count(ALLOCATIONS);
    return __libc_calloc(n, bytes);
}

void *realloc(void *p, size_t bytes)
{
    count(ALLOCATIONS);
    return __libc_realloc(p, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
    count(ALLOCATIONS);
    return __libc_memalign(align, bytes);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    static int (*real)(pthread_mutex_t *);

    if (!real)
        real = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    count(LOCKS);
    return real(mutex);
}

void _longjmp(struct __jmp_buf_tag env[1], int value)
{
    static void (*real)(struct __jmp_buf_tag *, int) __attribute__((noreturn));

    if (!real)
        real = (void (*)(struct __jmp_buf_tag *, int))dlsym(RTLD_NEXT, "_longjmp");
    count(SWITCHES);
    real(env, value);
}
