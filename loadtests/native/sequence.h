/* Which sequence numbers one connection has seen: exact counts of lost, doubled and reordered messages.
 *
 * Numbers 1, 2, 3 ... are expected in order. A number beyond the next one leaves a hole; a number that fills a hole
 * was reordered; any other number below the next one is a double; what is left of the holes at the end is lost. */
#ifndef ROOMCAST_SEQUENCE_H
#define ROOMCAST_SEQUENCE_H

#include "common.h"

struct hole {
    uint64_t from, to; /* from <= missing numbers < to */
};

struct sequence {
    uint64_t next, duplicated, reordered; /* next is 1 + the highest number seen */
    struct hole *holes;
    uint32_t hole_count, hole_capacity;
};

static inline void sequence_hole(struct sequence *s, uint64_t from, uint64_t to)
{
    if (from == to)
        return;
    if (s->hole_count == s->hole_capacity) {
        s->hole_capacity = s->hole_capacity ? s->hole_capacity * 2 : 4;
        s->holes = must(realloc(s->holes, s->hole_capacity * sizeof *s->holes));
    }
    s->holes[s->hole_count++] = (struct hole){from, to};
}

static inline void sequence_take_late(struct sequence *s, uint64_t number)
{
    for (uint32_t i = 0; i < s->hole_count; i++) {
        struct hole hole = s->holes[i];
        if (hole.from <= number && number < hole.to) {
            s->holes[i] = s->holes[--s->hole_count];
            sequence_hole(s, hole.from, number);
            sequence_hole(s, number + 1, hole.to);
            s->reordered++;
            return;
        }
    }
    s->duplicated++;
}

static inline void sequence_take(struct sequence *s, uint64_t number)
{
    if (number < s->next) {
        sequence_take_late(s, number);
        return;
    }
    if (number > s->next)
        sequence_hole(s, s->next, number);
    s->next = number + 1;
}

/* How many of 1 ... last never came. */
static inline uint64_t sequence_lost(const struct sequence *s, uint64_t last)
{
    uint64_t lost = last >= s->next ? last - s->next + 1 : 0;
    for (uint32_t i = 0; i < s->hole_count; i++)
        lost += s->holes[i].to - s->holes[i].from;
    return lost;
}

#endif
