/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looking at a mapping of a file. A page of it that can't be had, as the file was cut short or its
 * disk fails, is SIGBUS; within a guard that is an answer. Any other SIGBUS goes to whom it went
 * before: the process dies of it, or its sanitizer tells of it.
 */
#ifndef COWTGT_UTIL_BUS_GUARD_H
#define COWTGT_UTIL_BUS_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Calls @fn(@arg), which may be left at any of its reads of [@base, @base + @bytes): it holds
 * nothing and changes nothing but its own. False: it was left. The guard is this thread's; guards
 * don't nest.
 */
bool bus_guarded(const void *base, size_t bytes, void (*fn)(void *arg), void *arg);

#endif
