/* The connections of the load client: a table, one epoll, and what has been seen on them. */
#ifndef ROOMCAST_CONNECTIONS_H
#define ROOMCAST_CONNECTIONS_H

#include <sys/epoll.h>

#include "common.h"
#include "dialect.h"
#include "histogram.h"
#include "sequence.h"
#include "websocket.h"

#define INBOX_BYTES (4u << 20)
#define READ_BYTES (256u << 10)
#define COMMANDS UINT32_MAX /* marks standard input in epoll */
#define ALARM (UINT32_MAX - 1)
#define SLOT_NS 100000000ull
#define SLOTS 6000 /* ten minutes; what comes later is counted but not drawn */

enum state { FREE, CONNECTING, UPGRADING, JOINING, JOINED, CLOSING };

struct connection {
    int fd;
    enum state state;
    unsigned step;   /* of the dialect, while joining */
    uint32_t number; /* unique in this run: chooses the user and the source address */
    uint64_t started_ns;
    struct buffer rest; /* the beginning of a frame whose end has not arrived */
    struct sequence sequence;
    uint64_t asked; /* pings sent by `ask` */
};

static struct sockaddr_in server;
static const char *path, *room;
static const struct dialect *dialect;
static unsigned sources;

static int poller, alarm_fd;
static struct lines commands;
static struct connection *table;
static uint32_t opened, joined, failed; /* opened: connections of the table in use; joined: of these, in the room now */
static uint32_t numbers;                /* connections ever made */
static char inbox[INBOX_BYTES];

static struct {
    struct histogram latency;
    uint64_t deliveries, reads, bytes, first_sent_ns, last_arrival_ns, reset_ns;
    uint64_t slots[SLOTS]; /* what arrived, or was completed, in each SLOT_NS since the reset */
    struct cpu cpu;
} window;
static struct histogram joining;      /* from the first packet to the answer to the join, of the last `open` */
static uint64_t early, others, pings, closed; /* over the whole run */
static uint64_t newest;                       /* the highest number seen: who comes later begins behind it */
static int asking;                            /* what arrives are pongs, not messages */
static uint64_t target, behind;               /* of `reach`: connections that have not seen message `target` */
static uint64_t progress_ns;                  /* when something last moved */

static struct {
    int active, join;
    uint64_t completed, failed;
} shake;

static void count_slot(uint64_t at_ns, uint64_t amount)
{
    uint64_t slot = (at_ns - window.reset_ns) / SLOT_NS;
    if (slot < SLOTS)
        window.slots[slot] += amount;
}

static void hang_up(struct connection *c)
{
    close(c->fd);
    buffer_free(&c->rest);
    c->state = FREE;
}

/* The connection ended before we wanted it to. */
static void lose(struct connection *c, const char *why)
{
    if (shake.active) {
        if (!shake.failed++)
            fprintf(stderr, "a handshake failed: %s\n", why);
    } else if (c->state == JOINED) {
        if (!closed++)
            fprintf(stderr, "a joined connection was closed: %s\n", why);
        joined--;
        behind -= target && c->sequence.next <= target;
    } else {
        if (!failed++)
            fprintf(stderr, "a connection was not established: %s\n", why);
    }
    hang_up(c);
}

static void send_out(struct connection *c, const struct buffer *out)
{
    /* A few hundred bytes into an empty socket buffer: it takes all or the connection is gone. */
    if (send(c->fd, out->data, out->length, MSG_NOSIGNAL) != (ssize_t)out->length)
        lose(c, strerror(errno));
}

static void send_frame(struct connection *c, unsigned opcode, const char *payload, size_t length)
{
    static struct buffer out;
    out.length = 0;
    frame_append(&out, opcode, payload, length, 1);
    send_out(c, &out);
}

static void start(struct connection *c)
{
    uint32_t number = numbers++;
    struct sequence sequence = {
        .next = newest + 1, .holes = c->sequence.holes, .hole_capacity = c->sequence.hole_capacity};
    *c = (struct connection){.state = CONNECTING, .number = number, .started_ns = now_ns(), .sequence = sequence};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("cannot open a socket: %s; raise the limit of open files (ulimit -n)", strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (ntohl(server.sin_addr.s_addr) >> 24 == 127) {
        /* One source address has 28,000 ports; on loopback there are plenty of addresses. */
        struct sockaddr_in from = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(0x7f000001u + number % sources)};
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0)
            die("cannot bind a source address: %s", strerror(errno));
    }
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
        lose(c, strerror(errno));
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = (uint32_t)(c - table)};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

/* {n} in the path becomes the number of the connection, so that each can be a user of its own. */
static void upgrade(struct connection *c)
{
    static struct buffer out;
    const char *mark = strstr(path, "{n}");
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        lose(c, strerror(error));
        return;
    }
    out.length = 0;
    buffer_append(&out, "GET ", 4);
    if (mark)
        buffer_print(&out, "%.*s%u%s", (int)(mark - path), path, c->number, mark + 3);
    else
        buffer_append(&out, path, strlen(path));
    buffer_print(&out,
                 " HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " CLIENT_KEY "\r\n\r\n",
                 ntohs(server.sin_port));
    c->state = UPGRADING;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(c - table)};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    send_out(c, &out);
}

/* A handshake of `shake` is done: close politely, the server ends the connection (RFC 6455 §7.1.1). */
static void completed(struct connection *c)
{
    uint64_t at_ns = now_ns();
    shake.completed++;
    histogram_add(&window.latency, at_ns - c->started_ns);
    count_slot(at_ns, 1);
    c->state = CLOSING;
    send_frame(c, OP_CLOSE, "\x03\xe8", 2);
}

/* Says what this step of joining wants said. Without one left, the connection is in the room. */
static void take_step(struct connection *c)
{
    const struct step *step = &dialect->steps[c->step];
    if (step->say) {
        static struct buffer text;
        const char *mark = strstr(step->say, "%s");
        text.length = 0;
        if (mark)
            buffer_print(&text, "%.*s%s%s", (int)(mark - step->say), step->say, room, mark + 2);
        else
            buffer_append(&text, step->say, strlen(step->say));
        send_frame(c, OP_TEXT, text.data, text.length);
    }
    if (step->expect)
        return;
    if (shake.active) {
        completed(c);
    } else {
        c->state = JOINED;
        joined++;
        histogram_add(&joining, progress_ns - c->started_ns);
        count_slot(progress_ns, 1);
    }
}

static void upgraded(struct connection *c, const char *head, size_t length)
{
    const char *accept = http_header(head, length, "sec-websocket-accept");
    if (strncmp(head, "HTTP/1.1 101", 12)) {
        static char status[64];
        snprintf(status, sizeof status, "%.*s", (int)strcspn(head, "\r\n"), head);
        lose(c, status);
    } else if (!accept || strncmp(accept, CLIENT_ACCEPT "\r", sizeof CLIENT_ACCEPT)) {
        lose(c, "the Sec-WebSocket-Accept header is missing or wrong");
    } else if (shake.active && !shake.join) {
        completed(c);
    } else {
        c->state = JOINING;
        take_step(c);
    }
}

static uint64_t digits(const char *text, unsigned count)
{
    uint64_t value = 0;
    while (count--)
        value = value * 10 + (uint64_t)(*text++ - '0');
    return value;
}

/* A number and a time, in an id that a server gave back. */
static const char *find_pong(const char *payload, size_t length)
{
    const char *id;
    if (!memmem(payload, length, "\"op\":\"pong\"", 11) || !(id = memmem(payload, length, "\"id\":\"", 6)))
        return NULL;
    return id + 6 + SEQ_DIGITS + 1 + SENT_DIGITS < payload + length ? id + 6 : NULL;
}

/* Finds our data, which a server may have wrapped in anything; its usual place, the very end, is tried first. */
static const char *find_message(const char *payload, size_t length)
{
    const size_t prefix = sizeof SEQ_PREFIX - 1, wanted = prefix + SEQ_DIGITS + sizeof SENT_PREFIX - 1 + SENT_DIGITS;
    const char *found = length > DATA_BYTES ? payload + length - DATA_BYTES - 1 : payload;
    if (length < wanted)
        return NULL;
    if (length <= DATA_BYTES || memcmp(found, SEQ_PREFIX, prefix))
        found = memmem(payload, length, SEQ_PREFIX, prefix);
    return found && found + wanted <= payload + length ? found + prefix : NULL;
}

static void on_text(struct connection *c, const char *payload, size_t length, uint64_t arrival_ns)
{
    const struct step *step = &dialect->steps[c->step];
    if (c->state == JOINING && contains(payload, length, step->expect)) {
        if (step->granted && !contains(payload, length, step->granted))
            die("the join was refused: %.*s", (int)(length < 300 ? length : 300), payload);
        c->step++;
        take_step(c);
        return;
    }
    if (dialect->ping && length == strlen(dialect->ping) && !memcmp(payload, dialect->ping, length)) {
        pings++;
        send_frame(c, OP_TEXT, dialect->pong, strlen(dialect->pong));
        return;
    }
    size_t between = asking ? 1 : sizeof SENT_PREFIX - 1;
    const char *number = asking ? find_pong(payload, length) : find_message(payload, length);
    if (!number) {
        others++;
        return;
    }
    if (c->state != JOINED) {
        early++;
        return;
    }
    uint64_t seq = digits(number, SEQ_DIGITS);
    uint64_t sent_ns = digits(number + SEQ_DIGITS + between, SENT_DIGITS);
    uint64_t before = c->sequence.next;
    sequence_take(&c->sequence, seq);
    newest = seq > newest ? seq : newest;
    behind -= target && before <= target && c->sequence.next > target;
    histogram_add(&window.latency, arrival_ns > sent_ns ? arrival_ns - sent_ns : 0);
    window.deliveries++;
    if (!window.first_sent_ns)
        window.first_sent_ns = sent_ns;
}

static void on_lines(struct connection *c, const char *payload, size_t length, uint64_t arrival_ns)
{
    const char *end = payload + length, *line_end;
    for (; payload < end && c->state != FREE; payload = line_end + 1) {
        line_end = memchr(payload, '\n', (size_t)(end - payload));
        if (!line_end)
            line_end = end;
        on_text(c, payload, (size_t)(line_end - payload), arrival_ns);
    }
}

static void on_frame(struct connection *c, struct frame *frame, uint64_t arrival_ns)
{
    if (c->state == CLOSING)
        return;
    if (frame->opcode == OP_TEXT && dialect->lines) {
        on_lines(c, frame->payload, frame->length, arrival_ns);
    } else if (frame->opcode == OP_TEXT) {
        on_text(c, frame->payload, frame->length, arrival_ns);
    } else if (frame->opcode == OP_PING) {
        pings++;
        send_frame(c, OP_PONG, frame->payload, frame->length);
    } else if (frame->opcode == OP_CLOSE) {
        const unsigned char *code = (const unsigned char *)frame->payload;
        static char why[160];
        snprintf(why, sizeof why, "close frame %d %.*s", frame->length < 2 ? 1005 : code[0] << 8 | code[1],
                 frame->length < 2 ? 0 : (int)frame->length - 2, frame->payload + 2);
        lose(c, why);
    }
}

static void on_readable(struct connection *c)
{
    size_t length = c->rest.length, used = 0;
    if (length + READ_BYTES > INBOX_BYTES) {
        lose(c, "a frame of more than 3 MiB");
        return;
    }
    memcpy(inbox, c->rest.data ? c->rest.data : inbox, length);
    ssize_t n = recv(c->fd, inbox + length, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (c->state == CLOSING)
            hang_up(c);
        else
            lose(c, n ? strerror(errno) : "end of stream without a close frame");
        return;
    }
    uint64_t arrival_ns = progress_ns = now_ns();
    length += (size_t)n;
    window.bytes += (uint64_t)n;
    if (c->state == UPGRADING) {
        used = http_head_length(inbox, length);
        if (used)
            upgraded(c, inbox, used);
    }
    struct frame frame;
    int whole = 0;
    uint64_t before = window.deliveries;
    while (c->state > UPGRADING && (whole = frame_parse(inbox + used, length - used, &frame)) > 0 && !frame.masked) {
        on_frame(c, &frame, arrival_ns);
        used += frame.total;
    }
    if (window.deliveries != before) {
        window.reads++;
        window.last_arrival_ns = arrival_ns;
        count_slot(arrival_ns, window.deliveries - before);
    }
    if (c->state == FREE)
        return;
    if (whole < 0 || (whole > 0 && frame.masked)) {
        lose(c, "bytes that are no frame of a server");
    } else if (used == length) {
        if (c->rest.capacity)
            buffer_free(&c->rest);
    } else {
        c->rest.length = 0;
        buffer_append(&c->rest, inbox + used, length - used);
    }
}

/* One turn of the loop. Ends the process when the driver closed our standard input. */
static void turn(int timeout_ms)
{
    struct epoll_event events[512];
    int count = epoll_wait(poller, events, 512, timeout_ms);
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == COMMANDS) {
            if (!lines_fill(&commands))
                exit(0);
            continue;
        }
        if (events[i].data.u32 == ALARM) {
            uint64_t rings;
            if (read(alarm_fd, &rings, sizeof rings) < 0 && errno != EAGAIN)
                die("the alarm: %s", strerror(errno));
            continue;
        }
        struct connection *c = &table[events[i].data.u32];
        if (c->state == CONNECTING)
            upgrade(c);
        else if (c->state != FREE)
            on_readable(c);
    }
}

#endif
