/* SPDX-License-Identifier: BSD-3-Clause */
/* Default places and directory helpers; see paths.h. */
#include "admin/paths.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fits(int n, size_t len)
{
    return n >= 0 && (size_t)n < len ? 0 : -ENAMETOOLONG;
}

/* Where everybody may make directories, one that somebody else has made is a trap. */
static int path_not_of_others(const char *dir)
{
    struct stat st;

    if (lstat(dir, &st))
        return errno == ENOENT ? 0 : -errno;
    return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022) ? 0 : -EPERM;
}

int path_default_socket(char *out, size_t len, struct error *err)
{
    const char *run = getenv("XDG_RUNTIME_DIR");
    char dir[64];
    int ret;

    snprintf(dir, sizeof(dir), "/tmp/cowtgt-%u", (unsigned)geteuid());
    if (geteuid() == 0)
        ret = snprintf(out, len, "/run/cowtgt/control.sock");
    else if (run && *run == '/')
        ret = snprintf(out, len, "%s/cowtgt/control.sock", run);
    else if (path_not_of_others(dir))
        return error_set(err, EPERM,
                         "%s is somebody else's: set XDG_RUNTIME_DIR, or name a control socket "
                         "with -c",
                         dir);
    else
        ret = snprintf(out, len, "%s/control.sock", dir);
    if (fits(ret, len))
        return error_set(err, ENAMETOOLONG,
                         "the default control socket's name is too long: give one with -c");
    return 0;
}

int path_default_state_dir(char *out, size_t len, struct error *err)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int ret;

    if (geteuid() == 0)
        ret = snprintf(out, len, "/var/lib/cowtgt");
    else if (state && *state == '/')
        ret = snprintf(out, len, "%s/cowtgt", state);
    else if (home && *home == '/')
        ret = snprintf(out, len, "%s/.local/state/cowtgt", home);
    else
        return error_set(err, ENOENT,
                         "no HOME to keep state in: set it, or give a state directory with -s");
    if (fits(ret, len))
        return error_set(err, ENAMETOOLONG,
                         "the default state directory's name is too long: give one with -s");
    return 0;
}

int path_make_dirs(const char *path, mode_t mode)
{
    char part[PATH_MAX];

    if (strlen(path) >= sizeof(part)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(part, path);
    for (char *p = part + 1; *part && *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(part, mode) && errno != EEXIST)
            return -1;
        *p = '/';
    }
    return mkdir(part, mode) && errno != EEXIST ? -1 : 0;
}

int path_absolute(const char *path, char *out, size_t len)
{
    char cwd[PATH_MAX];

    if (*path == '/')
        return fits(snprintf(out, len, "%s", path), len);
    if (!getcwd(cwd, sizeof(cwd)))
        return -errno;
    return fits(snprintf(out, len, "%s/%s", cwd, path), len);
}
