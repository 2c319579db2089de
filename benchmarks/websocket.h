/* WebSocket frames and sockets as the floor and the load need them (RFC 6455, 5.2); both sides are ours, so what a
 * stranger might send is not defended against. */

#ifndef WEBSOCKET_H
#define WEBSOCKET_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

/* The nonce of the RFC's own example, and its answer: no SHA-1 is needed on either side. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

struct frame {
    int opcode;
    int masked;
    size_t head, length; /* bytes of header with its mask, and of payload */
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Reads a header; 0 when it is not there as a whole yet. */
static int frame_head(const unsigned char *data, size_t size, struct frame *frame) {
    if (size < 2) return 0;
    frame->opcode = data[0] & 0x0f;
    frame->masked = data[1] >> 7;
    frame->length = data[1] & 0x7f;
    frame->head = 2;
    if (frame->length == 126) {
        if (size < 4) return 0;
        frame->length = (size_t)data[2] << 8 | data[3];
        frame->head = 4;
    } else if (frame->length == 127) {
        if (size < 10) return 0;
        frame->length = 0;
        for (int i = 2; i < 10; i++) frame->length = frame->length << 8 | data[i];
        frame->head = 10;
    }
    if (frame->masked) frame->head += 4;
    return size >= frame->head;
}

/* Writes a header of up to 14 bytes. A client's mask is all zeroes, which leaves the payload as it is. */
static size_t put_head(unsigned char *out, int opcode, size_t length, int masked) {
    size_t at = 2;
    out[0] = 0x80 | opcode;
    out[1] = masked ? 0x80 : 0;
    if (length < 126) {
        out[1] |= length;
    } else if (length < 65536) {
        out[1] |= 126;
        out[2] = length >> 8;
        out[3] = length;
        at = 4;
    } else {
        out[1] |= 127;
        for (int i = 0; i < 8; i++) out[2 + i] = length >> (56 - 8 * i);
        at = 10;
    }
    if (masked) {
        memset(out + at, 0, 4);
        at += 4;
    }
    return at;
}

static void raise_open_files(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

#endif
