/* The load: thousands of WebSocket clients in one thread, so cheap that the server is what is measured.
 *
 * DESIGN. One command a line on stdin, `name key=value ...`; one JSON object a line on stdout when it is done. Between
 * commands the clients live on: they answer pings and listen. What must be measured from outside, the server's CPU time
 * above all, is read by our caller while nothing is under way: `run` says {"begin":true}, waits for a line, and ends
 * only when everything that was published has arrived.
 *
 *   setup dialect=raw|sdk|socketio ports=P,P path=/ count=N rooms=R each=E streams=S depth=D size=BYTES prefix=NAME
 *         tokens=FILE recover=OFFSET epoch=E receive=BYTES        who connects; client i is in rooms i*E ... of R
 *   open at_once=N          connect everybody who is not, at most so many at a time
 *   streams streams=S depth=D      begin anew with so many publishers, each with up to D messages under way
 *   run seconds=T window=W [spin=1]   publish as long as fewer than W messages are under way; spin: never sleep
 *   run seconds=T rate=X    publish X a second, come what may; a line `enough` ends either before its time
 *   idle seconds=T          only live
 *   pause count=N           the last N clients read no more;  resume: they read again
 *   where                   the first client's position in its first room
 *   close                   everybody leaves
 */

#include "clients.h"

static char command[4096];
static int spoken;

static int turn(int64_t wait_ns) {
    static struct epoll_event events[512];
    struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
    int ready = epoll_pwait2(poller, events, 512, wait_ns < 0 ? NULL : &wait, NULL);
    for (int k = 0; k < ready; k++) {
        uint32_t i = events[k].data.u32;
        if (i == UINT32_MAX) {
            spoken = 1;
            continue;
        }
        if (clients[i].state == CONNECTING && events[k].events & EPOLLOUT) shake_hands(i);
        else if (clients[i].out_size && events[k].events & EPOLLOUT) put_rest(i);
        if (events[k].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) heard(i);
    }
    return ready;
}

static void next_command(void) {
    while (!spoken) turn(-1);
    spoken = 0;
    if (!fgets(command, sizeof command, stdin)) exit(0);
}

/* --- arguments ----------------------------------------------------------------------------------------------------- */

static const char *word(const char *name) {
    static char value[1024];
    char key[64];
    snprintf(key, sizeof key, " %s=", name);
    const char *found = strstr(command, key);
    return found && sscanf(found + strlen(key), "%1023s", value) == 1 ? value : NULL;
}

static double number(const char *name, double otherwise) {
    const char *text = word(name);
    return text ? atof(text) : otherwise;
}

static void read_tokens(const char *file) {
    FILE *tokens = fopen(file, "r");
    if (!tokens) die(file);
    setup.tokens = calloc(MOST_CLIENTS, sizeof *setup.tokens);
    size_t room = 0;
    for (int i = 0; i < MOST_CLIENTS && getline(&setup.tokens[i], &room, tokens) > 0; i++, room = 0)
        setup.tokens[i][strcspn(setup.tokens[i], "\n")] = 0;
    fclose(tokens);
}

static void read_ports(char *ports) {
    setup.addresses = 0;
    for (char *port = strtok(ports, ","); port; port = strtok(NULL, ",")) {
        struct sockaddr_in *address = &setup.address[setup.addresses++];
        address->sin_family = AF_INET;
        address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address->sin_port = htons(atoi(port));
    }
}

/* --- commands ------------------------------------------------------------------------------------------------------ */

static void count_members(void) {
    memset(members, 0, sizeof members);
    for (int i = 0; i < setup.count; i++)
        for (int place = 0; place < setup.each && !clients[i].slow; place++) members[room_of(i, place)]++;
}

static void begin_streams(void) {
    setup.streams = number("streams", setup.streams);
    setup.depth = number("depth", setup.depth);
    memset(sent, 0, sizeof sent);
    memset(completed, 0, sizeof completed);
    in_flight = 0;
    free(flights);
    flights = calloc(setup.streams, sizeof *flights);
    for (int i = 0; i < setup.count; i++)
        if (clients[i].next) {
            clients[i].next = realloc(clients[i].next, setup.each * per_room() * sizeof *clients[i].next);
            memset(clients[i].next, 0, setup.each * per_room() * sizeof *clients[i].next);
        }
    count_members();
}

static void set_up(void) {
    const char *dialect = word("dialect");
    setup.dialect = !dialect ? RAW : strcmp(dialect, "sdk") == 0 ? SDK : strcmp(dialect, "raw") ? SOCKET_IO : RAW;
    setup.count = number("count", 1);
    setup.rooms = number("rooms", 1);
    setup.each = number("each", 1);
    setup.size = number("size", 120);
    setup.recover_from = number("recover", 0);
    setup.receive_buffer = number("receive", 0);
    snprintf(setup.path, sizeof setup.path, "%s", word("path") ? word("path") : "/");
    snprintf(setup.prefix, sizeof setup.prefix, "%s", word("prefix") ? word("prefix") : "room-");
    snprintf(setup.epoch, sizeof setup.epoch, "%s", word("epoch") ? word("epoch") : "");
    read_ports((char *)word("ports"));
    if (word("tokens")) read_tokens(word("tokens"));
    begin_streams();
}

static void open_all(int at_once) {
    int next = 0, last = setup.count, wanted = setup.count;
    int64_t until = now_ns() + 120000000000LL;
    counts.ready = counts.failed = 0;
    for (int i = 0; i < last; i++) wanted -= clients[i].state == READY;
    for (int begun = 0; counts.ready + counts.failed < wanted && now_ns() < until;) {
        for (; next < last && begun - counts.ready - counts.failed < at_once; next++)
            if (clients[next].state != READY) begin(next), begun++;
        turn(10000000);
    }
}

static int take_stream(int *cursor) {
    for (int tries = 0; tries < setup.streams; tries++, ++*cursor) {
        int stream = *cursor % setup.streams;
        if (sent[stream] - completed[stream] < (uint32_t)setup.depth) return ++*cursor, stream;
    }
    return -1;
}

static void drain(void) {
    long before = -1;
    int64_t quiet_since = now_ns();
    while (in_flight > 0 && now_ns() - quiet_since < 10000000000LL) {
        turn(10000000);
        if (counts.delivered != before) before = counts.delivered, quiet_since = now_ns();
    }
}

static void run(double seconds, int window, double rate, int spins) {
    static int cursor;
    int64_t begun = now_ns(), end = begun + seconds * 1e9;
    double due = begun;
    for (int64_t now = begun; now < end && !spoken; now = now_ns()) {
        for (; rate && due <= now; due += 1e9 / rate) publish(cursor++ % setup.streams, due);
        for (int stream; !rate && in_flight < window && (stream = take_stream(&cursor)) >= 0;) publish(stream, now_ns());
        int64_t until = rate && due < end ? due : end;
        /* A load that slept would be woken by each delivery, at the sender's expense, as no client over a network is. */
        if (!turn(spins || until < now ? 0 : until - now) && spins) sched_yield();
    }
    drain();
    if (spoken) next_command();
}

static void idle(double seconds) {
    for (int64_t end = now_ns() + seconds * 1e9, now; (now = now_ns()) < end;) turn(end - now);
}

static void pause_reading(int count, int paused) {
    for (int i = setup.count - count; i < setup.count; i++) {
        clients[i].paused = paused;
        clients[i].slow = 1;
        if (clients[i].state != GONE) watch(i, EPOLL_CTL_MOD);
    }
    count_members();
}

static void close_all(void) {
    for (int i = 0; i < setup.count; i++)
        if (clients[i].state != GONE && clients[i].state != IDLE) {
            say(i, CLOSE, "\x03\xe8", 2);
            close(clients[i].fd);
            clients[i].state = IDLE;
        }
}

/* --- answers ------------------------------------------------------------------------------------------------------- */

static long closed_with(int code) {
    long found = 0;
    for (int i = 0; i < setup.count; i++) found += clients[i].close_code == code;
    return found;
}

static void answer(double seconds, long expected) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"seconds\":%.6f,\"ready\":%ld,\"failed\":%ld,\"closed\":%ld,\"closed_3008\":%ld,", seconds, counts.ready,
           counts.failed, counts.closed, closed_with(3008));
    printf("\"messages\":%ld,\"expected\":%ld,\"delivered\":%ld,\"lost\":%ld,\"disordered\":%ld,\"refused\":%ld,",
           counts.done, expected, counts.delivered, counts.lost, counts.disordered, counts.refused);
    printf("\"under_way\":%d,\"replies\":%ld,\"recovered\":%ld,\"unrecovered\":%ld,\"pings\":%ld,", in_flight,
           counts.replies, counts.recovered, counts.unrecovered, counts.pings);
    printf("\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,", quantile_ms(0.5), quantile_ms(0.99),
           quantile_ms(0.999), slowest / 1e6);
    printf("\"offset\":%u,\"epoch\":\"%s\",", clients[0].at ? clients[0].at[0].offset : 0,
           clients[0].at ? clients[0].at[0].epoch : "");
    printf("\"cpu_s\":%.3f,\"complaint\":\"%s\"}\n",
           usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
           counts.complaint);
    fflush(stdout);
}

static void measured_run(void) {
    double seconds = number("seconds", 1), rate = number("rate", 0);
    int window = number("window", 1), spins = number("spin", 0); /* the next command takes this one's place */
    puts("{\"begin\":true}");
    fflush(stdout);
    next_command();
    int64_t begun = now_ns();
    long expected = 0;
    static uint32_t before[MOST_STREAMS];
    memcpy(before, sent, sizeof sent);
    run(seconds, window, rate, spins);
    for (int s = 0; s < setup.streams; s++) expected += (long)(sent[s] - before[s]) * members[s % setup.rooms];
    answer((now_ns() - begun) / 1e9, expected);
}

static void obey(void) {
    long ready_before = counts.ready;
    memset(&counts, 0, sizeof counts);
    memset(buckets, 0, sizeof buckets);
    slowest = 0;
    counts.ready = ready_before;
    int64_t begun = now_ns();
    if (strncmp(command, "run", 3) == 0) {
        measured_run();
        return;
    }
    if (strncmp(command, "setup", 5) == 0) set_up();
    else if (strncmp(command, "open", 4) == 0) open_all(number("at_once", 64));
    else if (strncmp(command, "streams", 7) == 0) begin_streams();
    else if (strncmp(command, "idle", 4) == 0) idle(number("seconds", 1));
    else if (strncmp(command, "pause", 5) == 0) pause_reading(number("count", 1), 1);
    else if (strncmp(command, "resume", 6) == 0) pause_reading(number("count", 1), 0);
    else if (strncmp(command, "close", 5) == 0) close_all();
    answer((now_ns() - begun) / 1e9, 0);
}

int main(void) {
    raise_open_files();
    setvbuf(stdin, NULL, _IONBF, 0);
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    for (;;) {
        next_command();
        obey();
    }
}
