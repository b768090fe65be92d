/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * iscsi:// URLs, pure. A URL is where names from the command line, the control socket and image
 * headers come in: everything is checked here, so that what comes out can be used as it is.
 */
#include "lun-backends/remote.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "util/size.h"

#define DEFAULT_PORT 3260
#define MAX_LUN      16383 /* SAM-5 4.7.7: flat space addressing has 14 bits */

#define ENCODED_TARGET_MAX (3 * sizeof(((struct iscsi_url *)0)->target)) /* each byte as %XX */

static int bad(struct error *err, const char *text, const char *why)
{
    return error_set(err, EINVAL,
                     "'%.300s' is not an iSCSI URL: %s (wanted is "
                     "iscsi://[USER@]HOST[:PORT]/IQN[/LUN])",
                     text, why);
}

/* Decimal, digits only, no more than @max; -1 if it is not. */
static long parse_number(const char *s, size_t len, long max)
{
    long v = 0;

    if (len == 0 || len > 9)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)s[i]))
            return -1;
        v = v * 10 + (s[i] - '0');
    }
    return v <= max ? v : -1;
}

static bool host_char(unsigned char c, bool bracketed)
{
    if (bracketed)
        return isalnum(c) || c == ':' || c == '.' || c == '%' || c == '-' || c == '_';
    return isalnum(c) || c == '.' || c == '-' || c == '_';
}

/* HOST[:PORT] or [IPV6][:PORT] */
static const char *parse_host_port(const char *s, size_t len, struct iscsi_url *url)
{
    bool bracketed = len && s[0] == '[';
    const char *host = s + bracketed;
    const char *host_end = memchr(s, bracketed ? ']' : ':', len);
    const char *end = s + len;

    if (!host_end && bracketed)
        return "']' is missing after an IPv6 address";
    if (!host_end)
        host_end = end;
    size_t host_len = (size_t)(host_end - host);
    const char *rest = host_end + bracketed;

    if (host_len == 0)
        return "the host is missing";
    if (host_len >= sizeof(url->host))
        return "the host name is too long";
    if (bracketed && !memchr(host, ':', host_len))
        return "what is in brackets is not an IPv6 address";
    for (size_t i = 0; i < host_len; i++) {
        if (!host_char((unsigned char)host[i], bracketed))
            return "a character in the host name is not allowed";
    }
    memcpy(url->host, host, host_len);
    url->host[host_len] = '\0';

    url->port = DEFAULT_PORT;
    if (rest == end)
        return NULL;
    long port = *rest == ':' ? parse_number(rest + 1, (size_t)(end - rest - 1), 65535) : -1;

    if (port <= 0)
        return "the port is not a number from 1 to 65535";
    url->port = (uint16_t)port;
    return NULL;
}

/* [USER@]HOST[:PORT] */
static const char *parse_authority(const char *s, size_t len, struct iscsi_url *url)
{
    const char *at = memrchr(s, '@', len);

    if (at) {
        size_t user_len = (size_t)(at - s);

        if (memchr(s, '%', user_len) || memchr(s, ':', user_len))
            return "it holds a password; secrets are given in a file";
        if (user_len == 0 || user_len >= sizeof(url->user))
            return "the user name is empty or too long";
        for (size_t i = 0; i < user_len; i++) {
            if (!isgraph((unsigned char)s[i]))
                return "a character in the user name is not allowed";
        }
        memcpy(url->user, s, user_len);
        url->user[user_len] = '\0';
        len -= user_len + 1;
        s = at + 1;
    }
    return parse_host_port(s, len, url);
}

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef", *p;

    p = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return p ? (int)(p - digits) : -1;
}

/* RFC 7143 4.2.7.2: at most 223 bytes, one of three formats; %XX is taken as in URLs. */
static const char *parse_target(const char *s, size_t len, struct iscsi_url *url)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)s[i];

        if (c == '%') {
            int hi = i + 2 < len ? hex_value(s[i + 1]) : -1;
            int lo = i + 2 < len ? hex_value(s[i + 2]) : -1;

            if (hi < 0 || lo < 0)
                return "a '%' in the target name is not followed by two hex digits";
            c = hi << 4 | lo;
            i += 2;
        }
        if (c <= ' ' || c == 0x7f || c == '/')
            return "a character in the target name is not allowed";
        if (n + 1 >= sizeof(url->target))
            return "the target name is longer than 223 bytes";
        url->target[n++] = (char)c;
    }
    url->target[n] = '\0';

    static const char *const formats[] = {"iqn.", "eui.", "naa."};

    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        if (!strncasecmp(url->target, formats[i], 4) && n > 4)
            return NULL;
    }
    return "the target name does not start with iqn., eui. or naa.";
}

int iscsi_url_parse(const char *text, struct iscsi_url *url, struct error *err)
{
    static const char scheme[] = "iscsi://";
    const char *p = text + sizeof(scheme) - 1;

    memset(url, 0, sizeof(*url));
    url->lun = -1;
    if (strncasecmp(text, scheme, sizeof(scheme) - 1))
        return bad(err, text, "it does not start with iscsi://");
    if (strchr(p, '?'))
        return bad(err, text, "options after '?' are not known here");

    const char *slash = strchr(p, '/');

    if (!slash)
        return bad(err, text, "the target name is missing");
    const char *why = parse_authority(p, (size_t)(slash - p), url);

    if (why) {
        /* What was refused may hold a secret: it is not repeated. */
        return memchr(p, '@', (size_t)(slash - p)) ? bad(err, "iscsi://...@...", why)
                                                   : bad(err, text, why);
    }

    const char *target = slash + 1;
    const char *target_end = strchrnul(target, '/');

    why = parse_target(target, (size_t)(target_end - target), url);
    if (why)
        return bad(err, text, why);
    if (*target_end == '/' && target_end[1]) {
        long lun = parse_number(target_end + 1, strlen(target_end + 1), MAX_LUN);

        if (lun < 0)
            return bad(err, text, "the LUN is not a number from 0 to 16383");
        url->lun = (int)lun;
    }
    return 0;
}

/* What parse_target() would take for something else is written as %XX: it must come back. */
static void encode_target(const char *target, char out[ENCODED_TARGET_MAX])
{
    for (; *target; target++) {
        if (*target == '%' || *target == '?')
            out += sprintf(out, "%%%02x", (unsigned char)*target);
        else
            *out++ = *target;
    }
    *out = '\0';
}

int iscsi_url_format(const struct iscsi_url *url, char *buf, size_t len)
{
    bool v6 = strchr(url->host, ':');
    char target[ENCODED_TARGET_MAX], lun[16] = "";

    encode_target(url->target, target);
    if (url->lun >= 0)
        snprintf(lun, sizeof(lun), "/%d", url->lun);
    int n = snprintf(buf, len, "iscsi://%s%s%s:%u/%s%s", v6 ? "[" : "", url->host, v6 ? "]" : "",
                     url->port, target, lun);

    return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}
