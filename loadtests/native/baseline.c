/* The baseline: what one core of this machine can do. A bare loop without limits, keepalive, recovery or presence.
 *
 * It hears the same Redis channel as a node and sends the same bytes: all messages of one read from Redis are framed
 * once and joined, and every member gets them in one send(). What a socket does not take is kept, without bound: this
 * program measures, it does not serve. Reads at most 128 KiB per turn from Redis, like a node. */
#define _GNU_SOURCE
#include <sys/epoll.h>

#include "common.h"
#include "redis.h"
#include "sha1.h"
#include "websocket.h"

#define REDIS_BYTES (128u << 10)
#define CLIENT_BYTES (64u << 10)
#define NOBODY UINT32_MAX

struct client {
    int fd, upgraded;
    uint32_t member; /* its place in members, or NOBODY */
    struct buffer in, out;
    size_t out_sent;
};

static int poller;
static const char *room;
static struct client **members;
static uint32_t member_count, member_capacity;
static struct client listener, subscription; /* only their addresses matter: they mark events */

static void watch(struct client *c, unsigned events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void leave(struct client *c)
{
    if (c->member == NOBODY)
        return;
    members[c->member] = members[--member_count];
    members[c->member]->member = c->member;
    c->member = NOBODY;
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

static void join(struct client *c, const char *payload, size_t length)
{
    static struct buffer out, text;
    const char *id = memmem(payload, length, "\"id\":", 5);
    if (c->member == NOBODY) {
        if (member_count == member_capacity) {
            member_capacity = member_capacity ? member_capacity * 2 : 1024;
            members = must(realloc(members, member_capacity * sizeof *members));
        }
        c->member = member_count;
        members[member_count++] = c;
    }
    out.length = text.length = 0;
    buffer_print(&text,
                 "{\"op\":\"reply\",\"id\":%lld,\"ok\":true,\"room\":\"%s\",\"epoch\":\"baseline\",\"offset\":0,"
                 "\"tag\":\"0\",\"recovered\":null,\"messages\":[]}",
                 id ? strtoll(id + 5, NULL, 10) : 0, room);
    send_text(c, &out, &text);
}

static void on_frame(struct client *c, struct frame *frame)
{
    static struct buffer out;
    frame_mask(frame->payload, frame->length, frame->payload - 4);
    out.length = 0;
    if (frame->opcode == OP_TEXT && memmem(frame->payload, frame->length, "\"op\":\"join\"", 11)) {
        join(c, frame->payload, frame->length);
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
        c->member = NOBODY;
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
    if (frames.length)
        for (uint32_t i = 0; i < member_count; i++)
            send_out(members[i], frames.data, frames.length);
}

static void subscribe(unsigned port, const char *channel)
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
    subscribe(number_argument(argc, argv, "redis-port"), argument(argc, argv, "channel"));
    serve(number_argument(argc, argv, "port"));
    for (;;) {
        int count = epoll_wait(poller, events, 512, -1);
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            if (c == &listener)
                on_accept();
            else if (c == &subscription)
                on_subscription();
            else {
                if (events[i].events & EPOLLOUT)
                    flush(c);
                if (events[i].events & ~(unsigned)EPOLLOUT)
                    on_client(c);
            }
        }
    }
}
