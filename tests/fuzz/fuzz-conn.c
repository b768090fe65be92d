/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A whole connection, from the first Login Request: PDUs in, answers out, over a socket pair, with
 * a disk in memory behind it. Input: what the initiator sends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "target/session.h"
#include "target/target.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/mem-node.h"
#include "util/byteorder.h"
#include "util/loop.h"
#include "util/size.h"

#define TARGET_NAME "iqn.2026-11.com.example:fuzz"
#define DISK_BYTES  (1u << 20)
#define MAX_TURNS   20000

struct scene {
    struct target *target;
    struct mem_node *disk;
};

static void co_build(void *arg)
{
    struct scene *s = arg;
    struct error err = ERROR_INIT;
    struct lun_opts opts = {.writable = true};

    s->target = target_create(TARGET_NAME, &err);
    s->disk = mem_node_new(DISK_BYTES, 4096);
    FUZZ_REQUIRE(s->target);
    opts.root = &s->disk->node;
    FUZZ_REQUIRE(target_add_lun(s->target, &opts, &err));
}

static void co_tear_down(void *arg)
{
    struct scene *s = arg;

    co_target_destroy(s->target);
    co_blk_node_unref(&s->disk->node);
}

static bool seen(struct conn *c, void *arg)
{
    (void)c;
    *(bool *)arg = true;
    return false;
}

static bool any_connection(void)
{
    bool any = false;

    conn_for_each(seen, &any);
    return any;
}

static void drop_answers(int fd)
{
    char buf[16384];

    while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
        ;
}

static void turn(int fd)
{
    loop_turn(false);
    drop_answers(fd);
}

/* False when the target has hung up. */
static bool send_all(int fd, const uint8_t *data, size_t len)
{
    for (unsigned turns = 0; len && any_connection() && turns < MAX_TURNS; turns++) {
        ssize_t n = send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN)
            return false;
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
        turn(fd);
    }
    return any_connection();
}

/* One PDU after the other, as their headers say, each when the one before has been thought over:
 * what answers an R2T has to come after it. */
static void talk(int fd, struct fuzz_bytes *in)
{
    bool open = true;

    while (open && fuzz_left(in)) {
        size_t pdu = PDU_BHS_BYTES, got;

        if (fuzz_left(in) >= PDU_BHS_BYTES)
            pdu += in->pos[4] * 4u + round_up_pow2(get_be24(in->pos + 5), 4);
        const uint8_t *data = fuzz_take(in, pdu, &got);

        open = send_all(fd, data, got);
        for (int i = 0; open && i < 3; i++)
            turn(fd);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_bytes in = {data, data + size};
    struct scene s;
    int pair[2];
    unsigned turns = 0;

    fuzz_world();
    fuzz_run(co_build, &s);
    FUZZ_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
    FUZZ_REQUIRE(conn_new(pair[0], NULL, PORTAL_DEFAULT_GROUP));
    talk(pair[1], &in);
    close(pair[1]);
    while (any_connection() && turns++ < MAX_TURNS)
        loop_turn(false);
    FUZZ_REQUIRE(!any_connection());
    fuzz_run(co_tear_down, &s);
    return 0;
}
