/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One log for the process: a line per message on stderr, or an entry in systemd's journal, with a
 * level and the area that speaks. Never secrets. Messages may come from any thread; levels and
 * where the log goes are set by one.
 */
#ifndef COWTGT_UTIL_LOG_H
#define COWTGT_UTIL_LOG_H

#include <stdbool.h>
#include "util/error.h"

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARNING, LOG_LVL_NOTICE, LOG_LVL_INFO, LOG_LVL_DEBUG };

/* The highest level that any area has: what is above it costs one comparison. */
extern enum log_level log_level_now;

/*
 * Words with commas between them, in order: "LEVEL" is the level of all areas, "AREA=LEVEL" of
 * one, "AREA=default" as all again. All words or, on an error that names what there is, none.
 */
int log_set_levels(const char *text, struct error *err);
/* The level of all areas. */
void log_set_level(enum log_level level);
const char *log_level_name(enum log_level level);
/* Of all areas that have none of their own. */
enum log_level log_default_level(void);
/* In alphabetical order; @own: the area has a level of its own. */
void log_for_each_area(void (*fn)(const char *area, enum log_level level, bool own, void *arg),
                       void *arg);
/* Would a message of @area be logged? */
bool log_wants(enum log_level level, const char *area);

/*
 * "stderr", "journald" (by its own protocol, systemd.journal-fields(7); an error if it isn't
 * there), "journald:SOCKET", or "auto": journald if stderr leads there, else stderr.
 */
int log_open(const char *where, struct error *err);
/* Messages go to the journal, not to stderr. */
bool log_is_journal(void);

void log_msg(enum log_level level, const char *area, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* A file that logs defines LOG_AREA before including this: one of those in log-levels.c. */
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
