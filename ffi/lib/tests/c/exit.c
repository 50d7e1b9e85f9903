// A process that ends at once after its last write: no byte of it is lost.
#include "common.h"

enum { LENGTH = 4 << 20 };

static struct sockaddr_in6 to;

static void write_and_return(int address_pipe) {
    peersock_node other;
    struct sockaddr_in6 own;
    static char data[LENGTH];
    start(&other);
    CHECK(read(address_pipe, &to, sizeof to) == sizeof to);
    own = address_of(other, 0);
    CHECK(own.sin6_family == AF_INET6);
    int fd = peersock_node_socket(other, AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0 && peersock_connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    memset(data, 'x', sizeof data);
    write_all(fd, data, sizeof data);
}

int main(void) {
    int pipes[2], status;
    CHECK(pipe(pipes) == 0);
    // Before anything is started: the child is a program of its own.
    pid_t writer = fork();
    CHECK(writer >= 0);
    if (writer == 0) {
        write_and_return(pipes[0]);
        return 0;
    }
    start(NULL);
    int listener = listen_on(PEERSOCK_DEFAULT, 7000);
    to = address_of(PEERSOCK_DEFAULT, 7000);
    CHECK(write(pipes[1], &to, sizeof to) == sizeof to);
    int fd = peersock_accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    static char buf[65536];
    size_t all = 0;
    ssize_t got;
    while ((got = read(fd, buf, sizeof buf)) > 0) all += (size_t)got;
    if (all != LENGTH) fprintf(stderr, "%zu of %d bytes\n", all, LENGTH);
    CHECK(got == 0 && all == LENGTH);
    CHECK(waitpid(writer, &status, 0) == writer && status == 0);
    puts("ok");
    return 0;
}
