/* SPDX-License-Identifier: BSD-3-Clause */
/* chain-pull: what is asked for, and doing it. */
#ifndef COWTGT_PULL_H
#define COWTGT_PULL_H

#include <jansson.h>
#include "admin/chains.h"

struct pull_opts {
    const char *url, *into_dir;
    const char *user, *secret_file; /* what initiators log in with; NULL: nothing */
    const char *format; /* of the local copy: "qcow2" or "raw" */
    bool quiesced; /* the user vouches that nobody writes to the source */
    bool start_stream;
    json_t *warnings; /* array; what the user should know is appended */
};

/*
 * Coroutine. @rec: name, target, allowed and the wishes about streaming are set; taken over. Makes
 * the overlay, joins it to the source, saves, serves, starts the stream. Returns the chain,
 * claimed, or NULL with everything undone.
 */
struct chain *co_pull(struct daemon *d, struct chain_record *rec, const struct pull_opts *opts,
                      struct error *err);

#endif
