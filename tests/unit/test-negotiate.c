/* SPDX-License-Identifier: BSD-3-Clause */
/* Negotiation: for each kind of key, what is answered and what then holds. */
#include <errno.h>
#include <string.h>

#include "target/negotiate.h"
#include "tests/unit/ctest.h"

struct talk {
    struct negotiation n;
    struct text_buf out;
    int rc;
};

static void begin(struct talk *t)
{
    negotiation_init(&t->n);
    text_init(&t->out, TEXT_MAX_BYTES);
}

/* Offers one pair; returns our whole answer as text, "" for none. */
static const char *offer(struct talk *t, enum neg_phase phase, const char *key, const char *value)
{
    text_release(&t->out);
    t->rc = negotiate_key(&t->n, phase, key, value, &t->out);
    return t->out.len ? t->out.data : "";
}

#define ANSWER(phase, key, value, expected)                \
    do {                                                   \
        struct talk t;                                     \
        begin(&t);                                         \
        CHECK_STR(offer(&t, phase, key, value), expected); \
        CHECK_EQ(t.rc, 0);                                 \
        text_release(&t.out);                              \
    } while (0)
#define OP(key, value, expected) ANSWER(NEG_OPERATIONAL, key, value, expected)

TEST(negotiate, digest_in_the_order_of_the_initiator)
{
    OP("HeaderDigest", "CRC32C,None", "HeaderDigest=CRC32C");
    OP("HeaderDigest", "None,CRC32C", "HeaderDigest=None");
    OP("DataDigest", "X-mine,CRC32C", "DataDigest=CRC32C");
    OP("DataDigest", "CRC64", "DataDigest=Reject");
    OP("DataDigest", "CRC32CX,", "DataDigest=Reject");
}

TEST(negotiate, smaller_number_wins)
{
    OP("MaxBurstLength", "262144", "MaxBurstLength=262144");
    OP("MaxBurstLength", "16776192", "MaxBurstLength=1048576");
    OP("FirstBurstLength", "1048576", "FirstBurstLength=262144");
    OP("MaxOutstandingR2T", "65535", "MaxOutstandingR2T=8");
    OP("MaxOutstandingR2T", "3", "MaxOutstandingR2T=3");
    OP("MaxConnections", "4", "MaxConnections=1");
    OP("ErrorRecoveryLevel", "2", "ErrorRecoveryLevel=0");
    OP("DefaultTime2Retain", "20", "DefaultTime2Retain=0");
}

/* Offers a whole text; returns our answer with ';' for NUL. */
static const char *offer_text(struct talk *t, const char *text, size_t len)
{
    static char copy[1024];

    memcpy(copy, text, len);
    text_release(&t->out);
    t->rc = negotiate_text(&t->n, NEG_OPERATIONAL, copy, len, &t->out);
    for (size_t i = 0; i + 1 < t->out.len; i++) {
        if (!t->out.data[i])
            t->out.data[i] = ';';
    }
    return t->out.len ? t->out.data : "";
}
#define TEXT(t, text) offer_text(t, text, sizeof(text))

TEST(negotiate, first_burst_is_never_above_max_burst)
{
    struct talk t;

    begin(&t);
    CHECK_STR(TEXT(&t, "FirstBurstLength=65536\0MaxBurstLength=4096"),
              "MaxBurstLength=4096;FirstBurstLength=4096");
    CHECK_EQ(t.n.params.first_burst, 4096);
    text_release(&t.out);
    begin(&t);
    CHECK_STR(TEXT(&t, "FirstBurstLength=65536\0FirstBurstLength=512"), "FirstBurstLength=512");
    CHECK_EQ(t.rc, -EPROTO);
    text_release(&t.out);
}

TEST(negotiate, names_are_settled_by_the_first_request)
{
    struct talk t;

    begin(&t);
    t.n.named = true;
    offer(&t, NEG_OPERATIONAL, "SessionType", "Discovery");
    CHECK_EQ(t.rc, -EPROTO);
    CHECK(!t.n.discovery);
    offer(&t, NEG_OPERATIONAL, "TargetName", "iqn.x");
    CHECK_EQ(t.rc, -EPROTO);
    text_release(&t.out);
}

TEST(negotiate, a_connection_opened_anew_can_not_change_the_session)
{
    struct talk t;

    begin(&t);
    t.n.joins = true;
    CHECK_STR(offer(&t, NEG_OPERATIONAL, "InitialR2T", "No"), "InitialR2T=Reject");
    CHECK(t.n.params.initial_r2t);
    CHECK_STR(offer(&t, NEG_OPERATIONAL, "ErrorRecoveryLevel", "0"), "ErrorRecoveryLevel=Reject");
    CHECK_STR(offer(&t, NEG_OPERATIONAL, "HeaderDigest", "CRC32C"), "HeaderDigest=CRC32C");
    text_release(&t.out);
}

TEST(negotiate, larger_number_wins)
{
    OP("DefaultTime2Wait", "0", "DefaultTime2Wait=2");
    OP("DefaultTime2Wait", "5", "DefaultTime2Wait=5");
}

TEST(negotiate, numbers_outside_of_their_range_are_rejected)
{
    OP("MaxBurstLength", "511", "MaxBurstLength=Reject");
    OP("MaxBurstLength", "16777216", "MaxBurstLength=Reject");
    OP("MaxOutstandingR2T", "0", "MaxOutstandingR2T=Reject");
    OP("ErrorRecoveryLevel", "3", "ErrorRecoveryLevel=Reject");
    OP("DefaultTime2Wait", "many", "DefaultTime2Wait=Reject");
}

TEST(negotiate, a_rejected_offer_leaves_the_default)
{
    struct talk t;

    begin(&t);
    offer(&t, NEG_OPERATIONAL, "MaxBurstLength", "1");
    offer(&t, NEG_OPERATIONAL, "InitialR2T", "maybe");
    CHECK_EQ(t.n.params.max_burst, 262144);
    CHECK(t.n.params.initial_r2t);
    text_release(&t.out);
}

TEST(negotiate, booleans)
{
    OP("InitialR2T", "Yes", "InitialR2T=Yes");
    OP("InitialR2T", "No", "InitialR2T=No");
    OP("ImmediateData", "Yes", "ImmediateData=Yes");
    OP("ImmediateData", "No", "ImmediateData=No");
    OP("DataPDUInOrder", "No", "DataPDUInOrder=Yes");
    OP("DataSequenceInOrder", "No", "DataSequenceInOrder=Yes");
    OP("InitialR2T", "yes", "InitialR2T=Reject");
}

TEST(negotiate, results_are_kept)
{
    struct talk t;

    begin(&t);
    offer(&t, NEG_OPERATIONAL, "InitialR2T", "No");
    offer(&t, NEG_OPERATIONAL, "HeaderDigest", "CRC32C");
    offer(&t, NEG_OPERATIONAL, "FirstBurstLength", "8192");
    CHECK(!t.n.params.initial_r2t);
    CHECK(t.n.params.header_digest && !t.n.params.data_digest);
    CHECK_EQ(t.n.params.first_burst, 8192);
    text_release(&t.out);
}

TEST(negotiate, declarations_have_no_answer)
{
    struct talk t;

    begin(&t);
    CHECK_STR(offer(&t, NEG_OPERATIONAL, "MaxRecvDataSegmentLength", "8192"), "");
    CHECK_EQ(t.n.params.max_xmit_segment, 8192);
    CHECK_STR(offer(&t, NEG_SECURITY, "InitiatorName", "iqn.1993-08.org.debian:01:abc"), "");
    CHECK_STR(t.n.initiator_name, "iqn.1993-08.org.debian:01:abc");
    offer(&t, NEG_SECURITY, "SessionType", "Discovery");
    CHECK(t.n.discovery);
    text_release(&t.out);
}

TEST(negotiate, impossible_declarations_fail)
{
    struct talk t;
    char name[ISCSI_NAME_MAX + 2];

    begin(&t);
    offer(&t, NEG_OPERATIONAL, "MaxRecvDataSegmentLength", "511");
    CHECK_EQ(t.rc, -EPROTO);
    memset(name, 'a', sizeof(name));
    name[sizeof(name) - 1] = 0;
    offer(&t, NEG_SECURITY, "InitiatorName", name);
    CHECK_EQ(t.rc, -EPROTO);
    offer(&t, NEG_SECURITY, "TargetName", "");
    CHECK_EQ(t.rc, -EPROTO);
    text_release(&t.out);
}

TEST(negotiate, a_key_twice_fails)
{
    struct talk t;

    begin(&t);
    offer(&t, NEG_OPERATIONAL, "InitialR2T", "No");
    CHECK_EQ(t.rc, 0);
    offer(&t, NEG_OPERATIONAL, "InitialR2T", "Yes");
    CHECK_EQ(t.rc, -EPROTO);
    CHECK(!t.n.params.initial_r2t);
    text_release(&t.out);
}

TEST(negotiate, unknown_keys)
{
    OP("X-com.example.Speed", "9", "X-com.example.Speed=NotUnderstood");
    OP("NodeArchitecture", "cray", "NodeArchitecture=NotUnderstood");
    OP("NodeArchitecture", "NotUnderstood", "");
}

TEST(negotiate, markers_are_declined)
{
    OP("OFMarker", "Yes", "OFMarker=No");
    OP("IFMarker", "No", "IFMarker=No");
}

TEST(negotiate, authentication_methods_are_noted_for_login_to_answer)
{
    struct talk t;

    begin(&t);
    CHECK_STR(offer(&t, NEG_SECURITY, "AuthMethod", "CHAP,None"), "");
    CHECK(t.n.auth_offered && t.n.auth_none && t.n.auth_chap);
    text_release(&t.out);
    begin(&t);
    CHECK_STR(offer(&t, NEG_SECURITY, "AuthMethod", "CHAP"), "");
    CHECK(t.n.auth_offered && !t.n.auth_none && t.n.auth_chap);
    text_release(&t.out);
}

TEST(negotiate, keys_of_another_phase)
{
    struct talk t;

    begin(&t);
    offer(&t, NEG_OPERATIONAL, "AuthMethod", "None");
    CHECK_EQ(t.rc, -EPROTO);
    offer(&t, NEG_SECURITY, "HeaderDigest", "None");
    CHECK_EQ(t.rc, -EPROTO);
    offer(&t, NEG_OPERATIONAL, "SendTargets", "All");
    CHECK_EQ(t.rc, -EPROTO);
    offer(&t, NEG_SECURITY, "TargetPortalGroupTag", "1");
    CHECK_EQ(t.rc, -EPROTO);
    text_release(&t.out);
    ANSWER(NEG_FULL, "MaxBurstLength", "512", "MaxBurstLength=Reject");
    ANSWER(NEG_FULL, "MaxRecvDataSegmentLength", "4096", "");
}

TEST(negotiate, a_discovery_session_has_no_bursts)
{
    struct talk t;

    begin(&t);
    t.n.discovery = true;
    CHECK_STR(offer(&t, NEG_OPERATIONAL, "MaxBurstLength", "512"), "MaxBurstLength=Irrelevant");
    CHECK_STR(offer(&t, NEG_OPERATIONAL, "HeaderDigest", "None"), "HeaderDigest=None");
    text_release(&t.out);
}

TEST(negotiate, our_segment_length_is_declared_once)
{
    struct talk t;

    begin(&t);
    negotiate_declare(&t.n, &t.out);
    REQUIRE(t.out.len);
    CHECK_STR(t.out.data, "MaxRecvDataSegmentLength=262144");
    text_release(&t.out);
    negotiate_declare(&t.n, &t.out);
    CHECK_EQ(t.out.len, 0);
    text_release(&t.out);
}

TEST(negotiate, bad_text_fails_as_a_whole)
{
    struct talk t;
    char text[] = "HeaderDigest=None\0garbage";

    begin(&t);
    CHECK_EQ(negotiate_text(&t.n, NEG_OPERATIONAL, text, sizeof(text), &t.out), -EINVAL);
    text_release(&t.out);
}
