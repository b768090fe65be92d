/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A layer in memory for unit tests: a format node with units that are data, zeros or undecided, a
 * backing edge, and faults on demand. Every request runs in a coroutine of its own, and writes
 * one after the other, as under a range lock.
 */
#ifndef COWTGT_MEM_NODE_H
#define COWTGT_MEM_NODE_H

#include "lun-backends/block.h"
#include "util/coroutine.h"

struct mem_node {
    struct blk_node node;
    uint8_t *data;
    uint8_t *state; /* enum blk_state of each unit */
    uint64_t nr_units;

    /* faults and brakes, set at any time */
    bool down;                     /* reads fail -EHOSTDOWN */
    int read_error, write_error;   /* -errno, 0: none */
    int flush_error, status_error; /* -errno, 0: none */
    unsigned faults_left;          /* of an error set: how many fail before it clears; 0: all */
    uint64_t delay_ns;             /* before each READ and WRITE */
    bool hold_reads, hold_writes;  /* they wait until mem_node_release() */

    /* what happened */
    unsigned reads, writes, zeroes, flushes, statuses;
    unsigned running, most_running;
    uint64_t read_bytes, written_bytes;
    uint64_t overwritten_bytes; /* IF_UNALLOCATED bytes that found their unit decided */

    struct co_queue held;
    struct co_mutex write_lock;
};

/* @unit_bytes: power of two, at least 512; everything undecided. */
struct mem_node *mem_node_new(uint64_t size_bytes, uint32_t unit_bytes);
static inline struct mem_node *to_mem(struct blk_node *node)
{
    return container_of(node, struct mem_node, node);
}
/* Decides units at once, without a request: data of @fill (0 with BLK_ST_ZERO). */
void mem_node_fill(struct mem_node *m, uint64_t offset, uint64_t bytes, enum blk_state state,
                   uint8_t fill);
void mem_node_release(struct mem_node *m);
enum blk_state mem_node_state(const struct mem_node *m, uint64_t offset);

/* Turns of the loop until @cond, at most 10 s; the value of @cond. */
#define TURN_UNTIL(cond)                                       \
    ({                                                         \
        uint64_t turn_end_ = now_ns() + UINT64_C(10000000000); \
        while (!(cond) && now_ns() < turn_end_)                \
            mem_node_turn();                                   \
        (cond);                                                \
    })
/* One turn, sleeping at most some milliseconds. */
void mem_node_turn(void);
/* Runs @fn in a coroutine and turns the loop until it has returned. */
void mem_node_run(void (*fn)(void *arg), void *arg);

#endif
