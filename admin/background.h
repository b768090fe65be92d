/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Running as a daemon: the parent stays until the child says that it is ready, so that whoever
 * started it may use the control socket at once, and sees its exit status.
 */
#ifndef COWTGT_BACKGROUND_H
#define COWTGT_BACKGROUND_H

/* Before any thread or loop. Returns in the child only; the parent exits 0 or 1 with it. -errno. */
int background_start(void);
/* Standard output and error go to @path from here on, only complaints to whoever started us, too.
 */
int background_log_to(const char *path);
/* Why the start failed: the one line that the starter sees. In the foreground as well. */
void background_complain(const char *what);
/* The parent exits 0; nothing in the foreground. */
void background_ready(void);
/* Opens the log file anew (it was renamed); nothing in the foreground. */
void background_reopen_log(void);
/* Tells systemd (sd_notify(3)) where it listens; nothing where it doesn't. */
void service_notify(const char *text);

#endif
