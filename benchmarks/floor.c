/* The floor: what a message to many costs when nothing is done but one send() per reader.
 *
 * A WebSocket server that makes each frame once and sends it to everybody, in one thread. It has no rooms, no history,
 * no log-in and no memory of who is slow: a reader whose socket is full is an error. Nothing that chatd promises is
 * promised here; it is what the operating system charges.
 *
 * usage: floor [join]    With "join", messages that came in one turn of the loop leave in one frame.
 * It listens on a free port of loopback and says which, as one line. */

#include "websocket.h"

#define MOST 65536
#define INBOX 65536

static int readers[MOST], places[MOST], count; /* places: by descriptor, where it stands in readers; -1: nowhere */
static int joining;
static unsigned char joined[1 << 20];
static size_t joined_size;

static void leave(int fd) {
    if (places[fd] >= 0) {
        int last = readers[--count];
        readers[places[fd]] = last;
        places[last] = places[fd];
        places[fd] = -1;
    }
    close(fd);
}

static void tell_all(const unsigned char *payload, size_t length) {
    static unsigned char frame[sizeof joined + 14];
    size_t head = put_head(frame, TEXT, length, 0);
    memcpy(frame + head, payload, length);
    for (int i = 0; i < count; i++)
        if (send(readers[i], frame, head + length, MSG_NOSIGNAL) != (ssize_t)(head + length)) die("send");
}

static void said(unsigned char *payload, size_t length) {
    if (!joining) {
        tell_all(payload, length);
        return;
    }
    if (joined_size) joined[joined_size++] = '\n';
    memcpy(joined + joined_size, payload, length);
    joined_size += length;
}

static void shake_hands(int fd) {
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n";
    if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0) die("send");
    places[fd] = count;
    readers[count++] = fd;
}

/* Whatever is sent here is small and comes whole in one read: clients are the load's publishers. */
static void heard(int fd) {
    static unsigned char inbox[INBOX];
    ssize_t size = recv(fd, inbox, sizeof inbox, 0);
    if (size <= 0) {
        leave(fd);
        return;
    }
    if (places[fd] < 0) {
        shake_hands(fd);
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
        if (frame.opcode == TEXT) said(payload, frame.length);
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

int main(int argc, char **argv) {
    raise_open_files();
    joining = argc > 1 && strcmp(argv[1], "join") == 0;
    memset(places, -1, sizeof places);
    int door = listen_anywhere(), poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = door}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, door, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != door) {
                heard(fd);
                continue;
            }
            while ((fd = accept4(door, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                no_delay(fd);
                event.data.fd = fd;
                epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
            }
        }
        if (joined_size) tell_all(joined, joined_size);
        joined_size = 0;
    }
}
