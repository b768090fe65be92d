/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finds JSON values in a stream of bytes, with or without anything between them. Pure: bytes in,
 * values and errors out. Memory is bounded by JSON_STREAM_MAX_BYTES a stream.
 */
#ifndef COWTGT_JSON_STREAM_H
#define COWTGT_JSON_STREAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "util/error.h"

#define JSON_STREAM_MAX_BYTES (1u << 20)
#define JSON_STREAM_MAX_DEPTH 64

enum json_stream_state {
    JS_BETWEEN,    /* between values */
    JS_IN_VALUE,   /* inside brackets, outside strings */
    JS_IN_STRING,  /* may be a value of its own (depth 0) */
    JS_IN_ESCAPE,  /* after a backslash */
    JS_IN_SCALAR,  /* a number, true, false, null at the top */
    JS_RECOVERING, /* after a byte that can't be: until one that can start or separate */
};

struct json_stream {
    enum json_stream_state state;
    unsigned depth;
    char open[JSON_STREAM_MAX_DEPTH]; /* the bracket that closes each level */
    bool skipping; /* this value has been complained about: only look for its end */
    char *buf;
    size_t len, alloc;
};

enum json_stream_result {
    JSON_STREAM_MORE,  /* all bytes used, no value yet */
    JSON_STREAM_VALUE, /* *value is the caller's */
    JSON_STREAM_ERROR, /* one complaint; the stream goes on behind what was wrong */
};

void json_stream_init(struct json_stream *js);
void json_stream_release(struct json_stream *js);
/*
 * Takes bytes from @bytes until a value or an error is complete; *@used tells how many. Call it
 * again with the rest. A byte that no JSON text can hold outside or inside strings (control
 * characters, FEh, FFh) ends what was begun with an error, so a client that lost its place sends
 * one and starts afresh.
 */
enum json_stream_result json_stream_feed(struct json_stream *js, const char *bytes, size_t len,
                                         size_t *used, json_t **value, struct error *err);
/* The stream has ended: a scalar at the top is complete now; anything else begun is an error. */
enum json_stream_result json_stream_end(struct json_stream *js, json_t **value, struct error *err);

#endif
