/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the log goes: whole lines by one write(2) each, or one datagram each to journald, so that
 * threads don't tear them.
 */
#include "util/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "util/size.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define MESSAGE_MAX    2048

static const int syslog_priority[] = {3, 4, 5, 6, 7};
static int journal_fd = -1; /* connected */

/* systemd says by device and inode which stream is the journal's: stderr may lead elsewhere now. */
static bool stderr_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;

    return text && sscanf(text, "%llu:%llu", &dev, &ino) == 2 && !fstat(STDERR_FILENO, &st) &&
           st.st_dev == dev && st.st_ino == ino;
}

static int open_journal(const char *path, struct error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd, ret;

    if (strlen(path) >= sizeof(sa.sun_path))
        return error_set(err, ENAMETOOLONG, "journald's socket: %.120s...: too long", path);
    strcpy(sa.sun_path, path);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && !connect(fd, (const struct sockaddr *)&sa, sizeof(sa))) {
        journal_fd = fd;
        return 0;
    }
    ret = errno;
    if (fd >= 0)
        close(fd);
    return error_set(err, ret, "no journald at %s (%s): log to stderr", path, strerror(ret));
}

int log_open(const char *where, struct error *err)
{
    struct error ignored = ERROR_INIT;

    if (journal_fd >= 0)
        close(journal_fd);
    journal_fd = -1;
    if (!strcmp(where, "stderr"))
        return 0;
    if (!strcmp(where, "auto")) {
        if (stderr_is_journal())
            open_journal(JOURNAL_SOCKET, &ignored); /* else as lines, which journald reads, too */
        return 0;
    }
    if (!strcmp(where, "journald"))
        return open_journal(JOURNAL_SOCKET, err);
    if (!strncmp(where, "journald:/", 10))
        return open_journal(where + 9, err);
    return error_set(err, EINVAL,
                     "'%s' is no place for the log: use stderr, journald, journald:/SOCKET or auto",
                     where);
}

bool log_is_journal(void)
{
    return journal_fd >= 0;
}

/* Its own protocol: a line FIELD=value each. False: it does not take it. */
static bool tell_journal(enum log_level level, const char *area, const char *text)
{
    char entry[MESSAGE_MAX + 256];
    int n = snprintf(entry, sizeof(entry),
                     "MESSAGE=%s: %s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=cowtgtd\nCOWTGT_AREA=%s\n",
                     area, text, syslog_priority[level], area);

    return send(journal_fd, entry, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == n;
}

/* journald stamps lines itself and understands sd-daemon(3) "<N>" prefixes. */
static int line_prefix(char *line, size_t len, enum log_level level, const char *area)
{
    struct timespec ts;
    struct tm tm;

    if (stderr_is_journal())
        return snprintf(line, len, "<%d>%s: ", syslog_priority[level], area);
    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, &tm);
    return snprintf(line, len, "%02d:%02d:%02d.%03ld %s %s: ", tm.tm_hour, tm.tm_min, tm.tm_sec,
                    ts.tv_nsec / 1000000, log_level_name(level), area);
}

static void write_line(enum log_level level, const char *area, const char *text)
{
    char line[MESSAGE_MAX + 128];
    int n = line_prefix(line, sizeof(line), level, area);

    n += snprintf(line + n, sizeof(line) - (size_t)n - 1, "%s", text);
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nowhere left to say it */
}

void log_msg(enum log_level level, const char *area, const char *fmt, ...)
{
    char text[MESSAGE_MAX];
    va_list ap;

    if (!log_wants(level, area))
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    /* What an initiator or an image calls itself must not forge log lines. */
    for (char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    if (journal_fd < 0 || !tell_journal(level, area, text))
        write_line(level, area, text);
}
