/* SPDX-License-Identifier: BSD-3-Clause */
/* CHAP's arithmetic; see chap.h. Digests by OpenSSL; the secret is never copied. */
#include "target/chap.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/random.h>

#include "target/text.h"
#include "util/size.h"

/* IANA's "PPP Authentication Algorithms", as RFC 7143 12.1.3 and its registry list them. */
struct chap_algorithm {
    uint8_t number, digest_bytes;
    const EVP_MD *(*md)(void);
};

static const struct chap_algorithm algorithms[] = {
    {5, 16, EVP_md5},
    {6, 20, EVP_sha1},
    {7, 32, EVP_sha256},
    {8, 32, EVP_sha3_256},
};

/* FIPS builds of the library have no MD5. */
static bool available(const struct chap_algorithm *alg)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestInit_ex(ctx, alg->md(), NULL) == 1;

    EVP_MD_CTX_free(ctx);
    return good;
}

const struct chap_algorithm *chap_pick(const char *list)
{
    while (*list) {
        char number[12];
        size_t len = strcspn(list, ",");
        uint32_t v;

        if (len < sizeof(number)) {
            memcpy(number, list, len);
            number[len] = 0;
            for (size_t i = 0; text_number(number, &v) && i < ARRAY_LEN(algorithms); i++) {
                if (algorithms[i].number == v && available(&algorithms[i]))
                    return &algorithms[i];
            }
        }
        list += len + (list[len] == ',');
    }
    return NULL;
}

unsigned chap_number(const struct chap_algorithm *alg)
{
    return alg->number;
}

size_t chap_digest_bytes(const struct chap_algorithm *alg)
{
    return alg->digest_bytes;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* RFC 7143 6.1 hex-constant; an odd number of digits has a zero in front. */
static int decode_hex(const char *text, uint8_t *out, size_t max)
{
    size_t digits = strlen(text), len = (digits + 1) / 2;

    if (!digits || len > max)
        return -EINVAL;
    memset(out, 0, len);
    for (size_t i = 0, at = digits % 2; i < digits; i++, at++) {
        int d = hex_digit(text[i]);

        if (d < 0)
            return -EINVAL;
        out[at / 2] = (uint8_t)(out[at / 2] << 4 | d);
    }
    return (int)len;
}

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = c ? strchr(digits, c) : NULL;

    return p ? (int)(p - digits) : -1;
}

/* RFC 4648 section 4: groups of four, padded; no bits may be left over. */
static int decode_base64(const char *text, uint8_t *out, size_t max)
{
    size_t chars = strlen(text), pad = 0, len;
    uint32_t bits = 0;

    while (pad < 2 && pad < chars && text[chars - 1 - pad] == '=')
        pad++;
    len = chars / 4 * 3 - pad;
    if (!chars || chars % 4 || len > max)
        return -EINVAL;
    for (size_t i = 0, at = 0; i < chars; i++) {
        int d = i < chars - pad ? base64_digit(text[i]) : 0;

        if (d < 0)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 != 3)
            continue;
        for (int shift = 16; shift >= 0; shift -= 8) {
            if (at < len)
                out[at++] = (uint8_t)(bits >> shift);
            else if (bits >> shift & 0xff)
                return -EINVAL;
        }
        bits = 0;
    }
    return (int)len;
}

int chap_decode(const char *text, uint8_t *out, size_t max)
{
    if (text[0] != '0')
        return -EINVAL;
    if (text[1] == 'x' || text[1] == 'X')
        return decode_hex(text + 2, out, max);
    return text[1] == 'b' || text[1] == 'B' ? decode_base64(text + 2, out, max) : -EINVAL;
}

void chap_encode(const uint8_t *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";

    *out++ = '0';
    *out++ = 'x';
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = 0;
}

int chap_random(void *out, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = getrandom((uint8_t *)out + done, len - done, 0);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            done += (size_t)n;
    }
    return 0;
}

/* RFC 1994 4.1: digest of identifier, secret, challenge. */
int chap_response(const struct chap_algorithm *alg, uint8_t id, const struct chap_account *account,
                  const uint8_t *challenge, size_t challenge_bytes, uint8_t out[CHAP_DIGEST_MAX])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestInit_ex(ctx, alg->md(), NULL) == 1 &&
                EVP_DigestUpdate(ctx, &id, 1) == 1 &&
                EVP_DigestUpdate(ctx, account->secret, account->secret_bytes) == 1 &&
                EVP_DigestUpdate(ctx, challenge, challenge_bytes) == 1 &&
                EVP_DigestFinal_ex(ctx, out, NULL) == 1;

    EVP_MD_CTX_free(ctx);
    return good ? 0 : -EIO;
}

bool chap_same(const uint8_t *a, const uint8_t *b, size_t len)
{
    return !CRYPTO_memcmp(a, b, len);
}
