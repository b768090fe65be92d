/* SPDX-License-Identifier: BSD-3-Clause */
/* Where daemon and tool find each other, and small things about directories. Pure of the loop. */
#ifndef COWTGT_PATHS_H
#define COWTGT_PATHS_H

#include <stddef.h>
#include <sys/types.h>

#include "util/error.h"

/* /run/cowtgt/control.sock, or under $XDG_RUNTIME_DIR when not root; without that in
 * /tmp/cowtgt-UID, which must be our own. 0 or -errno with @err. */
int path_default_socket(char *out, size_t len, struct error *err);
/* /var/lib/cowtgt, or under $XDG_STATE_HOME (~/.local/state) when not root; the same. */
int path_default_state_dir(char *out, size_t len, struct error *err);
/* mkdir -p; new directories get @mode. 0 or -1 with errno. Blocks. */
int path_make_dirs(const char *path, mode_t mode);
/* @path made absolute with the current directory; nothing is resolved. */
int path_absolute(const char *path, char *out, size_t len);

#endif
