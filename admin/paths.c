/* SPDX-License-Identifier: BSD-3-Clause */
/* Default places and directory helpers; see paths.h. */
#include "admin/paths.h"

#include <errno.h>
#include <fcntl.h>
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

int path_default_socket(char *out, size_t len)
{
    const char *run = getenv("XDG_RUNTIME_DIR");

    if (geteuid() == 0)
        return fits(snprintf(out, len, "/run/cowtgt/control.sock"), len);
    if (run && *run == '/')
        return fits(snprintf(out, len, "%s/cowtgt/control.sock", run), len);
    return fits(snprintf(out, len, "/tmp/cowtgt-%u/control.sock", (unsigned)geteuid()), len);
}

int path_default_state_dir(char *out, size_t len)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (geteuid() == 0)
        return fits(snprintf(out, len, "/var/lib/cowtgt"), len);
    if (state && *state == '/')
        return fits(snprintf(out, len, "%s/cowtgt", state), len);
    return fits(snprintf(out, len, "%s/.local/state/cowtgt", home ? home : "/tmp"), len);
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

int path_fsync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;

    if (fd < 0)
        return -errno;
    if (fsync(fd))
        ret = -errno;
    close(fd);
    return ret;
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
