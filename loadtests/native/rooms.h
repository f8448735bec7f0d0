/* Who is in which room: a hash table of rooms, each with an array of members, and back from a member to its place. */
#ifndef ROOMCAST_ROOMS_H
#define ROOMCAST_ROOMS_H

#include "common.h"

struct client;

struct name {
    const char *text; /* not terminated */
    size_t length;
};

struct member {
    struct client *client;
    uint32_t *place; /* its own index, which the client's membership points to as well */
};

struct room {
    char *name;
    uint64_t offset;
    struct member *members;
    uint32_t count, capacity;
    struct room *next;
};

struct membership {
    struct room *room;
    uint32_t *place;
};

struct rooms {
    struct room *table[4096];
};

/* The room of this name, made if there is none; NULL without a name. */
static inline struct room *rooms_find(struct rooms *rooms, struct name name)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    if (!name.text)
        return NULL;
    for (size_t i = 0; i < name.length; i++)
        hash = (hash ^ (unsigned char)name.text[i]) * 16777619u;
    struct room **slot = &rooms->table[hash % 4096], *room;
    for (room = *slot; room; room = room->next)
        if (strlen(room->name) == name.length && !memcmp(room->name, name.text, name.length))
            return room;
    room = must(calloc(1, sizeof *room));
    room->name = must(strndup(name.text, name.length));
    room->next = *slot;
    return *slot = room;
}

static inline struct membership room_enter(struct room *room, struct client *client)
{
    if (room->count == room->capacity) {
        room->capacity = room->capacity ? room->capacity * 2 : 8;
        room->members = must(realloc(room->members, room->capacity * sizeof *room->members));
    }
    uint32_t *place = must(malloc(sizeof *place));
    *place = room->count;
    room->members[room->count++] = (struct member){client, place};
    return (struct membership){room, place};
}

/* The last member takes the free place. */
static inline void room_leave(struct membership left)
{
    struct room *room = left.room;
    struct member last = room->members[--room->count];
    room->members[*left.place] = last;
    *last.place = *left.place;
    free(left.place);
}

static inline int room_has(const struct room *room, const struct membership *memberships, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (memberships[i].room == room)
            return 1;
    return 0;
}

#endif
