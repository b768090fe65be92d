/* SPDX-License-Identifier: BSD-3-Clause */
/* The log: whole lines by one write(2) each, so that threads don't tear them. */
#include "util/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "util/size.h"

enum log_level log_level_now = LOG_LVL_NOTICE;

static const char *const level_names[] = {
    [LOG_LVL_ERROR] = "error", [LOG_LVL_WARNING] = "warning", [LOG_LVL_NOTICE] = "notice",
    [LOG_LVL_INFO] = "info",   [LOG_LVL_DEBUG] = "debug",
};

bool log_set_level(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(level_names); i++) {
        if (!strcmp(name, level_names[i])) {
            log_level_now = (enum log_level)i;
            return true;
        }
    }
    return false;
}

/* journald stamps lines itself and understands sd-daemon(3) "<N>" prefixes. */
static bool under_journald(void)
{
    static int known = -1;

    if (known < 0)
        known = getenv("JOURNAL_STREAM") != NULL;
    return known;
}

static int line_prefix(char *line, size_t len, enum log_level level, const char *area)
{
    static const int syslog_prio[] = {3, 4, 5, 6, 7};
    struct timespec ts;
    struct tm tm;

    if (under_journald())
        return snprintf(line, len, "<%d>%s: ", syslog_prio[level], area);
    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, &tm);
    return snprintf(line, len, "%02d:%02d:%02d.%03ld %s %s: ", tm.tm_hour, tm.tm_min, tm.tm_sec,
                    ts.tv_nsec / 1000000, level_names[level], area);
}

void log_msg(enum log_level level, const char *area, const char *fmt, ...)
{
    char line[2048];
    va_list ap;
    int n = line_prefix(line, sizeof(line), level, area);
    int m;

    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
    va_end(ap);
    m = MIN_OF(m, (int)sizeof(line) - n - 2);
    /* What an initiator or an image calls itself must not forge log lines. */
    for (char *p = line + n; p < line + n + m; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    line[n + m] = '\n';
    if (write(STDERR_FILENO, line, (size_t)(n + m + 1)) < 0)
        return; /* nowhere left to say it */
}
