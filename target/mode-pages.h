/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What mode-pages.c (the pages as initiators see them) and mode-saved.c (what is kept of them)
 * know of each other.
 */
#ifndef COWTGT_MODE_PAGES_H
#define COWTGT_MODE_PAGES_H

#include "target/lun.h"

/* There is somebody who keeps them: SP and PS may be 1. */
bool mode_can_save(void);
/* Coroutine: durable and in lun->saved_mode, or -errno and nothing has happened. */
int co_mode_save(struct lun *lun, const struct mode_values *v);

#endif
