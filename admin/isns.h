/* SPDX-License-Identifier: BSD-3-Clause */
/* Keeps the name server's picture of our targets and portals that of the daemon. */
#ifndef COWTGT_ADMIN_ISNS_H
#define COWTGT_ADMIN_ISNS_H

#include <stdbool.h>
#include "util/error.h"

/* After the portals were opened: registers at @server, and from then on whenever a target comes or
 * goes. @domains: who may log in is also up to the server's discovery domains. */
int sns_follow(const char *server, bool domains, struct error *err);

#endif
