/* SPDX-License-Identifier: BSD-3-Clause */
/* Filling struct error; see error.h. */
#include "util/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const class_names[ERR_NR_CLASSES] = {
    [ERR_GENERIC] = "GenericError",
    [ERR_COMMAND_NOT_FOUND] = "CommandNotFound",
    [ERR_DEVICE_NOT_FOUND] = "DeviceNotFound",
    [ERR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
    [ERR_KVM_MISSING_CAP] = "KVMMissingCap",
    [ERR_DEVICE_IN_USE] = "DeviceInUse",
    [ERR_NOT_SUPPORTED] = "NotSupported",
};

/* Messages are one line wherever they end up: a log, a terminal, JSON. */
static void make_one_line(char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = ' ';
    }
}

static int error_vset(struct error *err, enum error_class class, int errnum, const char *fmt,
                      va_list ap)
{
    char msg[sizeof(err->msg)]; /* an argument may be err->msg itself */

    vsnprintf(msg, sizeof(msg), fmt, ap);
    make_one_line(msg);
    memcpy(err->msg, msg, sizeof(msg));
    err->class = class;
    err->errnum = errnum > 0 ? errnum : EINVAL;
    return -err->errnum;
}

int error_set(struct error *err, int errnum, const char *fmt, ...)
{
    va_list ap;
    int ret;

    va_start(ap, fmt);
    ret = error_vset(err, ERR_GENERIC, errnum, fmt, ap);
    va_end(ap);
    return ret;
}

int error_set_class(struct error *err, enum error_class class, int errnum, const char *fmt, ...)
{
    va_list ap;
    int ret;

    va_start(ap, fmt);
    ret = error_vset(err, class, errnum, fmt, ap);
    va_end(ap);
    return ret;
}

int error_prefix(struct error *err, const char *fmt, ...)
{
    char old[sizeof(err->msg)];
    va_list ap;
    size_t n;

    memcpy(old, err->msg, sizeof(old));
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    n = strlen(err->msg);
    for (const char *p = ": "; *p && n < sizeof(err->msg) - 1; p++)
        err->msg[n++] = *p;
    for (const char *p = old; *p && n < sizeof(err->msg) - 1; p++)
        err->msg[n++] = *p;
    err->msg[n] = '\0';
    make_one_line(err->msg);
    return -err->errnum;
}

const char *error_class_name(enum error_class class)
{
    return (unsigned)class < ERR_NR_CLASSES ? class_names[class] : class_names[ERR_GENERIC];
}
