/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The PDU decoder, and the cutting of Data-In series. Input: headers of 48 bytes, one after the
 * other, those of SCSI commands with their AHS; what is behind the last whole one says how a series
 * is cut.
 */
#include <stdlib.h>
#include <string.h>

#include "target/pdu.h"
#include "tests/fuzz/fuzz.h"
#include "util/byteorder.h"

static void decode(const uint8_t *raw, struct fuzz_bytes *in)
{
    uint8_t *bhs = fuzz_exact(raw, PDU_BHS_BYTES);
    struct pdu p;

    pdu_decode(bhs, &p);
    /* Known even of what is refused, so that it can be skipped. */
    FUZZ_REQUIRE(p.opcode == (raw[0] & 0x3f));
    FUZZ_REQUIRE(p.ahs_bytes == raw[4] * 4 && p.ahs_bytes <= PDU_MAX_AHS_BYTES);
    FUZZ_REQUIRE(p.data_bytes == get_be24(raw + 5));
    FUZZ_REQUIRE(p.itt == get_be32(raw + 16));
    if (p.opcode == PDU_SCSI_CMD && fuzz_left(in) >= p.ahs_bytes) {
        uint8_t *ahs = malloc(p.ahs_bytes + !p.ahs_bytes);
        size_t got;
        const uint8_t *from = fuzz_take(in, p.ahs_bytes, &got);

        memcpy(ahs, from, got);
        pdu_decode_ahs(ahs, &p);
        FUZZ_REQUIRE(p.cmd.cdb_bytes <= PDU_MAX_CDB_BYTES);
        free(ahs);
    }
    free(bhs);
}

static void cut(struct fuzz_bytes *in)
{
    uint64_t transfer = fuzz_u32(in);
    uint32_t edtl = fuzz_u32(in);
    struct pdu_residual r = pdu_residual(transfer, edtl);
    uint8_t first[PDU_BHS_BYTES], bhs[PDU_BHS_BYTES];

    FUZZ_REQUIRE(!(r.overflow && r.underflow));
    FUZZ_REQUIRE((r.bytes != 0) == (r.overflow || r.underflow));
    pdu_data_in(first, fuzz_u32(in), fuzz_u32(in), fuzz_u32(in));
    pdu_data_in_status(first, fuzz_u8(in), r);
    pdu_data_in_cut(bhs, first, fuzz_u8(in), fuzz_u16(in), fuzz_u16(in), true, fuzz_u8(in) & 1);
    FUZZ_REQUIRE(bhs[0] == PDU_DATA_IN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_bytes in = {data, data + size};
    size_t got;

    while (fuzz_left(&in) >= PDU_BHS_BYTES)
        decode(fuzz_take(&in, PDU_BHS_BYTES, &got), &in);
    cut(&in);
    return 0;
}
