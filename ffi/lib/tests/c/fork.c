// Forked children use their parent's listener and node; the process closes everything that it does not know.
#include "common.h"
#include <sys/syscall.h>
#include <time.h>

static void child(int listener, peersock_node other, int which) {
    struct timespec begin, end;
    char id[PEERSOCK_ID_SIZE];
    clock_gettime(CLOCK_MONOTONIC, &begin);
    CHECK(peersock_id(PEERSOCK_DEFAULT, id, sizeof id) == PEERSOCK_E_DOWN && errno == ENETDOWN);
    CHECK(peersock_stop(other, 1000) == PEERSOCK_E_DOWN && !peersock_is_running(other));
    CHECK(peersock_event_fd(other) == -1 && errno == ENETDOWN);
    clock_gettime(CLOCK_MONOTONIC, &end);
    CHECK(end.tv_sec - begin.tv_sec <= 1);

    int fd = peersock_accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    write_all(fd, which ? "one" : "two", 3);
    CHECK(close(fd) == 0);
    // A new socket, with the parent's node.
    struct sockaddr_in6 to;
    socklen_t length = sizeof to;
    CHECK(peersock_getsockname(listener, (struct sockaddr *)&to, &length) == 0);
    to.sin6_port = htons(7001);
    fd = connect_to(to);
    write_all(fd, "child", 5);
    CHECK(close(fd) == 0);
    // To what looks for leaks, all is lost in a child that the parent's other threads had on their stacks.
    if (getenv("PEERSOCK_TEST_CHECKED") != NULL) execl("/bin/true", "true", NULL);
    exit(0);
}

int main(void) {
    // Whatever has been opened so far and is to come: the node does not need it.
    peersock_node other = start_pair();
    CHECK(syscall(SYS_close_range, 3u, ~0u, 0u) == 0);
    int listener = listen_on(other, 7000), second = listen_on(other, 7001), status;
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) child(listener, other, i);
    }
    char buf[6] = "";
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in6 to = address_of(other, 7000);
        int fd = connect_to(to);
        read_all(fd, buf, 3);
        CHECK(memcmp(buf, "one", 3) == 0 || memcmp(buf, "two", 3) == 0);
        CHECK(read(fd, buf, 1) == 0);
        CHECK(close(fd) == 0);
    }
    for (int i = 0; i < 2; i++) {
        int fd = peersock_accept(second, NULL, NULL);
        CHECK(fd >= 0);
        read_all(fd, buf, 5);
        CHECK(memcmp(buf, "child", 5) == 0);
        // The children have ended, and hold nothing of the node's open.
        CHECK(read(fd, buf, 1) == 0);
        CHECK(close(fd) == 0);
    }
    for (int i = 0; i < 2; i++) CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
    CHECK(close(listener) == 0 && close(second) == 0);
    puts("ok");
    return 0;
}
