/* Latencies in nanoseconds, log-linear as in HdrHistogram: 64 buckets per power of two, so a quantile reads at most
 * 1.6 % too high, at 30 KB and a handful of instructions per value. */
#ifndef ROOMCAST_HISTOGRAM_H
#define ROOMCAST_HISTOGRAM_H

#include "common.h"

struct histogram {
    uint64_t count, max, buckets[59 * 64];
};

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
    unsigned index = (unsigned)ns;
    if (ns >= 64) {
        unsigned shift = 57u - (unsigned)__builtin_clzll(ns); /* keeps the 7 leading bits */
        index = shift * 64 + (unsigned)(ns >> shift);
    }
    h->buckets[index]++;
    h->count++;
    if (ns > h->max)
        h->max = ns;
}

/* The upper edge of the bucket that holds the quantile, in microseconds; 0 without values. */
static inline double histogram_us(const struct histogram *h, double quantile)
{
    uint64_t seen = 0, wanted = (uint64_t)(quantile * (double)h->count);
    for (unsigned index = 0; index < 59 * 64; index++) {
        seen += h->buckets[index];
        if (seen > wanted) {
            unsigned shift = index < 64 ? 0 : index / 64 - 1;
            uint64_t edge = ((uint64_t)(index - shift * 64 + 1) << shift) - 1;
            return (double)(edge < h->max ? edge : h->max) / 1e3;
        }
    }
    return (double)h->max / 1e3;
}

#endif
