/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Running as a daemon: the parent stays until the child says that it is ready, so that whoever
 * started it may use the control socket at once, and sees its exit status.
 */
#ifndef COWTGT_BACKGROUND_H
#define COWTGT_BACKGROUND_H

/* Before any thread or loop. Returns in the child only; the parent exits 0 or 1 with it. -errno. */
int background_start(void);
/* Ready: standard output and error go to @log_path from here on, the parent exits 0. */
int background_ready(const char *log_path);
/* Opens the log file anew (it was renamed); nothing in the foreground. */
void background_reopen_log(void);
/* Tells systemd (sd_notify(3)) where it listens; nothing where it doesn't. */
void service_notify(const char *text);

#endif
