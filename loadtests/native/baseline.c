/* The baseline: what one core of this machine can do. A bare loop without limits, keepalive, recovery or presence.
 *
 * It hears the same Redis channel as a node and sends the same bytes: all messages of one read from Redis are framed
 * once and joined, and every member gets them in one send(). What a socket does not take is kept, without bound: this
 * program measures, it does not serve. Reads at most 128 KiB per turn from Redis, like a node.
 *
 * What a client says in a room is PUBLISHed, so that two of these are a pair of nodes.
 *
 * With --channel - there is no Redis: members join rooms of any name and what one says goes straight to the others and
 * back, numbered, and acknowledged. That is what chat costs a server that keeps nothing. */
#define _GNU_SOURCE
#include <sys/epoll.h>

#include "common.h"
#include "redis.h"
#include "rooms.h"
#include "sha1.h"
#include "websocket.h"

#define REDIS_BYTES (128u << 10)
#define CLIENT_BYTES (64u << 10)

struct client {
    int fd, upgraded;
    struct membership *memberships;
    uint32_t membership_count;
    struct buffer in, out;
    size_t out_sent;
};

static int poller;
static const char *room, *channel; /* the one whose messages come from Redis, and where */
static int local;        /* without Redis */
static struct rooms rooms;
static struct client listener, subscription, publishing; /* only their addresses matter: they mark events */

static void watch(struct client *c, unsigned events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void leave(struct client *c)
{
    for (uint32_t i = 0; i < c->membership_count; i++)
        room_leave(c->memberships[i]);
    free(c->memberships);
    c->memberships = NULL;
    c->membership_count = 0;
}

/* The client is freed by the turn that notices the closed socket, never inside the fan-out loop. */
static void hang_up(struct client *c)
{
    shutdown(c->fd, SHUT_RDWR);
}

static void forget(struct client *c)
{
    leave(c);
    close(c->fd);
    buffer_free(&c->in);
    buffer_free(&c->out);
    free(c);
}

static void flush(struct client *c)
{
    ssize_t n = send(c->fd, c->out.data + c->out_sent, c->out.length - c->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
        return; /* full, or closed: the loop will hear of either */
    c->out_sent += (size_t)n;
    if (c->out_sent == c->out.length) {
        buffer_free(&c->out);
        c->out_sent = 0;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
    }
}

static void send_out(struct client *c, const char *data, size_t length)
{
    size_t sent = 0;
    if (!c->out.length) {
        ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == (ssize_t)length)
            return;
        if (n < 0 && errno != EAGAIN)
            return;
        sent = n < 0 ? 0 : (size_t)n;
        watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
    buffer_append(&c->out, data + sent, length - sent);
}

static void send_text(struct client *c, struct buffer *out, const struct buffer *text)
{
    frame_append(out, OP_TEXT, text->data, text->length, 0);
    send_out(c, out->data, out->length);
}

static void upgrade(struct client *c, const char *head, size_t length)
{
    static struct buffer out, text;
    const char *key = http_header(head, length, "sec-websocket-key");
    char accept[29];
    out.length = text.length = 0;
    if (!key || strcspn(key, "\r") != 24) {
        buffer_print(&out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        send_out(c, out.data, out.length);
        hang_up(c);
        return;
    }
    websocket_accept(key, accept);
    c->upgraded = 1;
    buffer_print(&out,
                 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: %s\r\n\r\n",
                 accept);
    buffer_print(&text, "{\"op\":\"welcome\",\"version\":1,\"session\":\"0000000000000000000000\","
                        "\"node\":\"baseline\",\"user_id\":null,\"ping\":10,\"max_message\":65536}");
    send_text(c, &out, &text);
}

/* What follows `field` in a request, up to the quotation mark. */
static struct name json_string(const char *payload, size_t length, const char *field)
{
    const char *begin = memmem(payload, length, field, strlen(field)), *end;
    if (!begin)
        return (struct name){0};
    begin += strlen(field);
    end = memchr(begin, '"', length - (size_t)(begin - payload));
    return end ? (struct name){begin, (size_t)(end - begin)} : (struct name){0};
}

static long long json_number(const char *payload, size_t length, const char *field)
{
    const char *begin = memmem(payload, length, field, strlen(field));
    return begin ? strtoll(begin + strlen(field), NULL, 10) : 0;
}

static void join(struct client *c, const char *payload, size_t length)
{
    static struct buffer out, text;
    struct room *joined = rooms_find(&rooms, json_string(payload, length, "\"room\":\""));
    if (!joined) {
        hang_up(c);
        return;
    }
    if (!room_has(joined, c->memberships, c->membership_count)) {
        c->memberships = must(realloc(c->memberships, (c->membership_count + 1) * sizeof *c->memberships));
        c->memberships[c->membership_count++] = room_enter(joined, c);
    }
    out.length = text.length = 0;
    buffer_print(&text,
                 "{\"op\":\"reply\",\"id\":%lld,\"ok\":true,\"room\":\"%s\",\"epoch\":\"baseline\",\"offset\":%llu,"
                 "\"tag\":\"%llu\",\"recovered\":null,\"messages\":[]}",
                 json_number(payload, length, "\"id\":"), joined->name, (unsigned long long)joined->offset,
                 (unsigned long long)joined->offset);
    send_text(c, &out, &text);
}

/* Straight to everybody in the room, the speaker too, and then the acknowledgement: as a node orders them. */
static void say(struct client *c, const char *payload, size_t length)
{
    static struct buffer out, text;
    struct room *in = rooms_find(&rooms, json_string(payload, length, "\"room\":\""));
    const char *data = memmem(payload, length, "\"data\":", 7);
    if (!in || !data) {
        hang_up(c);
        return;
    }
    data += 7;
    in->offset++;
    out.length = text.length = 0;
    buffer_print(&text, "{\"op\":\"broadcast\",\"type\":\"message\",\"room\":\"%s\",\"offset\":%llu,\"tag\":\"%016llu\",", in->name,
                 (unsigned long long)in->offset, (unsigned long long)in->offset);
    buffer_print(&text, "\"user_id\":\"user%d\",\"ts\":1732147200.123,\"data\":", c->fd);
    buffer_append(&text, data, length - (size_t)(data - payload)); /* data is the last field of a request, } included */
    frame_append(&out, OP_TEXT, text.data, text.length, 0);
    for (uint32_t i = 0; i < in->count; i++)
        send_out(in->members[i].client, out.data, out.length);
    out.length = text.length = 0;
    buffer_print(&text, "{\"op\":\"reply\",\"id\":%lld,\"ok\":true,\"room\":\"%s\",\"offset\":%llu,\"tag\":\"%016llu\"}",
                 json_number(payload, length, "\"id\":"), in->name, (unsigned long long)in->offset,
                 (unsigned long long)in->offset);
    send_text(c, &out, &text);
}

/* Through Redis, numbered and linked as by a node. Nobody else may publish in the room meanwhile. */
static void relay(const char *payload, size_t length)
{
    static struct buffer command, tail;
    static char tag[TAG_BYTES + 1] = "0";
    static uint64_t offset;
    const char *data = memmem(payload, length, "\"data\":", 7);
    if (!data)
        return;
    data += 7;
    command.length = tail.length = 0;
    buffer_append(&tail, "", 1);
    buffer_append(&tail, TAIL_HEAD, sizeof TAIL_HEAD - 1);
    buffer_append(&tail, data, length - (size_t)(data - payload)); /* the last field of a request, } included */
    publish_entry(&command, channel, "baseline", ++offset, tag, tail.data, tail.length);
    write_all(publishing.fd, command.data, command.length);
}

static void pong(struct client *c, const char *payload, size_t length)
{
    static struct buffer out, text;
    struct name id = json_string(payload, length, "\"id\":\"");
    out.length = text.length = 0;
    buffer_print(&text, "{\"op\":\"pong\",\"id\":\"%.*s\"}", (int)id.length, id.text ? id.text : "");
    send_text(c, &out, &text);
}

static void on_frame(struct client *c, struct frame *frame)
{
    static struct buffer out;
    frame_mask(frame->payload, frame->length, frame->payload - 4);
    out.length = 0;
    if (frame->opcode == OP_TEXT && memmem(frame->payload, frame->length, "\"op\":\"join\"", 11)) {
        join(c, frame->payload, frame->length);
    } else if (local && frame->opcode == OP_TEXT && memmem(frame->payload, frame->length, "\"op\":\"message\"", 14)) {
        say(c, frame->payload, frame->length);
    } else if (frame->opcode == OP_TEXT && memmem(frame->payload, frame->length, "\"op\":\"message\"", 14)) {
        relay(frame->payload, frame->length);
    } else if (frame->opcode == OP_TEXT && memmem(frame->payload, frame->length, "\"op\":\"ping\"", 11)) {
        pong(c, frame->payload, frame->length);
    } else if (frame->opcode == OP_PING || frame->opcode == OP_CLOSE) {
        frame_append(&out, frame->opcode == OP_PING ? OP_PONG : OP_CLOSE, frame->payload, frame->length, 0);
        send_out(c, out.data, out.length);
        if (frame->opcode == OP_CLOSE)
            hang_up(c);
    }
}

static void on_client(struct client *c)
{
    static char inbox[CLIENT_BYTES + 1];
    size_t length = c->in.length, used = 0;
    memcpy(inbox, c->in.data ? c->in.data : inbox, length);
    ssize_t n = length < CLIENT_BYTES ? recv(c->fd, inbox + length, CLIENT_BYTES - length, MSG_DONTWAIT) : 0;
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        forget(c);
        return;
    }
    length += (size_t)n;
    inbox[length] = 0;
    if (!c->upgraded && (used = http_head_length(inbox, length)))
        upgrade(c, inbox, used);
    struct frame frame;
    int whole = 0;
    while (c->upgraded && (whole = frame_parse(inbox + used, length - used, &frame)) > 0 && frame.masked) {
        on_frame(c, &frame);
        used += frame.total;
    }
    if (whole)
        hang_up(c);
    buffer_free(&c->in);
    if (used < length)
        buffer_append(&c->in, inbox + used, length - used);
}

static void on_accept(void)
{
    int fd, one = 1;
    while ((fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *c = must(calloc(1, sizeof *c));
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(c, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* Puts the room, the offset and the tag before the tail that the publisher made, as server/events.py does. */
static void frame_entry(struct buffer *frames, const struct entry *entry)
{
    static struct buffer text;
    size_t skipped = 1 + (unsigned char)entry->payload[0]; /* the session that is left out, server/payload.py */
    if (skipped >= entry->payload_length)
        return;
    text.length = 0;
    buffer_print(&text,
                 "{\"op\":\"broadcast\",\"type\":\"message\",\"room\":\"%s\",\"offset\":%llu,\"tag\":\"%.*s\",", room,
                 (unsigned long long)entry->offset, (int)entry->tag_length, entry->tag);
    buffer_append(&text, entry->payload + skipped, entry->payload_length - skipped);
    frame_append(frames, OP_TEXT, text.data, text.length, 0);
}

static void on_subscription(void)
{
    static struct buffer in, frames;
    ssize_t n = recv(subscription.fd, buffer_reserve(&in, REDIS_BYTES), REDIS_BYTES, 0);
    if (n <= 0)
        die("Redis closed the connection");
    in.length += (size_t)n;
    size_t used = 0;
    struct reply reply;
    struct entry entry;
    frames.length = 0;
    while (used < in.length && resp_parse(in.data + used, in.length - used, &reply)) {
        if (reply.type == '-')
            die("Redis refused: %.*s", (int)reply.items[0].length, reply.items[0].data);
        if (reply.count == 3 && reply.items[0].length == 7 &&
            envelope_entry(reply.items[2].data, reply.items[2].length, &entry))
            frame_entry(&frames, &entry);
        used += reply.total;
    }
    in.length -= used;
    memmove(in.data, in.data + used, in.length);
    struct room *heard = rooms_find(&rooms, (struct name){room, strlen(room)});
    if (frames.length)
        for (uint32_t i = 0; i < heard->count; i++)
            send_out(heard->members[i].client, frames.data, frames.length);
}

/* Redis' answers to what was published: how many heard it. */
static void on_published(void)
{
    static char answers[4096];
    if (recv(publishing.fd, answers, sizeof answers, 0) <= 0)
        die("Redis closed the connection");
}

static void subscribe(unsigned port)
{
    struct buffer command = {0};
    subscription.fd = redis_connect(port);
    resp_array(&command, 2);
    resp_string(&command, "SUBSCRIBE", 9);
    resp_string(&command, channel, strlen(channel));
    write_all(subscription.fd, command.data, command.length);
    buffer_free(&command);
    on_subscription(); /* the confirmation: whoever can connect to us will hear every later message */
    watch(&subscription, EPOLLIN, EPOLL_CTL_ADD);
    publishing.fd = redis_connect(port);
    watch(&publishing, EPOLLIN, EPOLL_CTL_ADD);
}

static void serve(unsigned port)
{
    struct sockaddr_in at = address("127.0.0.1", port);
    int one = 1;
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener.fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener.fd, 4096) < 0)
        die("cannot listen on port %u: %s", port, strerror(errno));
    watch(&listener, EPOLLIN, EPOLL_CTL_ADD);
}

int main(int argc, char **argv)
{
    struct epoll_event events[512];
    room = argument(argc, argv, "room");
    raise_file_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    channel = argument(argc, argv, "channel");
    local = !strcmp(channel, "-");
    if (!local)
        subscribe(number_argument(argc, argv, "redis-port"));
    serve(number_argument(argc, argv, "port"));
    for (;;) {
        int count = epoll_wait(poller, events, 512, -1);
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            if (c == &listener)
                on_accept();
            else if (c == &subscription)
                on_subscription();
            else if (c == &publishing)
                on_published();
            else {
                if (events[i].events & EPOLLOUT)
                    flush(c);
                if (events[i].events & ~(unsigned)EPOLLOUT)
                    on_client(c);
            }
        }
    }
}
