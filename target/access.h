/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lists of who may come in: initiator names and address prefixes. Where names are given the name
 * must be one of them; where prefixes are given the address must lie in one of them; so a list
 * with both wants both. An empty list lets everybody in. Pure.
 */
#ifndef COWTGT_ACCESS_H
#define COWTGT_ACCESS_H

#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

struct access_prefix {
    uint8_t addr[16]; /* in network order, bits beyond @bits are 0 */
    uint8_t bytes;    /* 4: IPv4, 16: IPv6 */
    uint8_t bits;
};

struct access_list {
    char **names; /* lower-cased */
    unsigned nr_names;
    struct access_prefix *prefixes;
    unsigned nr_prefixes;
};

/* "192.0.2.1", "192.0.2.0/24", "2001:db8::/32", with or without brackets. */
bool access_prefix_parse(const char *text, struct access_prefix *p);
/* @name is checked by the caller. Harmless if it is there. -ENOMEM */
int access_add_name(struct access_list *l, const char *name);
int access_add_prefix(struct access_list *l, const struct access_prefix *p);
void access_release(struct access_list *l);
/* @peer: "ADDR:PORT" or "[V6]:PORT", as a connection has it. */
bool access_allows(const struct access_list *l, const char *initiator, const char *peer);

#endif
