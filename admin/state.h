/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What must survive a restart: STATE_DIR/state.json. The directory is locked, one daemon each.
 * The file is always written whole (temporary file, fsync, rename, fsync of the directory), so
 * that it is either the old one or the new one at any crash. A damaged file is an error that
 * names it; it is never dropped silently.
 */
#ifndef COWTGT_STATE_H
#define COWTGT_STATE_H

#include "admin/record.h"
#include "lun-backends/file.h"
#include "util/coroutine.h"

struct state {
    char *dir;
    int lock_fd;
    char initiator[224];        /* our name when we log in to others; made once */
    struct string_list portals; /* that were added to those of the command line, as portal_open()
                                   takes them */
    struct list_head chains;    /* of struct chain_record, in order of creation */
    struct list_head files;     /* of struct file_record, most recently used last */
    unsigned nr_files;
    struct co_mutex saving;
};

/* Blocks (start-up only): makes the directory if needed, locks it, loads. */
int state_open(const char *dir, struct state **state, struct error *err);
/* Writes everything as it is now. Coroutine; saves queue behind each other. */
int co_state_save(struct state *state, struct error *err);
/* Where what has happened stays, whether the state gets to the disk or not. */
void co_state_save_or_log(struct state *state);
/* Coroutine: another file of the directory, written whole in the same way, mode 0600. */
int co_state_write(const char *dir, const char *name, const char *text);
/* Lets go of the lock and the memory, records included. */
void state_close(struct state *state);

/*
 * The UUID of a sealed file's content: the one it had when @id is as it was at last sight, else a
 * new one. In the state at once, on disk with the next save.
 */
void state_file_uuid(struct state *state, const char *path, const struct file_identity *id,
                     struct uuid *uuid);
/* What the daemon knows better: a file that is as @id says has the content named @uuid. */
void state_set_file_uuid(struct state *state, const char *path, const struct file_identity *id,
                         const struct uuid *uuid);
/* The file in directory @dir that was last known to have the content @uuid; NULL: none. Whether it
 * still is as it was is for whoever opens it to see. */
const char *state_find_file(const struct state *state, const struct uuid *uuid, const char *dir);

#endif
