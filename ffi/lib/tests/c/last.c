// A process that returns from main with much still to be delivered: as long as its peer reads nothing is
// lost, and otherwise a line on stderr says how much.
#include "common.h"
#include <time.h>

// So much a second is read, and so much is written at last.
enum { STEP = 65536, PAUSE_MS = 65, LENGTH = 7 << 20, ROOM = 8 << 20 };

// What a process has spent on delivering in earlier versions, seconds.
#define EARLIER 5.5

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

struct writer {
    pid_t process;
    // Where it is told the address, says that it is about to end, and where its stderr leads.
    int address[2], ends[2], errors[2];
};

static void write_and_return(struct writer *writer) {
    static char data[LENGTH];
    struct sockaddr_in6 to;
    peersock_node other;
    int room = ROOM;
    CHECK(dup2(writer->errors[1], STDERR_FILENO) == STDERR_FILENO);
    start(&other);
    CHECK(read(writer->address[0], &to, sizeof to) == sizeof to);
    int fd = peersock_node_socket(other, AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0 && peersock_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
    CHECK(peersock_connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    memset(data, 'x', sizeof data);
    write_all(fd, data, sizeof data);
    CHECK(close(fd) == 0);
    CHECK(write(writer->ends[1], "x", 1) == 1);
}

static void tell(struct writer *writer, uint16_t port) {
    struct sockaddr_in6 to = address_of(PEERSOCK_DEFAULT, port);
    CHECK(write(writer->address[1], &to, sizeof to) == sizeof to);
    close(writer->ends[1]), close(writer->errors[1]);
}

static void check_end(struct writer *writer, const char *said) {
    static char text[4096];
    ssize_t got, all = 0;
    int status;
    while ((got = read(writer->errors[0], text + all, sizeof text - 1 - (size_t)all)) > 0) all += got;
    text[all] = 0;
    CHECK(waitpid(writer->process, &status, 0) == writer->process);
    bool right = said ? strstr(text, said) != NULL : all == 0;
    if (status || !right) fprintf(stderr, "status %x, on stderr: %s\n", status, text);
    CHECK(status == 0 && right);
}

// The buffer of the listener's connections is small: what is written waits with who writes.
static int narrow_listener(uint16_t port) {
    int fd = peersock_socket(AF_INET6, SOCK_STREAM, 0), room = 65536;
    struct sockaddr_in6 address = address_of(PEERSOCK_DEFAULT, port);
    CHECK(fd >= 0 && peersock_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room) == 0);
    CHECK(peersock_bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && peersock_listen(fd, 5) == 0);
    return fd;
}

int main(void) {
    struct writer slow, broken, *writers[] = {&slow, &broken};
    for (int i = 0; i < 2; i++) {
        struct writer *writer = writers[i];
        CHECK(pipe(writer->address) == 0 && pipe(writer->ends) == 0 && pipe(writer->errors) == 0);
        // Before anything is started: the child is a program of its own.
        writer->process = fork();
        CHECK(writer->process >= 0);
        if (writer->process == 0) {
            write_and_return(writer);
            return 0;
        }
    }
    start(NULL);
    int listeners[] = {narrow_listener(7000), narrow_listener(7001)}, fds[2];
    for (int i = 0; i < 2; i++) {
        tell(writers[i], (uint16_t)(7000 + i));
        fds[i] = peersock_accept(listeners[i], NULL, NULL);
        CHECK(fds[i] >= 0);
    }

    // Who resets the connection while the process ends.
    char byte;
    CHECK(read(broken.ends[0], &byte, 1) == 1);
    struct linger none = {1, 0};
    CHECK(peersock_setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0);
    CHECK(peersock_close(fds[1]) == 0);
    check_end(&broken, " bytes that the program has sent were not delivered\n");

    // Who reads slowly. It does not read before the process ends, so that much is left then.
    static char buf[STEP];
    size_t all = 0;
    ssize_t got;
    CHECK(read(slow.ends[0], &byte, 1) == 1);
    double began = now();
    struct timespec pause = {0, PAUSE_MS * 1000000L};
    while ((got = read(fds[0], buf, sizeof buf)) > 0) {
        all += (size_t)got;
        if (all < LENGTH) nanosleep(&pause, NULL);
    }
    if (all != LENGTH) fprintf(stderr, "%zu of %d bytes\n", all, LENGTH);
    CHECK(got == 0 && all == LENGTH && now() - began > EARLIER);
    check_end(&slow, NULL);
    puts("ok");
    return 0;
}
