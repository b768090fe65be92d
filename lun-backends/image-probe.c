/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Formats by magic number: ours, and those that must not be taken for raw by mistake (a guest
 * would see the container instead of its disk).
 */
#include "lun-backends/image-probe.h"

#include <stdbool.h>
#include <string.h>

#include "lun-backends/qcow2.h"
#include "util/size.h"

struct magic {
    const char *format;
    uint32_t offset_bytes;
    uint8_t length_bytes;
    bool in_foot;
    const char *bytes;
};

static const struct magic magics[] = {
    {"qcow (v1)", 0, 8, false, "QFI\xfb\0\0\0\1"},
    {"qed", 0, 4, false, "QED\0"},
    {"vmdk", 0, 4, false, "KDMV"},
    {"vmdk", 0, 4, false, "COWD"},
    {"vmdk", 0, 21, false, "# Disk DescriptorFile"},
    {"vhdx", 0, 8, false, "vhdxfile"},
    {"vhd", 0, 8, false, "conectix"},
    {"vhd", 0, 8, true, "conectix"}, /* fixed size: only a footer */
    {"vdi", 64, 4, false, "\x7f\x10\xda\xbe"},
    {"luks", 0, 6, false, "LUKS\xba\xbe"},
    {"parallels", 0, 16, false, "WithoutFreeSpace"},
    {"parallels", 0, 16, false, "WithouFreSpacExt"},
    {"bochs", 0, 22, false, "Bochs Virtual HD Image"},
};

const char *image_probe(const uint8_t *head, size_t len, const uint8_t *foot)
{
    for (size_t i = 0; i < ARRAY_LEN(magics); i++) {
        const struct magic *m = &magics[i];
        size_t have = m->in_foot ? IMAGE_PROBE_FOOT : len;

        if (m->offset_bytes + m->length_bytes <= have &&
            !memcmp((m->in_foot ? foot : head) + m->offset_bytes, m->bytes, m->length_bytes))
            return m->format;
    }
    return qcow2_probe(head, len) ? "qcow2" : "raw";
}
