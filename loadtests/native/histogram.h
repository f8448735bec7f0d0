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

static inline uint64_t histogram_edge(unsigned index)
{
    unsigned shift = index < 64 ? 0 : index / 64 - 1;
    return ((uint64_t)(index - shift * 64 + 1) << shift) - 1;
}

/* The upper edge of the bucket that holds the quantile, in microseconds; 0 without values. */
static inline double histogram_us(const struct histogram *h, double quantile)
{
    uint64_t seen = 0, wanted = (uint64_t)(quantile * (double)h->count);
    for (unsigned index = 0; index < 59 * 64; index++) {
        seen += h->buckets[index];
        if (seen > wanted) {
            uint64_t edge = histogram_edge(index);
            return (double)(edge < h->max ? edge : h->max) / 1e3;
        }
    }
    return (double)h->max / 1e3;
}

/* A list of [upper edge in microseconds, values up to there and above the edge before]; empty buckets are left out. */
static inline void histogram_print(const struct histogram *h)
{
    const char *comma = "";
    putchar('[');
    for (unsigned index = 0; index < 59 * 64; index++)
        if (h->buckets[index]) {
            printf("%s[%.1f,%llu]", comma, (double)histogram_edge(index) / 1e3, (unsigned long long)h->buckets[index]);
            comma = ",";
        }
    putchar(']');
}

#endif
