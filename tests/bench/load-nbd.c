/* SPDX-License-Identifier: BSD-3-Clause */
/* The load generator for NBD servers (fixed newstyle, simple replies); options as for load.c. */
#include "tests/bench/client.h"

#include <string.h>
#include "util/byteorder.h"

#define NBD_OPT_MAGIC   UINT64_C(0x49484156454f5054)
#define NBD_REP_MAGIC   UINT64_C(0x0003e889045565a9)
#define NBD_REQ_MAGIC   0x25609513u
#define NBD_REPLY_MAGIC 0x67446698u
#define REQUEST_BYTES   28
#define REPLY_BYTES     16

enum { OPT_GO = 7, REP_ACK = 1, REP_INFO = 3, INFO_EXPORT = 0 };
enum { CMD_READ = 0, CMD_WRITE = 1, CMD_FLUSH = 3 };

static enum client_verb verb_of[CLIENT_MAX_DEPTH + 1];

static void send_go(void)
{
    uint32_t len = (uint32_t)strlen(client_opt.name);
    uint8_t m[26] = {0};

    put_be32(m, 3); /* fixed newstyle, no zeroes */
    put_be64(m + 4, NBD_OPT_MAGIC);
    put_be32(m + 12, OPT_GO);
    put_be32(m + 16, 4 + len + 2);
    put_be32(m + 20, len);
    client_send_all(m, 24);
    client_send_all(client_opt.name, len);
    client_send_all((uint8_t[2]){0}, 2);
}

static uint64_t login(void)
{
    uint8_t m[20];
    uint64_t size = 0;

    client_read_all(m, 18);
    if (get_be64(m + 8) != NBD_OPT_MAGIC)
        client_refuse("not an NBD server of the new style");
    send_go();
    for (;;) {
        uint32_t type, len;

        client_read_all(m, 20);
        type = get_be32(m + 12);
        len = get_be32(m + 16);
        if (get_be64(m) != NBD_REP_MAGIC || (type != REP_ACK && type != REP_INFO))
            client_refuse("the NBD server refuses the export");
        if (type == REP_ACK)
            return size;
        if (len == 12) {
            client_read_all(m, 12);
            if (get_be16(m) == INFO_EXPORT)
                size = get_be64(m + 2);
        } else {
            client_skip(len);
        }
    }
}

static bool window(void)
{
    return true;
}

static void command(unsigned slot, enum client_verb verb, uint64_t offset, uint32_t bytes)
{
    static const uint8_t type[] = {CMD_READ, CMD_WRITE, CMD_FLUSH};
    uint8_t *h = client_tx(REQUEST_BYTES);

    put_be32(h, NBD_REQ_MAGIC);
    put_be16(h + 6, type[verb]);
    put_be64(h + 8, slot);
    put_be64(h + 16, offset);
    put_be32(h + 24, bytes);
    verb_of[slot] = verb;
    if (verb == CLIENT_WRITE)
        client_tx_data(client_payload, bytes);
}

static size_t take(uint8_t *p, size_t n)
{
    size_t total = REPLY_BYTES;
    uint64_t slot;

    if (n < REPLY_BYTES)
        return 0;
    slot = get_be64(p + 8);
    if (get_be32(p) != NBD_REPLY_MAGIC || slot > CLIENT_MAX_DEPTH)
        client_refuse("not an NBD reply");
    if (verb_of[slot] == CLIENT_READ && !get_be32(p + 4))
        total += client_opt.bytes;
    if (n < total)
        return 0;
    client_done((unsigned)slot, get_be32(p + 4) != 0);
    return total;
}

int main(int argc, char **argv)
{
    static const struct client_protocol nbd = {"nbd", login, window, command, take};

    return client_main(argc, argv, &nbd);
}
