/* What the three native programs share: time, buffers, sockets, and commands on standard input. */
#ifndef ROOMCAST_COMMON_H
#define ROOMCAST_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Sequence number and send time inside a message's data, both of fixed width so that reading them costs nothing:
 * {"seq":"000000000001","sent_ns":"00000000001234567890","pad":"..."} */
#define SEQ_PREFIX "{\"seq\":\""
#define SEQ_DIGITS 12
#define SENT_PREFIX "\",\"sent_ns\":\""
#define SENT_DIGITS 20
#define DATA_BYTES 100

/* The driver shows the last line of stderr to the user and exits 2. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct cpu {
    double user_s, system_s;
};

static inline struct cpu cpu_used(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (struct cpu){(double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6,
                        (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6};
}

static inline void *must(void *memory)
{
    if (!memory)
        die("out of memory");
    return memory;
}

struct buffer {
    char *data;
    size_t length, capacity;
};

/* Room for `more` bytes at the end; the caller adds to length what it wrote there. */
static inline char *buffer_reserve(struct buffer *b, size_t more)
{
    if (b->length + more > b->capacity) {
        size_t capacity = b->capacity ? b->capacity * 2 : 256;
        while (capacity < b->length + more)
            capacity *= 2;
        b->data = must(realloc(b->data, capacity));
        b->capacity = capacity;
    }
    return b->data + b->length;
}

static inline void buffer_append(struct buffer *b, const void *data, size_t length)
{
    memcpy(buffer_reserve(b, length), data, length);
    b->length += length;
}

__attribute__((format(printf, 2, 3))) static inline void buffer_print(struct buffer *b, const char *format, ...)
{
    va_list arguments;
    char text[1024];
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text)
        die("a line of more than %zu bytes: shorten the path or the room name", sizeof text);
    buffer_append(b, text, (size_t)length);
}

static inline void buffer_free(struct buffer *b)
{
    free(b->data);
    *b = (struct buffer){0};
}

static inline struct sockaddr_in address(const char *host, unsigned port)
{
    struct sockaddr_in result = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &result.sin_addr) != 1)
        die("%s is not an IPv4 address: give one such as 127.0.0.1", host);
    return result;
}

/* A blocking connection to Redis on this machine. */
static inline int redis_connect(unsigned port)
{
    struct sockaddr_in to = address("127.0.0.1", port);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        die("cannot connect to Redis on port %u: %s", port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static inline void write_all(int fd, const char *data, size_t length)
{
    while (length) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die("lost the connection to Redis: %s", strerror(errno));
        data += n;
        length -= (size_t)n;
    }
}

/* One socket per connection: the soft limit (often 1,024) is raised to the hard one. */
static inline void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* `--name value` from the command line; every program takes a handful, all needed. */
static inline const char *argument(int argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (!strncmp(argv[i], "--", 2) && !strcmp(argv[i] + 2, name))
            return argv[i + 1];
    die("--%s is missing", name);
}

static inline unsigned number_argument(int argc, char **argv, const char *name)
{
    return (unsigned)strtoul(argument(argc, argv, name), NULL, 10);
}

/* Standard input as lines. fill() returns 0 at its end: the driver has gone and so should we. */
struct lines {
    char data[512];
    size_t length;
};

static inline int lines_fill(struct lines *l)
{
    ssize_t n = read(0, l->data + l->length, sizeof l->data - l->length);
    if (n <= 0)
        return 0;
    l->length += (size_t)n;
    return 1;
}

/* Copies the next whole line into `line` (as large as l->data) and returns 1, or returns 0. */
static inline int lines_next(struct lines *l, char *line)
{
    char *end = memchr(l->data, '\n', l->length);
    if (!end)
        return 0;
    size_t length = (size_t)(end - l->data);
    memcpy(line, l->data, length);
    line[length] = 0;
    l->length -= length + 1;
    memmove(l->data, end + 1, l->length);
    return 1;
}

#endif
