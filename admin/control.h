/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket: clients, their bytes in and out. What a request means is the business of
 * whoever opens it. Each client has a coroutine that answers its requests in order; a client that
 * stops reading is disconnected once CONTROL_MAX_OUTPUT bytes wait for it.
 */
#ifndef COWTGT_CONTROL_H
#define COWTGT_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include "util/error.h"

#define CONTROL_MAX_OUTPUT  (1u << 20)
#define CONTROL_MAX_CLIENTS 64

struct control;

struct control_ops {
    json_t *(*greeting)(void *opaque);
    /*
     * Coroutine. @request is any JSON value, or NULL: @err says what is wrong with the input. The
     * answer is a new reference. *@negotiated is the client's: true lets events through.
     */
    json_t *(*co_answer)(json_t *request, const struct error *err, bool *negotiated, void *opaque);
};

/*
 * Binds @path, mode 0600. A socket file that nobody answers on is replaced; anything else in its
 * place is an error. Blocks shortly (start-up only).
 */
int control_open(const char *path, const struct control_ops *ops, void *opaque,
                 struct control **control, struct error *err);
/* To every client that has negotiated. */
void control_broadcast(struct control *ctl, const json_t *msg);
/* Coroutine: no new clients; lets the present ones have what waits for them (at most a second),
 * disconnects them, removes the socket file. False: a command still runs, nothing was freed. */
bool co_control_close(struct control *ctl);

#endif
