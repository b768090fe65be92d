/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One log for the process: a line per message on stderr (or journald, which reads
 * stderr), with a level and the area that speaks. Never secrets. May be called
 * from any thread.
 */
#ifndef COWTGT_UTIL_LOG_H
#define COWTGT_UTIL_LOG_H

#include <stdbool.h>

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARNING, LOG_LVL_NOTICE, LOG_LVL_INFO, LOG_LVL_DEBUG };

extern enum log_level log_level_now;

/* Parses "error|warning|notice|info|debug"; false if it is none of them. */
bool log_set_level(const char *name);

void log_msg(enum log_level level, const char *area, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* A file that logs defines LOG_AREA before including this: "qcow2", "iscsi", ... */
#ifndef LOG_AREA
#define LOG_AREA "cowtgt"
#endif

#define log_at(lvl, ...)                         \
    do {                                         \
        if ((lvl) <= log_level_now)              \
            log_msg(lvl, LOG_AREA, __VA_ARGS__); \
    } while (0)
#define log_err(...)    log_at(LOG_LVL_ERROR, __VA_ARGS__)
#define log_warn(...)   log_at(LOG_LVL_WARNING, __VA_ARGS__)
#define log_notice(...) log_at(LOG_LVL_NOTICE, __VA_ARGS__)
#define log_info(...)   log_at(LOG_LVL_INFO, __VA_ARGS__)
#define log_debug(...)  log_at(LOG_LVL_DEBUG, __VA_ARGS__)

#endif
