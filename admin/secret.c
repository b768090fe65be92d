/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading a secret from a file, on a helper thread; see secret.h. */
#define LOG_AREA "chain"
#include "admin/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/log.h"
#include "util/workers.h"

struct reading {
    const char *path;
    char *out;
    size_t len;
    ssize_t got;
    mode_t mode;
};

static int read_secret(void *arg)
{
    struct reading *r = arg;
    int fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), ret = 0;
    struct stat st;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st))
        ret = -errno;
    else if (!S_ISREG(st.st_mode))
        ret = -EINVAL;
    else if ((r->got = read(fd, r->out, r->len)) < 0)
        ret = -errno;
    else
        r->mode = st.st_mode;
    close(fd);
    return ret;
}

int co_secret_read(const char *path, char *out, size_t len, struct error *err)
{
    struct reading r = {.path = path, .out = out, .len = len};
    int ret = co_work(read_secret, &r);

    if (ret)
        return error_set(err, -ret, "secret file %s: %s", path,
                         ret == -EINVAL ? "it is no regular file" : strerror(-ret));
    if (r.got == (ssize_t)len) {
        explicit_bzero(out, len);
        return error_set(err, EINVAL, "secret file %s: longer than %zu bytes", path, len - 1);
    }
    if (r.got && out[r.got - 1] == '\n')
        r.got--;
    out[r.got] = '\0';
    if (!r.got || strlen(out) != (size_t)r.got) {
        explicit_bzero(out, len);
        return error_set(err, EINVAL, "secret file %s: %s", path,
                         r.got ? "it holds a NUL byte" : "it is empty");
    }
    if (r.mode & 077)
        log_warn("secret file %s: others than its owner may read or write it (chmod 600)", path);
    return 0;
}
