/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lending: a large read of what is in the page cache is answered by where it lies in a mapping of
 * the file, and the socket copies from there. No page is pinned and none is shared with the socket:
 * what a loan shows is what the file holds until it is given back, so before anything changes in
 * its range, and before the file is closed, the data are copied to the reader's own buffer.
 *
 * Mapped are windows of the files, of all files together at most NR_WINDOWS. A range is lent from
 * its second read on: what is read once is left to the kernel's read-ahead, which must see it.
 */
#define LOG_AREA "file"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lun-backends/file-int.h"
#include "util/loop.h"
#include "util/size.h"

#define LEND_MIN_BYTES (64u << 10) /* below it a copy costs less than asking what is there */
#define LEND_MAX_BYTES (1u << 20)
#define WINDOW_BYTES   (UINT64_C(64) << 20)
#define NR_WINDOWS     128           /* their page tables: 16 MiB at most */
#define IDLE_NS        4000000000ull /* a window not used for so long may make room for another */
#define CHUNK_BYTES    (64u << 10)
#define MIN_PAGE_BYTES 4096u

struct file_window {
    struct file_node *f; /* NULL: not in use */
    uint64_t start_bytes;
    uint8_t *base;
    unsigned nr_loans;
    uint64_t used_ns;
    bool seen[WINDOW_BYTES / CHUNK_BYTES]; /* read at least once */
};

static struct file_window windows[NR_WINDOWS];

/* ---- windows --------------------------------------------------------------------------- */

static void close_window(struct file_window *w)
{
    munmap(w->base, WINDOW_BYTES);
    w->f->nr_windows--;
    w->f = NULL;
}

/* Unused, or idle for long; NULL: none. */
static struct file_window *free_window(uint64_t now)
{
    struct file_window *oldest = NULL;

    for (struct file_window *w = windows; w < windows + NR_WINDOWS; w++) {
        if (!w->f)
            return w;
        if (!w->nr_loans && (!oldest || w->used_ns < oldest->used_ns))
            oldest = w;
    }
    if (!oldest || now - oldest->used_ns < IDLE_NS)
        return NULL;
    close_window(oldest);
    return oldest;
}

static struct file_window *open_window(struct file_node *f, uint64_t start_bytes, uint64_t now)
{
    struct file_window *w = free_window(now);
    void *base;

    if (!w)
        return NULL;
    base = mmap(NULL, WINDOW_BYTES, PROT_READ, MAP_SHARED, f->fd, (off_t)start_bytes);
    if (base == MAP_FAILED) {
        f->lends = false; /* some file systems can't */
        return NULL;
    }
    memset(w->seen, 0, sizeof(w->seen));
    w->f = f;
    w->start_bytes = start_bytes;
    w->base = base;
    f->nr_windows++;
    return w;
}

static struct file_window *get_window(struct file_node *f, uint64_t offset)
{
    uint64_t start = round_down_pow2(offset, WINDOW_BYTES), now = now_ns();
    struct file_window *w = f->window;

    if (!w || w->f != f || w->start_bytes != start) {
        for (w = windows; w < windows + NR_WINDOWS; w++)
            if (w->f == f && w->start_bytes == start)
                break;
        if (w == windows + NR_WINDOWS)
            w = open_window(f, start, now);
        f->window = w;
    }
    if (w)
        w->used_ns = now;
    return w;
}

/* Notes that the bytes are read now; true if they all had been before. */
static bool seen_before(struct file_window *w, uint64_t at, uint64_t bytes)
{
    bool all = true;

    for (uint64_t i = at / CHUNK_BYTES; i <= (at + bytes - 1) / CHUNK_BYTES; i++) {
        all &= w->seen[i];
        w->seen[i] = true;
    }
    return all;
}

/* In the page cache, and read from the disk already. */
static bool is_resident(const struct file_window *w, uint64_t at, uint64_t bytes)
{
    static uint64_t page_bytes;
    unsigned char page[LEND_MAX_BYTES / MIN_PAGE_BYTES + 1];
    uint64_t from, nr;

    if (!page_bytes)
        page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    from = round_down_pow2(at, page_bytes);
    nr = (at + bytes - from + page_bytes - 1) / page_bytes;
    if (mincore(w->base + from, at + bytes - from, page))
        return false;
    for (uint64_t i = 0; i < nr; i++)
        if (!(page[i] & 1))
            return false;
    return true;
}

/* ---- loans ----------------------------------------------------------------------------- */

static bool may_lend(const struct file_node *f, const struct blk_req *req)
{
    return req->loan && f->lends && !f->direct && req->niov == 1 &&
           req->length_bytes >= LEND_MIN_BYTES && req->length_bytes <= LEND_MAX_BYTES &&
           req->offset_bytes + req->length_bytes <= f->real_end && list_empty(&f->changes) &&
           req->offset_bytes % WINDOW_BYTES + req->length_bytes <= WINDOW_BYTES;
}

bool file_lend(struct file_node *f, struct blk_req *req)
{
    struct blk_loan *loan = req->loan;
    uint64_t at = req->offset_bytes % WINDOW_BYTES;
    struct file_window *w;

    if (!may_lend(f, req))
        return false;
    w = get_window(f, req->offset_bytes);
    if (!w || !seen_before(w, at, req->length_bytes))
        return false;
    if (!is_resident(w, at, req->length_bytes)) {
        memset(w->seen, 0, sizeof(w->seen)); /* its neighbours are likely gone as well */
        return false;
    }
    w->nr_loans++;
    loan->data = w->base + at;
    loan->result = 0;
    loan->buf = req->iov->iov_base;
    loan->bytes = req->length_bytes;
    loan->since_ns = w->used_ns;
    loan->lender = f;
    loan->window = w;
    loan->offset_bytes = req->offset_bytes;
    list_add_tail(&f->loans, &loan->link);
    return true;
}

void blk_loan_return(struct blk_loan *loan)
{
    struct file_window *w = loan->window;

    if (!loan->data)
        return;
    w->nr_loans--;
    list_del(&loan->link);
    loan->data = NULL;
}

/* Not from the mapping: a page that can't be had any more would be a signal. */
static int read_lent(const struct blk_loan *loan)
{
    const struct file_node *f = loan->lender;
    uint64_t done = 0;

    while (done < loan->bytes) {
        ssize_t got = pread(f->fd, (uint8_t *)loan->buf + done, loan->bytes - done,
                            (off_t)(loan->offset_bytes + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got ? -errno : -EIO;
        done += (uint64_t)got;
    }
    return 0;
}

void blk_loan_recall(struct blk_loan *loan)
{
    if (!loan->data)
        return;
    loan->result = read_lent(loan);
    blk_loan_return(loan);
    loan->recalled(loan);
}

void file_recall(struct file_node *f, uint64_t from_bytes, uint64_t end_bytes)
{
    struct blk_loan *loan, *next;

    list_for_each_entry_safe (loan, next, &f->loans, link) {
        if (loan->offset_bytes < end_bytes && from_bytes < loan->offset_bytes + loan->bytes)
            blk_loan_recall(loan);
    }
}

void file_stop_lending(struct file_node *f)
{
    file_recall(f, 0, UINT64_MAX);
    for (struct file_window *w = windows; f->nr_windows && w < windows + NR_WINDOWS; w++)
        if (w->f == f)
            close_window(w);
    f->window = NULL;
}
