/* The publisher: offers messages to one room at an exact rate, through Redis, driven by commands on standard input.
 *
 *   publish COUNT RATE PACE_US    offer COUNT more messages at RATE per second, gathered for PACE_US microseconds
 *
 * answered by one line of JSON once Redis has answered every message. The send time in a message is the moment at which
 * the schedule wanted it to leave, so that a publisher that falls behind makes latencies longer, not prettier.
 *
 * With `--script -` messages are ready envelopes, PUBLISHed on the room's channel, linked by offset and tag exactly as
 * lua/append.lua would; with the SHA1 of that script they go through it, those due at once in one call, into the log. */
#define _GNU_SOURCE
#include <sys/prctl.h>

#include "common.h"
#include "redis.h"

#define TAG_BYTES 16
#define BATCH 256 /* messages in one call, as a node's publisher */

static int redis;
static const char *channel, *meta, *log_key, *epoch, *script; /* script: NULL to PUBLISH */
static char tag[TAG_BYTES + 1] = "0"; /* of the entry before; "0" stands before the first */
static uint64_t last;                 /* sequence number and offset of the last message: both count from 1 */
static uint64_t answered;
static struct buffer answers;

static void new_tag(char *out)
{
    static uint64_t state = 0x9e3779b97f4a7c15u; /* xorshift64: different is enough */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    for (int i = 0; i < TAG_BYTES; i++)
        out[i] = "0123456789abcdef"[state >> 4 * i & 15];
    out[TAG_BYTES] = 0;
}

/* {"seq":…,"sent_ns":…,"pad":…} of DATA_BYTES bytes in the tail of a client frame, behind an empty excluded session. */
static void payload_append(struct buffer *out, uint64_t number, uint64_t sent_ns)
{
    static const char head[] = "\"user_id\":1,\"ts\":1732147200.123,\"data\":";
    buffer_append(out, "", 1);
    buffer_append(out, head, sizeof head - 1);
    size_t start = out->length;
    buffer_print(out, SEQ_PREFIX "%0*llu" SENT_PREFIX "%0*llu\",\"pad\":\"", SEQ_DIGITS, (unsigned long long)number,
                 SENT_DIGITS, (unsigned long long)sent_ns);
    size_t padding = DATA_BYTES - 2 - (out->length - start);
    memset(buffer_reserve(out, padding), 'x', padding);
    out->length += padding;
    buffer_append(out, "\"}}", 3);
}

static void string(struct buffer *out, const char *text)
{
    resp_string(out, text, strlen(text));
}

static void publish_command(struct buffer *commands, uint64_t sent_ns)
{
    static struct buffer payload, envelope;
    char next[TAG_BYTES + 1];
    payload.length = envelope.length = 0;
    payload_append(&payload, ++last, sent_ns);
    new_tag(next);
    buffer_append(&envelope, "\x01\x96\x01", 3);
    envelope_string(&envelope, epoch, strlen(epoch));
    envelope_number(&envelope, last);
    envelope_string(&envelope, tag, strlen(tag));
    envelope_string(&envelope, next, TAG_BYTES);
    envelope_string(&envelope, payload.data, payload.length);
    memcpy(tag, next, sizeof tag);
    resp_array(commands, 3);
    string(commands, "PUBLISH");
    string(commands, channel);
    resp_string(commands, envelope.data, envelope.length);
}

/* One call of lua/append.lua: KEYS meta and log per message; ARGV the epoch, then nine arguments per message. */
static void append_command(struct buffer *commands, const uint64_t *sent_ns, unsigned count)
{
    static struct buffer payload;
    char keys[16];
    snprintf(keys, sizeof keys, "%u", 2 * count);
    resp_array(commands, 4 + 11 * count);
    string(commands, "EVALSHA");
    string(commands, script);
    string(commands, keys);
    for (unsigned i = 0; i < count; i++) {
        string(commands, meta);
        string(commands, log_key);
    }
    string(commands, epoch);
    for (unsigned i = 0; i < count; i++) {
        payload.length = 0;
        payload_append(&payload, ++last, sent_ns[i]);
        new_tag(tag);
        string(commands, "a");
        string(commands, channel);
        resp_string(commands, payload.data, payload.length);
        string(commands, tag);
        string(commands, "1000");       /* history: entries, */
        string(commands, "8388608");    /* bytes, */
        string(commands, "300000");     /* ms */
        string(commands, "2592000000"); /* ms that the meta key lives */
        string(commands, "0");          /* no retry key */
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

/* When message `i` is wanted, in ns after the start. Every 1/rate has one, at a place in it that the golden ratio
 * chooses: gaps are 0.6 or 1.6 times the mean. A metronome would fall in step with the kernel's ticks, which sample what
 * a core does and would then see the load always or never (measured: 1 % where 50 % was busy). With a pace, what is
 * wanted within PACE_US leaves together at its end. */
static uint64_t due_ns(uint64_t i, double rate, uint64_t pace_us)
{
    double place = (double)i * 0.6180339887498949;
    uint64_t ns = (uint64_t)(((double)i + place - (double)(uint64_t)place) / rate * 1e9);
    return pace_us ? (ns / (pace_us * 1000) + 1) * pace_us * 1000 : ns;
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
    if (!strcmp(script, "-"))
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
