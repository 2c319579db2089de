/* The floor: what a message to many costs when nothing is done but one send() per reader.
 *
 * A WebSocket server that makes each frame once and sends it to everybody in the room, in one thread. It has no history,
 * no log-in and no memory of who is slow: a reader whose socket is full is an error. Nothing that chatd promises is
 * promised here; it is what the operating system charges.
 *
 * usage: floor [join] [beat=SECONDS]
 *   join   what one turn of the loop brought to a room leaves in one frame, and the loop looks at its sockets between two
 *          rooms
 *   beat   everybody is sent a ping so often, all at once
 * A client is in the room of its request's "room=N", or in room 0.
 * It listens on a free port of loopback and says which, as one line. */

#include "websocket.h"

enum { MOST = 65536, INBOX = 65536, MOST_ROOMS = 256 };

static struct room {
    int readers[MOST], count;
    unsigned char waiting[1 << 20];
    size_t waiting_size;
} rooms[MOST_ROOMS];

static int joining;
static struct room *line[MOST_ROOMS]; /* those that have something to say, who has waited longest first; a ring */
static int first, in_line;
static struct room *room_of[MOST]; /* by descriptor; NULL: it has not shaken hands */
static int place_of[MOST];         /* where it stands among the room's readers */

static void leave(int fd) {
    struct room *room = room_of[fd];
    if (room) {
        int last = room->readers[--room->count];
        room->readers[place_of[fd]] = last;
        place_of[last] = place_of[fd];
        room_of[fd] = NULL;
    }
    close(fd);
}

static void tell_all(struct room *room, const unsigned char *payload, size_t length) {
    static unsigned char frame[sizeof room->waiting + 14];
    size_t head = put_head(frame, TEXT, length, 0);
    memcpy(frame + head, payload, length);
    for (int i = 0; i < room->count; i++)
        if (send(room->readers[i], frame, head + length, MSG_NOSIGNAL) != (ssize_t)(head + length)) die("send");
}

static void said(struct room *room, unsigned char *payload, size_t length) {
    if (!joining) {
        tell_all(room, payload, length);
        return;
    }
    if (room->waiting_size) room->waiting[room->waiting_size++] = '\n';
    else line[(first + in_line++) % MOST_ROOMS] = room;
    memcpy(room->waiting + room->waiting_size, payload, length);
    room->waiting_size += length;
}

static void take_turn(void) {
    struct room *room = line[first];
    tell_all(room, room->waiting, room->waiting_size);
    room->waiting_size = 0;
    first = (first + 1) % MOST_ROOMS;
    in_line--;
}

static void beat(int clock) {
    unsigned char frame[14];
    size_t size = put_head(frame, PING, 0, 0);
    uint64_t times;
    if (read(clock, &times, sizeof times) < 0) die("read");
    for (int at = 0; at < MOST_ROOMS; at++)
        for (int i = 0; i < rooms[at].count; i++)
            if (send(rooms[at].readers[i], frame, size, MSG_NOSIGNAL) < 0) die("send");
}

static void shake_hands(int fd, const unsigned char *request, size_t size) {
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n";
    const char *found = memmem(request, size, "room=", 5);
    struct room *room = &rooms[found ? atoi(found + 5) % MOST_ROOMS : 0];
    if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0) die("send");
    room_of[fd] = room;
    place_of[fd] = room->count;
    room->readers[room->count++] = fd;
}

/* Whatever is sent here is small and comes whole in one read: clients are the load's publishers. */
static void heard(int fd) {
    static unsigned char inbox[INBOX];
    ssize_t size = recv(fd, inbox, sizeof inbox, 0);
    if (size <= 0) {
        leave(fd);
        return;
    }
    if (!room_of[fd]) {
        shake_hands(fd, inbox, size);
        return;
    }
    struct frame frame;
    for (size_t at = 0; frame_head(inbox + at, size - at, &frame); at += frame.head + frame.length) {
        unsigned char *payload = inbox + at + frame.head, *mask = payload - 4;
        if (frame.opcode == CLOSE) {
            leave(fd);
            return;
        }
        for (size_t i = 0; frame.masked && i < frame.length; i++) payload[i] ^= mask[i & 3];
        if (frame.opcode == TEXT) said(room_of[fd], payload, frame.length);
    }
}

static int listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) die("listen");
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("listening on %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static int clock_of(int seconds) {
    struct itimerspec every = {{seconds, 0}, {seconds, 0}};
    int clock = timerfd_create(CLOCK_MONOTONIC, 0);
    if (clock < 0 || timerfd_settime(clock, 0, &every, NULL) < 0) die("timerfd");
    return clock;
}

static void listen_to(int poller, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv) {
    raise_open_files();
    int door = listen_anywhere(), poller = epoll_create1(0), clock = -1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "join") == 0) joining = 1;
        if (strncmp(argv[i], "beat=", 5) == 0) listen_to(poller, clock = clock_of(atoi(argv[i] + 5)));
    }
    struct epoll_event events[256];
    listen_to(poller, door);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, in_line ? 0 : -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == clock) {
                beat(clock);
                continue;
            }
            if (fd != door) {
                heard(fd);
                continue;
            }
            while ((fd = accept4(door, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                no_delay(fd);
                listen_to(poller, fd);
            }
        }
        if (in_line) take_turn();
    }
}
