/* SPDX-License-Identifier: BSD-3-Clause */
/* Access lists; see access.h. What can't be read as an address matches no prefix. */
#include "target/access.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "target/text.h"

static bool parse_ip(const char *text, size_t len, struct access_prefix *p)
{
    char ip[INET6_ADDRSTRLEN];

    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    if (len >= sizeof(ip))
        return false;
    memcpy(ip, text, len);
    ip[len] = 0;
    memset(p, 0, sizeof(*p));
    p->bytes = strchr(ip, ':') ? 16 : 4;
    p->bits = (uint8_t)(8 * p->bytes);
    return inet_pton(p->bytes == 16 ? AF_INET6 : AF_INET, ip, p->addr) == 1;
}

static bool in_prefix(const struct access_prefix *p, const struct access_prefix *host)
{
    unsigned whole = p->bits / 8, rest = p->bits % 8;

    if (p->bytes != host->bytes || memcmp(p->addr, host->addr, whole))
        return false;
    return !rest || !((p->addr[whole] ^ host->addr[whole]) >> (8 - rest));
}

bool access_prefix_parse(const char *text, struct access_prefix *p)
{
    size_t len = strcspn(text, "/");
    uint32_t bits;

    if (!parse_ip(text, len, p))
        return false;
    if (!text[len])
        return true;
    if (!text_number(text + len + 1, &bits) || bits > p->bits)
        return false;
    p->bits = (uint8_t)bits;
    for (unsigned i = bits; i < 8u * p->bytes; i++)
        p->addr[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
    return true;
}

static bool has_name(const struct access_list *l, const char *name)
{
    for (unsigned i = 0; i < l->nr_names; i++) {
        if (!strcasecmp(l->names[i], name))
            return true;
    }
    return false;
}

int access_add_name(struct access_list *l, const char *name)
{
    char **names;

    if (has_name(l, name))
        return 0;
    names = reallocarray(l->names, l->nr_names + 1, sizeof(*names));
    if (!names)
        return -ENOMEM;
    l->names = names;
    names[l->nr_names] = strdup(name);
    if (!names[l->nr_names])
        return -ENOMEM;
    l->nr_names++;
    return 0;
}

int access_add_prefix(struct access_list *l, const struct access_prefix *p)
{
    struct access_prefix *prefixes =
        reallocarray(l->prefixes, l->nr_prefixes + 1, sizeof(*prefixes));

    if (!prefixes)
        return -ENOMEM;
    l->prefixes = prefixes;
    prefixes[l->nr_prefixes++] = *p;
    return 0;
}

void access_release(struct access_list *l)
{
    for (unsigned i = 0; i < l->nr_names; i++)
        free(l->names[i]);
    free(l->names);
    free(l->prefixes);
    memset(l, 0, sizeof(*l));
}

static bool address_allowed(const struct access_list *l, const char *peer)
{
    const char *colon = strrchr(peer, ':');
    struct access_prefix host;

    if (!colon || !parse_ip(peer, (size_t)(colon - peer), &host))
        return false;
    for (unsigned i = 0; i < l->nr_prefixes; i++) {
        if (in_prefix(&l->prefixes[i], &host))
            return true;
    }
    return false;
}

bool access_allows(const struct access_list *l, const char *initiator, const char *peer)
{
    return (!l->nr_names || has_name(l, initiator)) &&
           (!l->nr_prefixes || address_allowed(l, peer));
}
