/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * RAM disks: "ram:SIZE" where an image file's name is expected ("./ram:1G" is a file). Sparse;
 * bounded, all together, by half of the host's memory; gone when they are closed.
 */
#ifndef COWTGT_RAM_H
#define COWTGT_RAM_H

#include "lun-backends/block.h"

bool ram_is_name(const char *name);
/* Pure; -EINVAL with @err. */
int ram_size_from_name(const char *name, uint64_t *size_bytes, struct error *err);
/* A new disk of zeros. */
int co_ram_open(const char *name, bool writable, struct blk_node **node, struct error *err);
/* Memory it takes now. */
uint64_t ram_used_bytes(const struct blk_node *node);

#endif
