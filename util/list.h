/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Intrusive doubly linked list. An entry is on at most one list through one
 * link; list_del() leaves the link pointing at itself, so list_del() twice is
 * harmless and list_is_linked() tells the truth.
 */
#ifndef COWTGT_UTIL_LIST_H
#define COWTGT_UTIL_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_head {
    struct list_head *next, *prev;
};

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define LIST_HEAD_INIT(name) \
    {                        \
        &(name), &(name)     \
    }

static inline void list_init(struct list_head *h)
{
    h->next = h->prev = h;
}

static inline bool list_empty(const struct list_head *h)
{
    return h->next == h;
}

static inline bool list_is_linked(const struct list_head *e)
{
    return e->next && e->next != e;
}

static inline void list_add_tail(struct list_head *h, struct list_head *e)
{
    e->prev = h->prev;
    e->next = h;
    h->prev->next = e;
    h->prev = e;
}

static inline void list_add(struct list_head *h, struct list_head *e)
{
    e->next = h->next;
    e->prev = h;
    h->next->prev = e;
    h->next = e;
}

static inline void list_del(struct list_head *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    list_init(e);
}

/* Moves all of @from to the tail of @to; @from is empty afterwards. */
static inline void list_splice_tail(struct list_head *to, struct list_head *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    list_init(from);
}

#define list_entry(ptr, type, member)     container_of(ptr, type, member)
#define list_first_entry(h, type, member) container_of((h)->next, type, member)

#define list_for_each_entry(pos, h, member)                                            \
    for (pos = container_of((h)->next, __typeof__(*pos), member); &pos->member != (h); \
         pos = container_of(pos->member.next, __typeof__(*pos), member))

/* @pos may be removed (and freed) in the body; its neighbours may not. */
#define list_for_each_entry_safe(pos, tmp, h, member)                   \
    for (pos = container_of((h)->next, __typeof__(*pos), member),       \
        tmp = container_of(pos->member.next, __typeof__(*pos), member); \
         &pos->member != (h);                                           \
         pos = tmp, tmp = container_of(tmp->member.next, __typeof__(*tmp), member))

#endif
