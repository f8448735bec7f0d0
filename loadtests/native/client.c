/* The load client: many WebSocket connections in one thread, driven by commands on standard input.
 *
 *   open COUNT IN_FLIGHT                   connect, upgrade and join COUNT more connections, IN_FLIGHT at a time;
 *                                          they expect what comes after all that was seen by then
 *   reach LAST                             wait until every connection has seen message LAST, or 5 s without any message
 *   reset                                  forget latencies, counts and CPU (sequence numbers are kept)
 *   report LAST                            what arrived since the reset; lost, doubled and reordered over the whole run
 *   shake SECONDS IN_FLIGHT join|bare      open and close connections as fast as possible
 *   ask COUNT RATE                         COUNT pings at RATE per second, from one connection after the other; waits for
 *                                          the pongs, or 5 s without any
 *   say COUNT RATE                         the first connection says COUNT messages in the room at RATE per second
 *   curves                                 latencies, joins and what arrived in each tenth of a second, since the reset
 *
 * Every command is answered by one line of JSON. In between pings are answered and messages checked. */
#define _GNU_SOURCE
#include <sys/timerfd.h>

#include "connections.h"
#include "schedule.h"

#define QUIET_NS 5000000000ull
#define STUCK_NS 20000000000ull

static void open_connections(uint32_t count, uint32_t in_flight)
{
    uint32_t begun = 0, before = joined, settled = 0;
    uint64_t began_ns = progress_ns = now_ns(), closed_before = closed;
    table = must(realloc(table, (opened + count) * sizeof *table));
    memset(table + opened, 0, count * sizeof *table);
    failed = 0;
    memset(&joining, 0, sizeof joining);
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
    printf("{\"connections\":%u,\"seconds\":%.6f}\n", joined, (double)(now_ns() - began_ns) / 1e9);
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
    printf("{\"connections\":%u,\"deliveries\":%llu,\"reads\":%llu,\"bytes\":%llu,\"span_s\":%.6f,\"lost\":%llu,\"duplicated\":%llu,"
           "\"reordered\":%llu,\"faulty_connections\":%llu,\"early\":%llu,\"closed\":%llu,\"others\":%llu,"
           "\"pings\":%llu,",
           joined, (unsigned long long)window.deliveries, (unsigned long long)window.reads,
           (unsigned long long)window.bytes, span_s,
           (unsigned long long)lost, (unsigned long long)duplicated, (unsigned long long)reordered,
           (unsigned long long)faulty, (unsigned long long)early, (unsigned long long)closed,
           (unsigned long long)others, (unsigned long long)pings);
    print_window();
}

static void ask_from(struct connection *c, uint64_t sent_ns)
{
    char text[96];
    int n = snprintf(text, sizeof text, "{\"op\":\"ping\",\"id\":\"%0*llu %0*llu\"}", SEQ_DIGITS,
                     (unsigned long long)++c->asked, SENT_DIGITS, (unsigned long long)sent_ns);
    send_frame(c, OP_TEXT, text, (size_t)n);
}

static void say_from(struct connection *c, uint64_t sent_ns)
{
    static struct buffer text;
    static uint64_t said;
    text.length = 0;
    buffer_print(&text, "{\"op\":\"message\",\"room\":\"%s\",\"data\":", room);
    data_append(&text, ++said, sent_ns);
    buffer_append(&text, "}", 1);
    send_frame(c, OP_TEXT, text.data, text.length);
}

static void wake_at(uint64_t at_ns)
{
    struct itimerspec at = {.it_value = {(time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u)}};
    timerfd_settime(alarm_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* COUNT times `send`, each when the schedule wants it, by `speakers` connections in turn. Returns how late the latest
 * left, in ns. What arrives meanwhile is taken. */
static uint64_t by_schedule(uint64_t count, double rate, uint32_t speakers, void (*send)(struct connection *, uint64_t))
{
    uint64_t sent = 0, late_ns = 0, began_ns = now_ns() + 1000000;
    if (!speakers)
        die("nobody is there to speak: open connections first");
    while (sent < count) {
        uint64_t due = began_ns + due_ns(sent, rate, 0), now = now_ns();
        if (due > now) {
            wake_at(due);
            turn(1000);
            continue;
        }
        if (now - due > late_ns)
            late_ns = now - due;
        struct connection *c = &table[sent++ % speakers];
        if (c->state == JOINED)
            send(c, due);
        if (sent % 64 == 0)
            turn(0); /* late or not, what arrived is read */
    }
    return late_ns;
}

static void ask(uint64_t count, double rate)
{
    uint64_t before = window.deliveries, missing = 0, doubled = 0, swapped = 0;
    asking = 1;
    uint64_t late_ns = by_schedule(count, rate, opened, ask_from);
    uint64_t quiet_since_ns = now_ns(), seen = window.deliveries;
    while (window.deliveries - before < count && now_ns() - quiet_since_ns < QUIET_NS) {
        turn(100);
        if (window.deliveries != seen) {
            seen = window.deliveries;
            quiet_since_ns = now_ns();
        }
    }
    for (uint32_t i = 0; i < opened; i++) {
        missing += sequence_lost(&table[i].sequence, table[i].asked);
        doubled += table[i].sequence.duplicated;
        swapped += table[i].sequence.reordered;
    }
    printf("{\"answered\":%llu,\"lost\":%llu,\"duplicated\":%llu,\"reordered\":%llu,\"closed\":%llu,"
           "\"late_max_us\":%.1f,\"span_s\":%.6f,",
           (unsigned long long)(window.deliveries - before), (unsigned long long)missing, (unsigned long long)doubled,
           (unsigned long long)swapped, (unsigned long long)closed, (double)late_ns / 1e3,
           (double)(window.last_arrival_ns - window.first_sent_ns) / 1e9);
    print_window();
}

static void print_curves(void)
{
    uint64_t slots = (now_ns() - window.reset_ns) / SLOT_NS;
    const char *comma = "";
    printf("{\"latency_us\":");
    histogram_print(&window.latency);
    printf(",\"joining_us\":");
    histogram_print(&joining);
    printf(",\"per_s\":[");
    for (uint64_t i = 0; i < slots && i < SLOTS; i++) {
        printf("%s[%.1f,%llu]", comma, (double)i / 10, (unsigned long long)window.slots[i] * 10);
        comma = ",";
    }
    printf("]}\n");
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
    else if (sscanf(line, "ask %llu %lf", &number, &seconds) == 2)
        ask(number, seconds);
    else if (sscanf(line, "say %llu %lf", &number, &seconds) == 2)
        printf("{\"late_max_us\":%.1f}\n", (double)by_schedule(number, seconds, 1, say_from) / 1e3);
    else if (!strcmp(line, "curves"))
        print_curves();
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
    dialect = dialect_named(argument(argc, argv, "dialect"));
    sources = number_argument(argc, argv, "sources");
    if (!sources || sources > 250 || strlen(room) > 128)
        die("--sources is 1 to 250 addresses, --room at most 128 characters");
    raise_file_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = COMMANDS};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event) < 0)
        die("standard input must be a pipe: this program is driven by `python -m loadtests`");
    event.data.u32 = ALARM;
    alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (alarm_fd < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, alarm_fd, &event) < 0)
        die("no timer: %s", strerror(errno));
    reset();
    for (;;) {
        char line[sizeof commands.data];
        turn(-1);
        while (lines_next(&commands, line))
            execute(line);
    }
}
