/* RFC 6455 as far as a load test needs it: whole frames, no extensions, no fragments. */
#ifndef ROOMCAST_WEBSOCKET_H
#define ROOMCAST_WEBSOCKET_H

#include <strings.h>

#include "common.h"

enum { OP_TEXT = 1, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

/* The client always sends this key and this mask: a server must not care, and the answer can be checked for free. */
#define CLIENT_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define CLIENT_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define CLIENT_MASK "\x37\xfa\x21\x3d"

struct frame {
    unsigned opcode;
    int masked;
    char *payload; /* inside the data given to frame_parse */
    size_t length, total;
};

/* 1: `frame` is whole; 0: needs more bytes; -1: not a frame we accept (RSV bits, a fragment, unknown opcode). */
static inline int frame_parse(char *data, size_t available, struct frame *frame)
{
    const unsigned char *byte = (const unsigned char *)data;
    if (available < 2)
        return 0;
    size_t header = 2, length = byte[1] & 0x7f;
    frame->opcode = byte[0] & 0x0f;
    frame->masked = byte[1] >> 7;
    if ((byte[0] & 0xf0) != 0x80 ||
        (frame->opcode != OP_TEXT && (frame->opcode < OP_CLOSE || frame->opcode > OP_PONG || length > 125)))
        return -1;
    if (length >= 126) {
        size_t wide = length == 126 ? 2 : 8;
        if (available < 2 + wide)
            return 0;
        length = 0;
        for (size_t i = 0; i < wide; i++)
            length = length << 8 | byte[2 + i];
        if (length >> 32)
            return -1;
        header += wide;
    }
    header += frame->masked ? 4 : 0;
    frame->payload = data + header;
    frame->length = length;
    frame->total = header + length;
    return available >= frame->total;
}

static inline void frame_mask(char *payload, size_t length, const char *mask)
{
    for (size_t i = 0; i < length; i++)
        payload[i] ^= mask[i & 3];
}

/* A client's (masked) or a server's frame of at most 64 KiB, appended to `out`. */
static inline void frame_append(struct buffer *out, unsigned opcode, const char *payload, size_t length, int masked)
{
    unsigned char header[4] = {(unsigned char)(0x80 | opcode), (unsigned char)(masked << 7)};
    if (length > 65535)
        die("a frame of %zu bytes: 65,535 is the most we send", length);
    if (length < 126) {
        header[1] |= (unsigned char)length;
    } else {
        header[1] |= 126;
        header[2] = (unsigned char)(length >> 8);
        header[3] = (unsigned char)length;
    }
    buffer_append(out, header, length < 126 ? 2 : 4);
    if (masked)
        buffer_append(out, CLIENT_MASK, 4);
    char *start = buffer_reserve(out, length);
    memcpy(start, payload, length);
    if (masked)
        frame_mask(start, length, CLIENT_MASK);
    out->length += length;
}

/* The value of a header in an HTTP head of `length` bytes, NULL if it is not there; the value ends at its \r. */
static inline const char *http_header(const char *head, size_t length, const char *name)
{
    size_t name_length = strlen(name);
    const char *end = head + length, *line = head;
    while ((line = memchr(line, '\n', (size_t)(end - line)))) {
        line++;
        if ((size_t)(end - line) > name_length && !strncasecmp(line, name, name_length) && line[name_length] == ':') {
            line += name_length + 1;
            while (line < end && *line == ' ')
                line++;
            return line;
        }
    }
    return NULL;
}

/* The length of the HTTP head with its empty line, 0 while it is not whole. */
static inline size_t http_head_length(const char *data, size_t length)
{
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    return end ? (size_t)(end - data) + 4 : 0;
}

#endif
