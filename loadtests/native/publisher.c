/* The publisher: offers messages to one room at an exact rate, through Redis, driven by commands on standard input.
 *
 *   publish COUNT RATE PACE_US    offer COUNT more messages at RATE per second, gathered for PACE_US microseconds
 *
 * answered by one line of JSON once Redis has answered every message. The send time in a message is the moment at which
 * the schedule wanted it to leave, so that a publisher that falls behind makes latencies longer, not prettier.
 *
 * With `--script -` messages are ready envelopes, PUBLISHed on the room's channel, linked by offset and tag exactly as
 * lua/append.lua would; with the SHA1 of that script they go through it, those due at once in one call, into the log.
 * With `--script bare` the data alone is PUBLISHed, for servers that are no nodes. */
#define _GNU_SOURCE
#include <sys/prctl.h>

#include "common.h"
#include "redis.h"
#include "schedule.h"

#define BATCH 256 /* messages in one call, as a node's publisher */

static int redis;
static const char *channel, *meta, *log_key, *epoch, *script; /* script: NULL to PUBLISH */
static int bare;
static char tag[TAG_BYTES + 1] = "0"; /* of the entry before; "0" stands before the first */
static uint64_t last;                 /* sequence number and offset of the last message: both count from 1 */
static uint64_t answered;
static struct buffer answers;

/* The tail of a client frame, behind an empty excluded session. */
static void payload_append(struct buffer *out, uint64_t number, uint64_t sent_ns)
{
    buffer_append(out, "", 1);
    buffer_append(out, TAIL_HEAD, sizeof TAIL_HEAD - 1);
    data_append(out, number, sent_ns);
    buffer_append(out, "}", 1);
}

static void publish_command(struct buffer *commands, uint64_t sent_ns)
{
    static struct buffer payload;
    payload.length = 0;
    if (bare) {
        data_append(&payload, ++last, sent_ns);
        resp_array(commands, 3);
        resp_text(commands, "PUBLISH");
        resp_text(commands, channel);
        resp_string(commands, payload.data, payload.length);
        return;
    }
    payload_append(&payload, ++last, sent_ns);
    publish_entry(commands, channel, epoch, last, tag, payload.data, payload.length);
}

/* One call of lua/append.lua: KEYS meta, log and marks per message; ARGV the epoch and the limits of marks, then ten
 * arguments per message. */
static void append_command(struct buffer *commands, const uint64_t *sent_ns, unsigned count)
{
    static struct buffer payload;
    char keys[16];
    snprintf(keys, sizeof keys, "%u", 3 * count);
    resp_array(commands, 6 + 13 * count);
    resp_text(commands, "EVALSHA");
    resp_text(commands, script);
    resp_text(commands, keys);
    for (unsigned i = 0; i < count; i++) {
        resp_text(commands, meta);
        resp_text(commands, log_key);
        resp_text(commands, log_key);      /* for marks: not touched without an author */
    }
    resp_text(commands, epoch);
    resp_text(commands, "2592000000");     /* ms that marks live, */
    resp_text(commands, "10000");          /* and how many */
    for (unsigned i = 0; i < count; i++) {
        payload.length = 0;
        payload_append(&payload, ++last, sent_ns[i]);
        new_tag(tag);
        resp_text(commands, "a");
        resp_text(commands, channel);
        resp_string(commands, payload.data, payload.length);
        resp_text(commands, tag);
        resp_text(commands, "");           /* no author */
        resp_text(commands, "1000");       /* history: entries, */
        resp_text(commands, "8388608");    /* bytes, */
        resp_text(commands, "300000");     /* ms */
        resp_text(commands, "2592000000"); /* ms that the meta key lives */
        resp_text(commands, "0");          /* no retry key */
    }
}

static void take_answers(int flags)
{
    ssize_t n = recv(redis, buffer_reserve(&answers, 65536), 65536, flags);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        die("Redis closed the connection");
    answers.length += (size_t)n;
    size_t used = 0, whole;
    while ((whole = resp_measure(answers.data + used, answers.length - used))) {
        answered += answers.data[used] == '*' ? strtoull(answers.data + used + 1, NULL, 10) : 1;
        used += whole;
    }
    answers.length -= used;
    memmove(answers.data, answers.data + used, answers.length);
}

static void publish(uint64_t count, double rate, uint64_t pace_us)
{
    static struct buffer commands;
    uint64_t sent = 0, late_ns = 0, began_ns = now_ns() + 1000000;
    answered = 0;
    while (sent < count) {
        uint64_t due = began_ns + due_ns(sent, rate, pace_us);
        struct timespec until = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
        uint64_t now = now_ns(), wanted_ns[BATCH];
        unsigned batch = 0;
        if (now - due > late_ns)
            late_ns = now - due;
        while (batch < BATCH && sent + batch < count && due <= now) {
            wanted_ns[batch++] = due;
            due = began_ns + due_ns(sent + batch, rate, pace_us);
        }
        commands.length = 0;
        if (script)
            append_command(&commands, wanted_ns, batch);
        else
            for (unsigned i = 0; i < batch; i++)
                publish_command(&commands, wanted_ns[i]);
        sent += batch;
        write_all(redis, commands.data, commands.length);
        take_answers(MSG_DONTWAIT);
    }
    double seconds = (double)(now_ns() - began_ns) / 1e9;
    while (answered < count)
        take_answers(0);
    printf("{\"last\":%llu,\"seconds\":%.6f,\"late_max_us\":%.1f}\n", (unsigned long long)last, seconds,
           (double)late_ns / 1e3);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct lines commands;
    channel = argument(argc, argv, "channel");
    meta = argument(argc, argv, "meta");
    log_key = argument(argc, argv, "log");
    epoch = argument(argc, argv, "epoch");
    script = argument(argc, argv, "script");
    bare = !strcmp(script, "bare");
    if (bare || !strcmp(script, "-"))
        script = NULL;
    redis = redis_connect(number_argument(argc, argv, "redis-port"));
    prctl(PR_SET_TIMERSLACK, 1); /* sleep to the microsecond; the default adds up to 50 */
    while (lines_fill(&commands)) {
        char line[sizeof commands.data];
        while (lines_next(&commands, line)) {
            unsigned long long count, pace_us;
            double rate;
            if (sscanf(line, "publish %llu %lf %llu", &count, &rate, &pace_us) != 3 || rate <= 0)
                die("not a command: %s", line);
            publish(count, rate, pace_us);
        }
    }
}
