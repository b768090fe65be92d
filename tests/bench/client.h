/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the load generators share: options, the choice of the next block, a queue of commands over
 * one socket with batched sends, latencies, the line of JSON. A protocol adds its set-up and its
 * packets. One thread, one connection; everything is static, so nothing is freed.
 */
#ifndef COWTGT_TESTS_BENCH_CLIENT_H
#define COWTGT_TESTS_BENCH_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CLIENT_MAX_DEPTH 256
#define CLIENT_HDR_BYTES 64

struct client_opts {
    const char *host, *port, *name, *mode;
    unsigned lun, bytes, depth;
    double seconds, iops, warm_seconds;
    uint64_t span, seed, offset, count, poll_us;
    bool once, flush, digests;
};

enum client_verb { CLIENT_READ, CLIENT_WRITE, CLIENT_FLUSH };

struct client_protocol {
    const char *name;
    /* Logs in over client_socket(); returns the disk's size in bytes. */
    uint64_t (*login)(void);
    /* May one more command be sent now? */
    bool (*window)(void);
    void (*command)(unsigned slot, enum client_verb verb, uint64_t offset, uint32_t bytes);
    /* Takes one packet off @n bytes; how long it is, 0 while it is not whole. */
    size_t (*take)(uint8_t *p, size_t n);
};

extern struct client_opts client_opt;
extern uint8_t *client_payload; /* client_opt.bytes and some more */

/* Options, login, load, one line of JSON; the exit status. */
int client_main(int argc, char **argv, const struct client_protocol *proto);
void client_parse(int argc, char **argv);

void client_die(const char *what) __attribute__((noreturn));
/* The same without errno's text. */
void client_refuse(const char *what) __attribute__((noreturn));
uint64_t client_now_ns(void);
uint64_t client_random(void);

/* The next block to read or write by mode, seed, span; false: with -u, all have been. */
void client_set_size(uint64_t bytes);
bool client_pick(uint64_t *offset, bool *write);
/* A latency, and the result of all of them. */
void client_count(uint64_t started_ns, bool failed);
int client_report(const char *client, double seconds, double flush_ms);

void client_send_all(const void *p, size_t len);
void client_read_all(void *p, size_t len);
void client_skip(size_t len);

/* A zeroed packet header, queued: @bytes of it are sent. */
uint8_t *client_tx(size_t bytes);
/* Data behind it; stays valid until sent. */
void client_tx_data(const void *p, size_t len);
/* A command's answer. */
void client_done(unsigned slot, bool failed);
bool client_is_busy(unsigned slot);

#endif
