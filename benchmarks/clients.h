/* The clients of the load: how each connects, what it says, and whether it heard everything in order.
 *
 * A message's text begins with a tag, ~bSSSS.NNNNNNNN.~ : the stream it belongs to and its number there, in hex. A stream
 * is one publisher's messages in one room. Each client knows which number must come next in each stream of its rooms;
 * at the SDK door also which offset, in each room. Whatever is not next is counted as lost or out of order. */

#ifndef CLIENTS_H
#define CLIENTS_H

#include "websocket.h"

enum dialect { RAW, SDK, SOCKET_IO };
enum state { IDLE, CONNECTING, SHAKING, OPENING, READY, GONE };

enum { TAG = 17, MOST_CLIENTS = 20000, MOST_STREAMS = 20000, RING = 4096 };

struct position {
    uint32_t offset;
    char epoch[20];
};

struct client {
    int fd, state, replies_due, close_code;
    int paused, slow; /* it does not read now; it once did not, and what it hears late says nothing of the others */
    unsigned char *rest, *out; /* what has come of a frame; what the socket has not taken yet */
    size_t rest_size, out_size;
    uint32_t *next; /* by place of the room and publisher */
    struct position *at; /* by place of the room */
};

static struct {
    enum dialect dialect;
    struct sockaddr_in address[4];
    int addresses, count, rooms, each, streams, depth, size, receive_buffer;
    uint32_t recover_from; /* offset to recover from when a client opens for the first time; 0: it does not */
    char path[128], prefix[64], epoch[20], **tokens;
} setup = {.rooms = 1, .each = 1, .streams = 1, .depth = 1, .size = 120};

static struct {
    long ready, failed, closed, delivered, lost, disordered, refused, recovered, unrecovered, pings, done, replies;
    char complaint[200];
} counts;

static struct client clients[MOST_CLIENTS];
static uint32_t sent[MOST_STREAMS], completed[MOST_STREAMS];
static int in_flight, members[MOST_STREAMS]; /* by room: who must hear a message before it counts as done */
static struct { int64_t at; int heard; } (*flights)[RING];
static int poller;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* --- latency: buckets of a 64th of a power of two ------------------------------------------------------------------ */

static long buckets[64 * 64];
static int64_t slowest;

static void observe(int64_t ns) {
    int power = 63 - __builtin_clzll(ns | 64);
    buckets[power * 64 + ((ns >> (power - 6)) & 63)]++;
    if (ns > slowest) slowest = ns;
}

static double quantile_ms(double share) {
    long all = 0, seen = 0;
    for (int i = 0; i < 64 * 64; i++) all += buckets[i];
    for (int i = 0; i < 64 * 64; i++) {
        seen += buckets[i];
        if (all && seen >= share * all) return (double)((64LL + i % 64 + 1) << (i / 64 - 6)) / 1e6;
    }
    return 0;
}

/* --- who is in which room ------------------------------------------------------------------------------------------ */

static int room_of(int client, int place) { return (client * setup.each + place) % setup.rooms; }

static int place_of(int client, int room) {
    return ((room - client * setup.each) % setup.rooms + setup.rooms) % setup.rooms;
}

static int per_room(void) { return (setup.streams + setup.rooms - 1) / setup.rooms; }

static int publisher_of(int stream) {
    int room = stream % setup.rooms;
    return (room / setup.each + stream / setup.rooms * (setup.rooms / setup.each)) % setup.count;
}

static uint32_t *next_of(int client, int stream) {
    return &clients[client].next[place_of(client, stream % setup.rooms) * per_room() + stream / setup.rooms];
}

static void complain(const char *text, size_t size) {
    if (!counts.complaint[0])
        for (size_t i = 0; i < size && i < sizeof counts.complaint - 1; i++)
            counts.complaint[i] = text[i] == '"' || text[i] == '\\' || text[i] < 32 ? '\'' : text[i];
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

static void watch(int i, int op) {
    struct client *c = &clients[i];
    int wants_out = c->state == CONNECTING || c->out_size;
    struct epoll_event event = {.events = (c->paused ? 0 : EPOLLIN) | (wants_out ? EPOLLOUT : 0), .data.u32 = i};
    epoll_ctl(poller, op, c->fd, &event);
}

/* TCP has a peer that has just answered acknowledge late what comes next (its 'pingpong' mode). On one machine the server
 * would then do that inside its next send(), at half as much again: clients that answer pings would cost what those who
 * only listen do not. All acknowledge as they read. */
static void acknowledge_as_read(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof yes);
}

static void put(int i, const void *data, size_t size) {
    struct client *c = &clients[i];
    ssize_t taken = c->out_size ? 0 : send(c->fd, data, size, MSG_NOSIGNAL);
    if (taken < 0) taken = 0; /* full, or reset: the reader learns of it */
    acknowledge_as_read(c->fd);
    if ((size_t)taken == size) return;
    c->out = realloc(c->out, c->out_size + size - taken);
    memcpy(c->out + c->out_size, (const char *)data + taken, size - taken);
    c->out_size += size - taken;
    watch(i, EPOLL_CTL_MOD);
}

static void put_rest(int i) {
    struct client *c = &clients[i];
    ssize_t taken = send(c->fd, c->out, c->out_size, MSG_NOSIGNAL);
    if (taken <= 0) return;
    memmove(c->out, c->out + taken, c->out_size -= taken);
    if (!c->out_size) watch(i, EPOLL_CTL_MOD);
}

static void say(int i, int opcode, const char *payload, size_t size) {
    static unsigned char frame[1 << 16];
    size_t head = put_head(frame, opcode, size, 1);
    memcpy(frame + head, payload, size);
    put(i, frame, head + size);
}

static void publish(int stream, int64_t at) {
    static char text[8192], message[9000], tag[TAG + 1];
    int size, room = stream % setup.rooms, publisher = publisher_of(stream);
    uint32_t number = sent[stream]++;
    snprintf(tag, sizeof tag, "~b%04x.%08x.~", stream, number);
    memset(text, 'x', setup.size);
    text[setup.size] = 0;
    memcpy(text, tag, TAG);
    flights[stream][number % RING].at = at;
    flights[stream][number % RING].heard = 0;
    in_flight++;
    if (setup.dialect == SDK)
        size = snprintf(message, sizeof message,
                        "{\"id\":%u,\"publish\":{\"channel\":\"%s%d\",\"data\":{\"text\":\"%s\"}}}", number + 1000,
                        setup.prefix, room, text);
    else if (setup.dialect == SOCKET_IO)
        size = snprintf(message, sizeof message, "42[\"message\",\"%s\"]", text);
    else
        size = snprintf(message, sizeof message, "%s", text);
    say(publisher, TEXT, message, size);
}

/* --- connecting ---------------------------------------------------------------------------------------------------- */

static void begin(int i) {
    struct client *c = &clients[i];
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    no_delay(c->fd);
    if (setup.receive_buffer)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &setup.receive_buffer, sizeof setup.receive_buffer);
    struct sockaddr_in *address = &setup.address[i % setup.addresses];
    if (connect(c->fd, (struct sockaddr *)address, sizeof *address) < 0 && errno != EINPROGRESS) die("connect");
    c->state = CONNECTING;
    c->close_code = c->paused = c->rest_size = c->out_size = 0;
    if (!c->next) {
        c->next = calloc(setup.each * per_room(), sizeof *c->next);
        c->at = calloc(setup.each, sizeof *c->at);
        if (setup.recover_from)
            for (int place = 0; place < setup.each; place++) {
                c->at[place].offset = c->next[place * per_room()] = setup.recover_from;
                strcpy(c->at[place].epoch, setup.epoch);
            }
    }
    watch(i, EPOLL_CTL_ADD);
}

/* At the raw door a client's place among the rooms is part of its address; the floor heeds it. */
static void shake_hands(int i) {
    char request[512], query[32] = "";
    if (setup.dialect == RAW) snprintf(query, sizeof query, "?room=%d", room_of(i, 0));
    int size = snprintf(request, sizeof request,
                        "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        setup.path, query);
    clients[i].state = SHAKING;
    watch(i, EPOLL_CTL_MOD);
    put(i, request, size);
}

/* Connect and all subscribes in one frame, as the JavaScript SDK sends them. */
static void open_sdk(int i) {
    static char message[65536];
    struct client *c = &clients[i];
    int size = snprintf(message, sizeof message, "{\"id\":1,\"connect\":{\"token\":\"%s\",\"name\":\"load\"}}",
                        setup.tokens ? setup.tokens[i] : "");
    for (int place = 0; place < setup.each; place++) {
        struct position *at = &c->at[place];
        size += snprintf(message + size, sizeof message - size, "\n{\"id\":%d,\"subscribe\":{\"channel\":\"%s%d\"",
                         place + 2, setup.prefix, room_of(i, place));
        if (at->epoch[0] || at->offset)
            size += snprintf(message + size, sizeof message - size, ",\"recover\":true,\"epoch\":\"%s\",\"offset\":%u",
                             at->epoch, at->offset);
        size += snprintf(message + size, sizeof message - size, ",\"flag\":0}}");
    }
    c->replies_due = setup.each + 1;
    say(i, TEXT, message, size);
}

static void ready(int i) {
    clients[i].state = READY;
    counts.ready++;
}

static void shaken(int i, const char *answer, size_t size) {
    clients[i].state = OPENING;
    if (memcmp(answer, "HTTP/1.1 101", 12) != 0 || !memmem(answer, size, ACCEPT, strlen(ACCEPT))) {
        complain(answer, size);
        counts.failed++;
        clients[i].state = GONE;
    } else if (setup.dialect == RAW) {
        ready(i);
    } else if (setup.dialect == SDK) {
        open_sdk(i);
    }
}

/* --- listening ----------------------------------------------------------------------------------------------------- */

static uint32_t number_after(const char *text, size_t size, const char *name) {
    const char *found = memmem(text, size, name, strlen(name));
    return found ? strtoul(found + strlen(name), NULL, 10) : 0;
}

static void heard_offset(int i, int room, const char *rest, size_t size) {
    uint32_t offset = number_after(rest, size, "\"offset\":");
    struct position *at = &clients[i].at[place_of(i, room)];
    if (at->epoch[0] && offset != at->offset + 1) counts.disordered++;
    at->offset = offset;
}

static uint32_t hexadecimal(const char *text, int digits) {
    uint32_t value = 0;
    for (int k = 0; k < digits; k++) value = value << 4 | ((text[k] & 0xf) + (text[k] >= 'a' ? 9 : 0));
    return value;
}

static void heard_tag(int i, const char *tag, const char *end, int64_t now) {
    uint32_t stream = hexadecimal(tag + 2, 4), number = hexadecimal(tag + 7, 8);
    if (stream >= (unsigned)setup.streams) return;
    uint32_t *next = next_of(i, stream);
    if (number > *next) counts.lost += number - *next;
    if (number < *next) counts.disordered++;
    *next = number + 1;
    counts.delivered++;
    const char *rest = end - tag > setup.size ? tag + setup.size : end; /* the offset follows the text */
    if (setup.dialect == SDK) heard_offset(i, stream % setup.rooms, rest, end - rest);
    if (clients[i].slow || sent[stream] - number > RING) return;
    observe(now - flights[stream][number % RING].at);
    if (++flights[stream][number % RING].heard == members[stream % setup.rooms])
        in_flight--, completed[stream]++, counts.done++;
}

/* memchr() looks at many bytes at once; memmem() for a needle so short does not. */
static const char *find_tag(const char *from, const char *end) {
    while ((from = memchr(from, '~', end - from)) && end - from >= TAG && from[1] != 'b') from++;
    return from && end - from >= TAG ? from : NULL;
}

static void heard_tags(int i, const char *text, size_t size, int64_t now) {
    const char *end = text + size, *tag = text;
    while ((tag = find_tag(tag, end))) {
        const char *line = memchr(tag, '\n', end - tag);
        heard_tag(i, tag, line ? line : end, now);
        tag += TAG;
    }
}

static void heard_subscribed(int i, uint32_t id, const char *line, size_t size) {
    struct position *at = &clients[i].at[id - 2];
    const char *epoch = memmem(line, size, "\"epoch\":\"", 9);
    if (memmem(line, size, "\"recovered\":true", 16)) counts.recovered++;
    else if (at->epoch[0]) counts.unrecovered++;
    if (epoch) sscanf(epoch + 9, "%19[^\"]", at->epoch);
    if (!memmem(line, size, "\"publications\"", 14)) at->offset = number_after(line, size, "\"offset\":");
}

static void heard_reply(int i, const char *line, size_t size) {
    struct client *c = &clients[i];
    uint32_t id = number_after(line, size, "\"id\":");
    if (memmem(line, size, "\"error\":", 8)) {
        complain(line, size);
        counts.refused++;
    } else if (id >= 2 && id < 1000) {
        heard_subscribed(i, id, line, size);
    } else {
        counts.replies += id >= 1000;
    }
    if (c->state == OPENING && id < 1000 && --c->replies_due == 0) ready(i);
}

static void heard_sdk(int i, const char *text, size_t size, int64_t now) {
    const char *end = text + size;
    for (const char *line = text, *stop; line < end; line = stop + 1) {
        stop = memchr(line, '\n', end - line);
        if (!stop) stop = end;
        if (stop - line == 2) {
            say(i, TEXT, "{}", 2);
            counts.pings++;
        } else if (memcmp(line, "{\"id\":", 6) == 0) {
            heard_reply(i, line, stop - line);
        }
        heard_tags(i, line, stop - line, now);
    }
}

static void heard_socket_io(int i, const char *text, size_t size, int64_t now) {
    if (text[0] == '0') say(i, TEXT, "40", 2);
    else if (text[0] == '2' && size == 1) say(i, TEXT, "3", 1), counts.pings++;
    else if (size > 1 && text[0] == '4' && text[1] == '0') ready(i);
    else heard_tags(i, text, size, now);
}

static void gone(int i) {
    struct client *c = &clients[i];
    if (c->state == READY) counts.ready--, counts.closed++;
    else if (c->state != GONE) counts.failed++;
    c->state = GONE;
    close(c->fd);
}

static int heard_frame(int i, struct frame *frame, char *payload, int64_t now) {
    if (frame->opcode == CLOSE) {
        clients[i].close_code = frame->length >= 2 ? (unsigned char)payload[0] << 8 | (unsigned char)payload[1] : 1005;
        if (clients[i].state != READY) complain(payload, frame->length);
        say(i, CLOSE, payload, frame->length < 2 ? 0 : 2);
        gone(i);
        return 0;
    }
    if (frame->opcode == PING) say(i, PONG, payload, frame->length), counts.pings++;
    else if (frame->opcode != TEXT) return 1;
    else if (setup.dialect == SDK) heard_sdk(i, payload, frame->length, now);
    else if (setup.dialect == SOCKET_IO) heard_socket_io(i, payload, frame->length, now);
    else heard_tags(i, payload, frame->length, now);
    return 1;
}

static void heard(int i) {
    static unsigned char inbox[1 << 20];
    struct client *c = &clients[i];
    size_t at = 0, size = c->rest_size;
    if (size) memcpy(inbox, c->rest, size);
    ssize_t more = recv(c->fd, inbox + size, sizeof inbox - size - 1, 0);
    if (more <= 0) {
        if (more == 0 || errno != EAGAIN) gone(i);
        return;
    }
    size += more;
    inbox[size] = 0;
    int64_t now = now_ns();
    if (c->state == SHAKING) {
        unsigned char *end = memmem(inbox, size, "\r\n\r\n", 4);
        if (end) {
            at = end + 4 - inbox;
            shaken(i, (char *)inbox, at);
        }
    }
    struct frame frame;
    while (c->state > SHAKING && frame_head(inbox + at, size - at, &frame) && frame.head + frame.length <= size - at) {
        if (c->state == GONE || !heard_frame(i, &frame, (char *)inbox + at + frame.head, now)) return;
        at += frame.head + frame.length;
    }
    c->rest_size = size - at;
    if (c->rest_size) {
        c->rest = realloc(c->rest, c->rest_size);
        memcpy(c->rest, inbox + at, c->rest_size);
    }
}

#endif
