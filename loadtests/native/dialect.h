/* How a client of each protocol gets into the room, and what keeps it there: what it says after the upgrade, which
 * answer it waits for, and how it answers a ping that is a text. All else about a server is its path. */
#ifndef ROOMCAST_DIALECT_H
#define ROOMCAST_DIALECT_H

#include "common.h"

struct step {
    const char *say;     /* NULL: nothing; %s is the room */
    const char *expect;  /* some text of the server contains this, then the next step begins */
    const char *granted; /* and this; without it the server refused. NULL: it never does in the same words */
};

struct dialect {
    const char *name;
    struct step steps[4]; /* up to the first without `expect` */
    const char *ping, *pong;
    int lines; /* a frame may hold several messages, one a line */
};

static const struct dialect dialects[] = {
    {.name = "roomcast",
     .steps = {{"{\"op\":\"join\",\"room\":\"%s\",\"id\":1}", "\"op\":\"reply\"", "\"ok\":true"}}},
    /* A member from the upgrade on. */
    {.name = "bare"},
    /* The server says so when the connection is a member. */
    {.name = "greeted", .steps = {{NULL, "joined", NULL}}},
    /* Engine.IO 4: open, then Socket.IO 5: connect to the namespace /, then an event "join" with acknowledgement 0. */
    {.name = "socketio",
     .steps = {{NULL, "0{", NULL}, {"40", "40{", NULL}, {"420[\"join\",\"%s\"]", "430[", NULL}},
     .ping = "2",
     .pong = "3"},
    {.name = "centrifugo",
     .steps = {{"{\"id\":1,\"connect\":{}}", "\"id\":1", "\"connect\":"},
               {"{\"id\":2,\"subscribe\":{\"channel\":\"%s\"}}", "\"id\":2", "\"subscribe\":"}},
     .ping = "{}",
     .pong = "{}",
     .lines = 1},
};

static inline const struct dialect *dialect_named(const char *name)
{
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
        if (!strcmp(dialects[i].name, name))
            return &dialects[i];
    die("no dialect %s: see loadtests/native/dialect.h", name);
}

static inline int contains(const char *text, size_t length, const char *wanted)
{
    return memmem(text, length, wanted, strlen(wanted)) != NULL;
}

#endif
