// A process that ends at once after its last write: no byte of it is lost, or the process says so.
#include "common.h"

enum { LENGTH = 4 << 20 };

// What stands in a buffer of stdio when the process ends.
#define LAST "the last line\n"

enum end {
    RETURNS,
    LEAVES_A_BUFFER,
    RETURNS_WHILE_A_THREAD_STOPS_THE_NODE,
    EXITS_QUICKLY,
    STOPS_THE_NODE_AND_EXECUTES,
    EXECUTES,
    QUICKLY_BESIDE_A_RESET,
    RETURNS_WHILE_A_THREAD_WRITES,
    RETURNS_WHILE_A_CHILD_WRITES,
    ENDS
};

// What a process that ends shares with the one that reads.
struct writer {
    pid_t pid;
    int address[2], full[2], said[2];
};

// Writes all that the connection takes. How much that was.
static size_t fill(int fd, const char *data) {
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    size_t all = 0;
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    while (poll(&writable, 1, 1000) == 1) {
        ssize_t written = write(fd, data, LENGTH);
        CHECK(written > 0 || errno == EAGAIN);
        if (written > 0) all += (size_t)written;
    }
    return all;
}

static void *stop_patiently(void *node) {
    CHECK(peersock_stop(*(peersock_node *)node, 60000) == PEERSOCK_OK);
    return NULL;
}

// Without end, and without a word against SIGPIPE.
static void *write_on(void *fd) {
    static char data[65536];
    while (write(*(int *)fd, data, sizeof data) > 0) continue;
    return NULL;
}

static int write_and_end(struct writer *self, enum end end) {
    peersock_node other;
    struct sockaddr_in6 own, to;
    static char data[LENGTH];
    static int fd;
    CHECK(dup2(self->said[1], STDERR_FILENO) == STDERR_FILENO && close(self->said[1]) == 0);
    if (read(self->address[0], &to, sizeof to) != sizeof to) return 1;
    start(&other);
    own = address_of(other, 0);
    CHECK(own.sin6_family == AF_INET6);
    fd = peersock_node_socket(other, AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0 && peersock_connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    memset(data, 'x', sizeof data);
    if (end == QUICKLY_BESIDE_A_RESET) {
        fill(fd, data);
        CHECK(close(fd) == 0 && write(self->full[1], "", 1) == 1);
    } else if (end == RETURNS_WHILE_A_THREAD_STOPS_THE_NODE) {
        size_t all = fill(fd, data);
        pthread_t thread;
        CHECK(close(fd) == 0 && pthread_create(&thread, NULL, stop_patiently, &other) == 0);
        // The thread is to come first.
        usleep(500000);
        CHECK(write(self->full[1], &all, sizeof all) == sizeof all);
    } else {
        write_all(fd, data, sizeof data);
    }
    switch (end) {
        case STOPS_THE_NODE_AND_EXECUTES:
            CHECK(close(fd) == 0 && peersock_stop(other, 60000) == PEERSOCK_OK);  // fall through
        case EXECUTES: CHECK(execl("/bin/sh", "sh", "-c", "exit 0", (char *)NULL) == 0); break;
        case LEAVES_A_BUFFER: {
            FILE *file = fdopen(fd, "w");
            CHECK(file != NULL && fputs(LAST, file) >= 0);
            break;
        }
        case RETURNS_WHILE_A_THREAD_WRITES: {
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, write_on, &fd) == 0);
            break;
        }
        case RETURNS_WHILE_A_CHILD_WRITES: {
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                write_on(&fd);
                _exit(0);
            }
            break;
        }
        case EXITS_QUICKLY:
        case QUICKLY_BESIDE_A_RESET: quick_exit(0);
        default: break;
    }
    return 0;
}

// How much comes, and whether an end comes after it.
static size_t read_to_the_end(int fd, int *ends) {
    static char buf[65536];
    size_t all = 0;
    ssize_t got;
    while ((got = read(fd, buf, sizeof buf)) > 0) all += (size_t)got;
    CHECK(got == 0 || errno == ECONNRESET);
    *ends = got == 0;
    return all;
}

static void reset(int fd) {
    struct linger none = {1, 0};
    CHECK(peersock_setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0 && peersock_close(fd) == 0);
}

static void be_the_peer(int listener, struct writer *writer, enum end end) {
    char said[256] = "", byte;
    struct sockaddr_in6 to = address_of(PEERSOCK_DEFAULT, 7000);
    int ends = 0, status;
    CHECK(write(writer->address[1], &to, sizeof to) == sizeof to);
    int fd = peersock_accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    if (end == QUICKLY_BESIDE_A_RESET) {
        CHECK(read(writer->full[0], &byte, 1) == 1);
        reset(fd);
    } else if (end == RETURNS_WHILE_A_THREAD_STOPS_THE_NODE) {
        size_t written;
        CHECK(read(writer->full[0], &written, sizeof written) == sizeof written);
        // Longer than a process that ends waits for a node that does not come to its end.
        sleep(7);
        CHECK(read_to_the_end(fd, &ends) == written && ends && close(fd) == 0);
    } else {
        size_t all = read_to_the_end(fd, &ends);
        size_t written = LENGTH + (end == LEAVES_A_BUFFER ? strlen(LAST) : 0);
        fprintf(stderr, "%d: %zu of %zu bytes, and %s\n", end, all, written, ends ? "the end" : "a reset");
        // Who executes another program ends the node. What the peer sees is never an end that looks complete.
        if (end == RETURNS_WHILE_A_THREAD_WRITES || end == RETURNS_WHILE_A_CHILD_WRITES) {
            CHECK(all >= written && ends == (end == RETURNS_WHILE_A_THREAD_WRITES));
        } else {
            CHECK(end == EXECUTES ? !ends : ends && all == written);
        }
        CHECK(close(fd) == 0);
    }
    CHECK(waitpid(writer->pid, &status, 0) == writer->pid && status == 0);
    ssize_t length = read(writer->said[0], said, sizeof said - 1);
    CHECK(length >= 0);
    fprintf(stderr, "%d: it says: %s\n", end, said);
    if (end == QUICKLY_BESIDE_A_RESET) {
        const char *line = " bytes that the program has sent were not delivered\n", *begins = strstr(said, line);
        CHECK(strncmp(said, "peersock: ", 10) == 0 && begins != NULL && strcmp(begins, line) == 0);
    } else {
        CHECK(length == 0);
    }
}

int main(void) {
    static struct writer writers[ENDS];
    // Before anything is started: the children are programs of their own.
    for (int end = 0; end < ENDS; end++) {
        struct writer *writer = &writers[end];
        CHECK(pipe(writer->address) == 0 && pipe(writer->full) == 0 && pipe(writer->said) == 0);
        writer->pid = fork();
        CHECK(writer->pid >= 0);
        if (writer->pid == 0) return write_and_end(writer, end);
        CHECK(close(writer->said[1]) == 0);
    }
    start(NULL);
    int listener = listen_on(PEERSOCK_DEFAULT, 7000);
    for (int end = 0; end < ENDS; end++) be_the_peer(listener, &writers[end], end);
    puts("ok");
    return 0;
}
