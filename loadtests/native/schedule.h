/* When messages of a load are wanted, and what is in them. */
#ifndef ROOMCAST_SCHEDULE_H
#define ROOMCAST_SCHEDULE_H

#include "common.h"

/* When message `i` is wanted, in ns after the start. Every 1/rate has one, at a place in it that the golden ratio
 * chooses: gaps are 0.6 or 1.6 times the mean. A metronome would fall in step with the kernel's ticks, which sample what
 * a core does and would then see the load always or never (measured: 1 % where 50 % was busy). With a pace, what is
 * wanted within PACE_US leaves together at its end. */
static inline uint64_t due_ns(uint64_t i, double rate, uint64_t pace_us)
{
    double place = (double)i * 0.6180339887498949;
    uint64_t ns = (uint64_t)(((double)i + place - (double)(uint64_t)place) / rate * 1e9);
    return pace_us ? (ns / (pace_us * 1000) + 1) * pace_us * 1000 : ns;
}

/* {"seq":…,"sent_ns":…,"pad":…} of DATA_BYTES bytes. */
static inline void data_append(struct buffer *out, uint64_t number, uint64_t sent_ns)
{
    size_t start = out->length;
    buffer_print(out, SEQ_PREFIX "%0*llu" SENT_PREFIX "%0*llu\",\"pad\":\"", SEQ_DIGITS, (unsigned long long)number,
                 SENT_DIGITS, (unsigned long long)sent_ns);
    size_t padding = DATA_BYTES - 2 - (out->length - start);
    memset(buffer_reserve(out, padding), 'x', padding);
    out->length += padding;
    buffer_append(out, "\"}", 2);
}

#endif
