/* SPDX-License-Identifier: BSD-3-Clause */
/* The images that lives begin with: made by our own code, or by qemu-img. */
#ifndef COWTGT_CRASH_ORIGIN_H
#define COWTGT_CRASH_ORIGIN_H

#include "tests/crash/workload.h"

/* False: what @seed asks for needs qemu-img, and there is none. */
bool world_possible(uint64_t seed);
/* What is in *w is to be freed in any case. */
int co_make_world(struct world *w, uint64_t seed, struct error *err);
void co_free_world(struct world *w);
/* The longest disk there may be. */
uint64_t world_max_disk(void);

#endif
