/* SPDX-License-Identifier: BSD-3-Clause */
/* A client of the control socket, blocking; for the tool. */
#ifndef COWTGT_QMP_CLIENT_H
#define COWTGT_QMP_CLIENT_H

#include <jansson.h>
#include "util/error.h"

struct qmp_client;

/* Connects and negotiates. */
int qmp_client_connect(const char *path, struct qmp_client **client, struct error *err);
void qmp_client_close(struct qmp_client *client);
/* Sends a request; events that come before its reply wait for qmp_client_event(). The whole reply
 * is in *reply, also when it is an error. */
int qmp_client_call(struct qmp_client *client, json_t *request, json_t **reply, struct error *err);
/* The next event: 1; 0: none within @timeout_ms (-1: no limit) or a signal came. */
int qmp_client_event(struct qmp_client *client, int timeout_ms, json_t **event, struct error *err);

#endif
