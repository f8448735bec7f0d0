/* The load client: many WebSocket connections in one thread, driven by commands on standard input.
 *
 *   open COUNT IN_FLIGHT                   connect, upgrade and join COUNT more connections, IN_FLIGHT at a time
 *   reach LAST                             wait until every connection has seen message LAST, or 5 s without any message
 *   reset                                  forget latencies, counts and CPU (sequence numbers are kept)
 *   report LAST                            what arrived since the reset; lost, doubled and reordered over the whole run
 *   shake SECONDS IN_FLIGHT join|bare      open and close connections as fast as possible
 *
 * Every command is answered by one line of JSON. In between pings are answered and messages checked. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/epoll.h>

#include "common.h"
#include "histogram.h"
#include "sequence.h"
#include "websocket.h"

#define QUIET_NS 5000000000ull
#define STUCK_NS 20000000000ull
#define INBOX_BYTES (4u << 20)
#define READ_BYTES (256u << 10)
#define COMMANDS UINT32_MAX /* marks standard input in epoll */

enum state { FREE, CONNECTING, UPGRADING, JOINING, JOINED, CLOSING };

struct connection {
    int fd;
    enum state state;
    uint32_t number; /* unique in this run: chooses the user and the source address */
    uint64_t started_ns;
    struct buffer rest; /* the beginning of a frame whose end has not arrived */
    struct sequence sequence;
};

static struct sockaddr_in server;
static const char *path, *room;
static unsigned sources;

static int poller;
static struct lines commands;
static struct connection *table;
static uint32_t opened, joined, failed; /* opened: connections of the table in use; joined: of these, in the room now */
static uint32_t numbers;                /* connections ever made */
static char inbox[INBOX_BYTES];

static struct {
    struct histogram latency;
    uint64_t deliveries, bytes, first_sent_ns, last_arrival_ns, reset_ns;
    struct cpu cpu;
} window;
static uint64_t early, others, pings, closed; /* over the whole run */
static uint64_t target, behind;               /* of `reach`: connections that have not seen message `target` */
static uint64_t progress_ns;                  /* when something last moved */

static struct {
    int active, join;
    uint64_t completed, failed;
} shake;

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
        shake.failed++;
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
    struct sequence sequence = {.next = 1, .holes = c->sequence.holes, .hole_capacity = c->sequence.hole_capacity};
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
    shake.completed++;
    histogram_add(&window.latency, now_ns() - c->started_ns);
    c->state = CLOSING;
    send_frame(c, OP_CLOSE, "\x03\xe8", 2);
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
        char text[256];
        int n = snprintf(text, sizeof text, "{\"op\":\"join\",\"room\":\"%s\",\"id\":1}", room);
        c->state = JOINING;
        send_frame(c, OP_TEXT, text, (size_t)n);
    }
}

static uint64_t digits(const char *text, unsigned count)
{
    uint64_t value = 0;
    while (count--)
        value = value * 10 + (uint64_t)(*text++ - '0');
    return value;
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
    if (c->state == JOINING && memmem(payload, length, "\"op\":\"reply\"", 12)) {
        if (!memmem(payload, length, "\"ok\":true", 9))
            die("the join was refused: %.*s", (int)(length < 300 ? length : 300), payload);
        if (shake.active) {
            completed(c);
        } else {
            c->state = JOINED;
            joined++;
        }
        return;
    }
    const char *number = find_message(payload, length);
    if (!number) {
        others++;
        return;
    }
    if (c->state != JOINED) {
        early++;
        return;
    }
    uint64_t seq = digits(number, SEQ_DIGITS);
    uint64_t sent_ns = digits(number + SEQ_DIGITS + sizeof SENT_PREFIX - 1, SENT_DIGITS);
    uint64_t before = c->sequence.next;
    sequence_take(&c->sequence, seq);
    behind -= target && before <= target && c->sequence.next > target;
    histogram_add(&window.latency, arrival_ns > sent_ns ? arrival_ns - sent_ns : 0);
    window.deliveries++;
    if (!window.first_sent_ns)
        window.first_sent_ns = sent_ns;
}

static void on_frame(struct connection *c, struct frame *frame, uint64_t arrival_ns)
{
    if (c->state == CLOSING)
        return;
    if (frame->opcode == OP_TEXT) {
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
    if (window.deliveries != before)
        window.last_arrival_ns = arrival_ns;
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
        struct connection *c = &table[events[i].data.u32];
        if (c->state == CONNECTING)
            upgrade(c);
        else if (c->state != FREE)
            on_readable(c);
    }
}

static void open_connections(uint32_t count, uint32_t in_flight)
{
    uint32_t begun = 0, before = joined, settled = 0;
    uint64_t began_ns = progress_ns = now_ns(), closed_before = closed;
    table = must(realloc(table, (opened + count) * sizeof *table));
    memset(table + opened, 0, count * sizeof *table);
    failed = 0;
    while (settled < count) {
        for (; begun < count && begun - settled < in_flight; begun++)
            start(&table[opened++]);
        turn(100);
        settled = joined - before + failed + (uint32_t)(closed - closed_before);
        if (now_ns() - progress_ns > STUCK_NS)
            die("%u of %u connections joined and nothing moved for 20 s: see the server's log", joined - before, count);
    }
    if (failed)
        die("%u of %u connections failed: see the line above and the server's log", failed, count);
    printf("{\"connections\":%u,\"seconds\":%.3f}\n", joined, (double)(now_ns() - began_ns) / 1e9);
}

static void reach(uint64_t last)
{
    target = last;
    behind = 0;
    for (uint32_t i = 0; i < opened; i++)
        behind += table[i].state == JOINED && table[i].sequence.next <= target;
    uint64_t quiet_since_ns = now_ns(), seen = window.deliveries;
    while (behind && now_ns() - quiet_since_ns < QUIET_NS) {
        turn(100);
        if (window.deliveries != seen) {
            seen = window.deliveries;
            quiet_since_ns = now_ns();
        }
    }
    target = 0;
    printf("{\"behind\":%llu}\n", (unsigned long long)behind);
}

static void reset(void)
{
    memset(&window, 0, sizeof window);
    window.reset_ns = now_ns();
    window.cpu = cpu_used();
}

static void print_window(void)
{
    struct cpu cpu = cpu_used();
    printf("\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"client_cpu_s\":%.4f,"
           "\"window_s\":%.4f}\n",
           histogram_us(&window.latency, 0.5), histogram_us(&window.latency, 0.99),
           histogram_us(&window.latency, 0.999), (double)window.latency.max / 1e3,
           cpu.user_s + cpu.system_s - window.cpu.user_s - window.cpu.system_s,
           (double)(now_ns() - window.reset_ns) / 1e9);
}

static void report(uint64_t last)
{
    uint64_t lost = 0, duplicated = 0, reordered = 0, faulty = 0;
    for (uint32_t i = 0; i < opened; i++) {
        const struct sequence *s = &table[i].sequence;
        uint64_t missing = sequence_lost(s, last);
        lost += missing;
        duplicated += s->duplicated;
        reordered += s->reordered;
        if ((missing || s->duplicated || s->reordered) && faulty++ < 10)
            fprintf(stderr, "connection %u: lost %llu, duplicated %llu, reordered %llu\n", i,
                    (unsigned long long)missing, (unsigned long long)s->duplicated, (unsigned long long)s->reordered);
    }
    double span_s = (double)(window.last_arrival_ns - window.first_sent_ns) / 1e9;
    printf("{\"connections\":%u,\"deliveries\":%llu,\"bytes\":%llu,\"span_s\":%.6f,\"lost\":%llu,\"duplicated\":%llu,"
           "\"reordered\":%llu,\"faulty_connections\":%llu,\"early\":%llu,\"closed\":%llu,\"others\":%llu,"
           "\"pings\":%llu,",
           joined, (unsigned long long)window.deliveries, (unsigned long long)window.bytes, span_s,
           (unsigned long long)lost, (unsigned long long)duplicated, (unsigned long long)reordered,
           (unsigned long long)faulty, (unsigned long long)early, (unsigned long long)closed,
           (unsigned long long)others, (unsigned long long)pings);
    print_window();
}

static void shake_hands(double seconds, uint32_t in_flight, int join)
{
    if (opened)
        die("shake needs a client without open connections: start a new one");
    reset();
    table = must(realloc(table, in_flight * sizeof *table));
    memset(table, 0, in_flight * sizeof *table);
    memset(&shake, 0, sizeof shake);
    shake.active = 1;
    shake.join = join;
    uint64_t began_ns = progress_ns = now_ns(), until_ns = began_ns + (uint64_t)(seconds * 1e9), now;
    uint32_t busy = 1;
    while (busy) {
        now = now_ns();
        if (now - progress_ns > STUCK_NS)
            die("nothing moved for 20 s after %llu handshakes", (unsigned long long)shake.completed);
        busy = 0;
        for (uint32_t i = 0; i < in_flight; i++) {
            if (table[i].state == FREE && now < until_ns)
                start(&table[i]);
            busy += table[i].state != FREE;
        }
        if (busy)
            turn(100);
    }
    shake.active = 0;
    printf("{\"completed\":%llu,\"failed\":%llu,\"elapsed_s\":%.4f,", (unsigned long long)shake.completed,
           (unsigned long long)shake.failed, (double)(now_ns() - began_ns) / 1e9);
    print_window();
}

static void execute(const char *line)
{
    unsigned long long number;
    unsigned in_flight;
    double seconds;
    char word[8];
    if (sscanf(line, "open %llu %u", &number, &in_flight) == 2)
        open_connections((uint32_t)number, in_flight);
    else if (sscanf(line, "reach %llu", &number) == 1)
        reach(number);
    else if (sscanf(line, "report %llu", &number) == 1)
        report(number);
    else if (sscanf(line, "shake %lf %u %7s", &seconds, &in_flight, word) == 3)
        shake_hands(seconds, in_flight, !strcmp(word, "join"));
    else if (!strcmp(line, "reset")) {
        reset();
        printf("{}\n");
    } else
        die("not a command: %s", line);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    server = address(argument(argc, argv, "host"), number_argument(argc, argv, "port"));
    path = argument(argc, argv, "path");
    room = argument(argc, argv, "room");
    sources = number_argument(argc, argv, "sources");
    if (!sources || sources > 250 || strlen(room) > 128)
        die("--sources is 1 to 250 addresses, --room at most 128 characters");
    raise_file_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = COMMANDS};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event) < 0)
        die("standard input must be a pipe: this program is driven by `python -m loadtests`");
    reset();
    for (;;) {
        char line[sizeof commands.data];
        turn(-1);
        while (lines_next(&commands, line))
            execute(line);
    }
}
