/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mode parameters that are to outlive a restart: MODE SELECT with SP 1 (SPC-4 5.14). The values
 * are durable, as a line of text at a sink, before they take effect; if they can't be kept nothing
 * has changed. A reset goes back to what was saved last.
 */
#include "target/mode-pages.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#define LOG_AREA "scsi"
#include "util/log.h"

#define TEXT_BYTES 64

static struct {
    co_lun_text_sink_fn *save;
    void *opaque;
} sink;

void target_set_mode_sink(co_lun_text_sink_fn *fn, void *opaque)
{
    sink.save = fn;
    sink.opaque = opaque;
}

bool mode_can_save(void)
{
    return sink.save;
}

/* LUN:WCE:D_SENSE:SWP:ARMED:SETS */
static void to_text(char text[TEXT_BYTES], const struct mode_values *v, uint16_t number)
{
    snprintf(text, TEXT_BYTES, "%u:%d:%d:%d:%d:%" PRIu32, number, v->write_cache,
             v->sense_descriptor, v->software_protect, v->threshold_armed, v->threshold_sets);
}

int mode_from_text(struct mode_values *v, const char *text, uint16_t number)
{
    unsigned long f[6];
    const char *p = text;

    for (unsigned i = 0; i < 6; i++) {
        char *end;

        if (*p < '0' || *p > '9')
            return -EINVAL;
        errno = 0;
        f[i] = strtoul(p, &end, 10);
        if (errno || *end != (i < 5 ? ':' : '\0') || (i && i < 5 && f[i] > 1) || f[i] > UINT32_MAX)
            return -EINVAL;
        p = end + 1;
    }
    if (f[0] != number)
        return -EINVAL;
    *v = (struct mode_values){
        .write_cache = f[1],
        .sense_descriptor = f[2],
        .software_protect = f[3],
        .threshold_armed = f[4],
        .threshold_sets = (uint32_t)f[5],
    };
    return 0;
}

int co_mode_save(struct lun *lun, const struct mode_values *v)
{
    struct error err = ERROR_INIT;
    char text[TEXT_BYTES];
    int ret;

    to_text(text, v, lun->number);
    ret = sink.save(lun->target, lun->number, text, sink.opaque, &err);
    if (ret)
        log_err("LUN %u of %s: can't keep mode parameters: %s", lun->number,
                target_name(lun->target), err.msg);
    else
        lun->saved_mode = *v;
    return ret;
}
