/* SPDX-License-Identifier: BSD-3-Clause */
/* Running qemu-img: see qemu.h. */
#include "tests/crash/qemu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256];
static bool started;

bool qemu_start(void)
{
    const char *tmp = getenv("TMPDIR");

    if (system("qemu-img --version >/dev/null 2>&1")) {
        fputs("no qemu-img: neither its images nor its opinion\n", stderr);
        return false;
    }
    snprintf(dir, sizeof(dir), "%s/cowtgt-crash-XXXXXX", tmp ? tmp : "/tmp");
    started = mkdtemp(dir) != NULL;
    if (!started)
        perror(dir);
    return started;
}

void qemu_end(bool keep)
{
    if (!started || keep)
        return;
    if (qemu_sh("rm -f -- *") == 0)
        rmdir(dir);
    started = false;
}

const char *qemu_dir(void)
{
    return started ? dir : NULL;
}

int qemu_sh(const char *fmt, ...)
{
    char cmd[512], line[1024];
    va_list ap;
    int ret;

    va_start(ap, fmt);
    vsnprintf(cmd, sizeof(cmd), fmt, ap);
    va_end(ap);
    snprintf(line, sizeof(line), "cd '%s' && { %s ; } >log 2>&1", dir, cmd);
    ret = system(line);
    return WIFEXITED(ret) ? WEXITSTATUS(ret) : -1;
}

static FILE *open_file(const char *name, const char *mode)
{
    char path[300];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return fopen(path, mode);
}

bool qemu_save(const char *name, const void *data, uint64_t bytes)
{
    FILE *f = open_file(name, "w");
    bool ok;

    if (!f)
        return false;
    ok = fwrite(data, 1, bytes, f) == bytes;
    return !fclose(f) && ok;
}

uint8_t *qemu_load(const char *name, uint64_t *bytes)
{
    FILE *f = open_file(name, "r");
    uint8_t *data = NULL;
    long end = -1;

    if (f && !fseek(f, 0, SEEK_END))
        end = ftell(f);
    if (end > 0 && !fseek(f, 0, SEEK_SET))
        data = malloc((size_t)end);
    if (data && fread(data, 1, (size_t)end, f) != (size_t)end) {
        free(data);
        data = NULL;
    }
    if (f)
        fclose(f);
    *bytes = data ? (uint64_t)end : 0;
    return data;
}
