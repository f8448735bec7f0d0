/* RESP2 as far as a subscriber and a publisher need it, and the envelope of broker/envelope.py. */
#ifndef ROOMCAST_REDIS_H
#define ROOMCAST_REDIS_H

#include "common.h"

/* One reply, taken apart only as deep as an array of strings and integers. */
struct reply {
    char type; /* '+', '-', ':', '$' or '*' */
    long long integer;
    int count; /* of an array, at most 4 */
    struct {
        const char *data;
        size_t length;
    } items[4]; /* a string or a line is items[0] */
    size_t total;
};

static inline size_t resp_line(const char *data, size_t available, long long *value)
{
    const char *end = memchr(data, '\n', available);
    if (!end)
        return 0;
    *value = strtoll(data + 1, NULL, 10);
    return (size_t)(end - data) + 1;
}

/* 1: `reply` is whole; 0: needs more bytes. */
static inline int resp_parse(const char *data, size_t available, struct reply *reply)
{
    size_t used = resp_line(data, available, &reply->integer);
    if (!used)
        return 0;
    reply->type = data[0];
    int items = reply->type == '*' ? (int)reply->integer : 1;
    if (items < 0 || items > 4 || !strchr("+-:$*", data[0]))
        die("an answer of Redis that we do not know: %.40s", data);
    reply->count = items;
    if (reply->type != '*' && reply->type != '$') {
        reply->items[0].data = data + 1;
        reply->items[0].length = used - 3;
    }
    if (reply->type == '$')
        used = 0; /* read again as the only item */
    for (int i = 0; i < items && (reply->type == '*' || reply->type == '$'); i++) {
        long long length;
        size_t line = resp_line(data + used, available - used, &length);
        if (!line)
            return 0;
        if (data[used] == '$' && length >= 0) {
            if (available - used < line + (size_t)length + 2)
                return 0;
            reply->items[i].data = data + used + line;
            reply->items[i].length = (size_t)length;
            used += line + (size_t)length + 2;
        } else {
            reply->items[i].data = data + used + 1;
            reply->items[i].length = line - 3;
            used += line;
        }
    }
    reply->total = used;
    return 1;
}

/* The length of one whole reply of any depth, 0 while it is not whole. An error in it ends the program. */
static inline size_t resp_measure(const char *data, size_t available)
{
    long long number;
    size_t used = resp_line(data, available, &number);
    if (!used)
        return 0;
    if (data[0] == '-')
        die("Redis refused: %.*s", (int)used - 3, data + 1);
    if (data[0] == '$' && number >= 0)
        used += (size_t)number + 2;
    for (long long i = 0; data[0] == '*' && i < number; i++) {
        size_t item = used < available ? resp_measure(data + used, available - used) : 0;
        if (!item)
            return 0;
        used += item;
    }
    return used <= available ? used : 0;
}

static inline void resp_array(struct buffer *out, unsigned count)
{
    buffer_print(out, "*%u\r\n", count);
}

static inline void resp_string(struct buffer *out, const char *data, size_t length)
{
    buffer_print(out, "$%zu\r\n", length);
    buffer_append(out, data, length);
    buffer_append(out, "\r\n", 2);
}

static inline void resp_text(struct buffer *out, const char *text)
{
    resp_string(out, text, strlen(text));
}

/* 01 [1, epoch, offset, prev, tag, payload] in msgpack; strings as `raw`, as Redis' cmsgpack writes them. */
static inline void envelope_string(struct buffer *out, const char *data, size_t length)
{
    unsigned char header[3] = {0xda, (unsigned char)(length >> 8), (unsigned char)length};
    if (length < 32)
        header[0] = (unsigned char)(0xa0 | length);
    else if (length < 256)
        header[0] = 0xd9, header[1] = (unsigned char)length;
    buffer_append(out, header, length < 32 ? 1 : length < 256 ? 2 : 3);
    buffer_append(out, data, length);
}

static inline void envelope_number(struct buffer *out, uint64_t value)
{
    unsigned char bytes[9];
    size_t wide = value < 128 ? 0 : value < 256 ? 1 : value < 65536 ? 2 : value >> 32 ? 8 : 4;
    bytes[0] = wide == 0 ? (unsigned char)value : wide == 1 ? 0xcc : wide == 2 ? 0xcd : wide == 4 ? 0xce : 0xcf;
    for (size_t i = 0; i < wide; i++)
        bytes[1 + i] = (unsigned char)(value >> 8 * (wide - 1 - i));
    buffer_append(out, bytes, 1 + wide);
}

#define TAG_BYTES 16
#define TAIL_HEAD "\"user_id\":1,\"ts\":1732147200.123,\"data\":"

static inline void new_tag(char *out)
{
    static uint64_t state = 0x9e3779b97f4a7c15u; /* xorshift64: different is enough */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    for (int i = 0; i < TAG_BYTES; i++)
        out[i] = "0123456789abcdef"[state >> 4 * i & 15];
    out[TAG_BYTES] = 0;
}

/* PUBLISH of one entry, linked to the one before by `tag`, which becomes its own. */
static inline void publish_entry(struct buffer *out, const char *channel, const char *epoch, uint64_t offset,
                                 char tag[TAG_BYTES + 1], const char *payload, size_t length)
{
    static struct buffer envelope;
    char next[TAG_BYTES + 1];
    envelope.length = 0;
    new_tag(next);
    buffer_append(&envelope, "\x01\x96\x01", 3);
    envelope_string(&envelope, epoch, strlen(epoch));
    envelope_number(&envelope, offset);
    envelope_string(&envelope, tag, strlen(tag));
    envelope_string(&envelope, next, TAG_BYTES);
    envelope_string(&envelope, payload, length);
    memcpy(tag, next, sizeof next);
    resp_array(out, 3);
    resp_text(out, "PUBLISH");
    resp_text(out, channel);
    resp_string(out, envelope.data, envelope.length);
}

struct entry {
    uint64_t offset;
    const char *tag, *payload;
    size_t tag_length, payload_length;
};

struct cursor {
    const unsigned char *at, *end;
};

/* Big-endian bytes; 0 and an empty cursor when they are not there. */
static inline uint64_t cursor_take(struct cursor *c, size_t count)
{
    uint64_t value = 0;
    if ((size_t)(c->end - c->at) < count) {
        c->at = c->end;
        return 0;
    }
    while (count--)
        value = value << 8 | *c->at++;
    return value;
}

static inline const char *cursor_string(struct cursor *c, size_t *length)
{
    unsigned kind = (unsigned)cursor_take(c, 1);
    *length = kind >> 5 == 5 ? kind & 31 : kind >= 0xd9 && kind <= 0xdb ? cursor_take(c, 1u << (kind - 0xd9)) : 0;
    const char *start = (const char *)c->at;
    if ((size_t)(c->end - c->at) < *length)
        *length = (size_t)(c->end - c->at);
    c->at += *length;
    return start;
}

/* 1 if `data` is an entry of a room's log, 0 for any other envelope. */
static inline int envelope_entry(const char *data, size_t length, struct entry *entry)
{
    struct cursor c = {(const unsigned char *)data, (const unsigned char *)data + length};
    size_t skipped;
    if (length < 4 || memcmp(data, "\x01\x96\x01", 3))
        return 0;
    c.at += 3;
    cursor_string(&c, &skipped); /* epoch */
    unsigned kind = (unsigned)cursor_take(&c, 1);
    entry->offset = kind < 128 ? kind : kind >= 0xcc && kind <= 0xcf ? cursor_take(&c, 1u << (kind - 0xcc)) : 0;
    cursor_string(&c, &skipped); /* prev */
    entry->tag = cursor_string(&c, &entry->tag_length);
    entry->payload = cursor_string(&c, &entry->payload_length);
    return entry->offset && entry->payload_length;
}

#endif
