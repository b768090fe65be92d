/* SPDX-License-Identifier: BSD-3-Clause */
/* Byte positions inside iovecs. Pure: no position ever leads outside the entries given. */
#include <errno.h>
#include <string.h>

#include "lun-backends/block.h"
#include "util/size.h"

size_t iov_bytes(const struct iovec *iov, int niov)
{
    size_t sum = 0;

    for (int i = 0; i < niov; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* Walks the pieces of [from, from + bytes): each is one contiguous stretch of memory. */
struct iov_walk {
    const struct iovec *iov;
    int niov;
    size_t from, left;
};

static size_t iov_piece(struct iov_walk *w, void **at)
{
    while (w->left && w->niov) {
        size_t len = w->iov->iov_len, n;

        if (w->from >= len) {
            w->from -= len;
            w->iov++;
            w->niov--;
            continue;
        }
        n = MIN_OF(len - w->from, w->left);
        *at = (char *)w->iov->iov_base + w->from;
        w->from += n;
        w->left -= n;
        return n;
    }
    return 0;
}

void iov_zero(const struct iovec *iov, int niov, size_t from, size_t bytes)
{
    struct iov_walk w = {iov, niov, from, bytes};
    void *at;
    size_t n;

    while ((n = iov_piece(&w, &at)))
        memset(at, 0, n);
}

void iov_from_buf(const struct iovec *iov, int niov, size_t from, const void *buf, size_t bytes)
{
    struct iov_walk w = {iov, niov, from, bytes};
    void *at;
    size_t n;

    for (const char *p = buf; (n = iov_piece(&w, &at)); p += n)
        memcpy(at, p, n);
}

void iov_to_buf(const struct iovec *iov, int niov, size_t from, void *buf, size_t bytes)
{
    struct iov_walk w = {iov, niov, from, bytes};
    void *at;
    size_t n;

    for (char *p = buf; (n = iov_piece(&w, &at)); p += n)
        memcpy(p, at, n);
}

/* Sixteen bytes by hand, then the buffer compared with itself, shifted. */
bool buf_is_zero(const void *buf, size_t bytes)
{
    const unsigned char *p = buf;

    for (size_t i = 0; i < 16; i++) {
        if (i == bytes)
            return true;
        if (p[i])
            return false;
    }
    return !memcmp(p, p + 16, bytes - 16);
}

bool iov_is_zero(const struct iovec *iov, int niov)
{
    for (int i = 0; i < niov; i++) {
        if (!buf_is_zero(iov[i].iov_base, iov[i].iov_len))
            return false;
    }
    return true;
}

int iov_slice(const struct iovec *iov, int niov, size_t from, size_t bytes, struct iovec *out,
              int max)
{
    struct iov_walk w = {iov, niov, from, bytes};
    int used = 0;
    void *at;
    size_t n;

    while ((n = iov_piece(&w, &at))) {
        if (used == max)
            return -E2BIG;
        out[used++] = (struct iovec){at, n};
    }
    return used;
}
