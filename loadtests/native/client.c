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
#include "connections.h"

#define QUIET_NS 5000000000ull
#define STUCK_NS 20000000000ull

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
