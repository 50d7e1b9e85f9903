// Who waits for room to write when the network is left, or the node is stopped: each call is told at once,
// and nobody uses a processor, neither before nor afterwards.
#include "common.h"
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

enum { SEND, SENDTO, SENDMSG, WRITE, WRITERS, BLOCK = 1 << 16 };

typedef struct writer {
    pthread_t thread;
    int how, fd, error;
    // Its SO_ERROR afterwards.
    int truth;
    double told;
} writer;

static char block[BLOCK];
static atomic_size_t written;

static double now(clockid_t clock) {
    struct timespec time;
    CHECK(clock_gettime(clock, &time) == 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static ssize_t write_some(writer *writer) {
    struct iovec piece = {block, BLOCK};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    switch (writer->how) {
    case SEND: return peersock_send(writer->fd, block, BLOCK, MSG_NOSIGNAL);
    case SENDTO: return peersock_sendto(writer->fd, block, BLOCK, MSG_NOSIGNAL, NULL, 0);
    case SENDMSG: return peersock_sendmsg(writer->fd, &message, MSG_NOSIGNAL);
    default: return write(writer->fd, block, BLOCK);
    }
}

static void *fill(void *argument) {
    writer *writer = argument;
    ssize_t count;
    while ((count = write_some(writer)) >= 0) written += (size_t)count;
    writer->error = errno;
    writer->told = now(CLOCK_MONOTONIC);
    socklen_t length = sizeof writer->truth;
    CHECK(peersock_getsockopt(writer->fd, SOL_SOCKET, SO_ERROR, &writer->truth, &length) == 0);
    return NULL;
}

static void wait_until_still(void) {
    size_t before = 0;
    for (int still = 0, rounds = 0; still < 50; rounds++) {
        CHECK(rounds < 12000);
        still = written == before || before == 0 ? still + (before != 0) : 0;
        before = written;
        usleep(10000);
    }
}

// Everything that this process uses of the processors in two seconds of waiting is a small part of them.
// Valgrind and the sanitizers have work of their own.
static void nobody_is_busy(void) {
    for (int tries = 0; tries < 30; tries++) {
        double before = now(CLOCK_PROCESS_CPUTIME_ID);
        size_t written_before = written;
        sleep(2);
        double used = now(CLOCK_PROCESS_CPUTIME_ID) - before;
        // On a slow machine there was still some room.
        if (written != written_before) continue;
        fprintf(stderr, "%.3f s of the processors in 2 s\n", used);
        CHECK(used < 0.2 || getenv("PEERSOCK_TEST_CHECKED") != NULL);
        return;
    }
    CHECK(!"everybody waits");
}

static void play(peersock_node other, struct sockaddr_in6 to, int leaves) {
    int listener = listen_on(other, 7000), at_peer[WRITERS];
    writer writers[WRITERS];
    written = 0;
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (writer){.how = i, .fd = connect_to(to)};
        CHECK((at_peer[i] = peersock_accept(listener, NULL, NULL)) >= 0);
    }
    for (int i = 0; i < WRITERS; i++) CHECK(pthread_create(&writers[i].thread, NULL, fill, &writers[i]) == 0);
    wait_until_still();
    nobody_is_busy();
    double ended = now(CLOCK_MONOTONIC);
    if (leaves) CHECK(peersock_leave(PEERSOCK_DEFAULT, NETWORK) == PEERSOCK_OK);
    else CHECK(peersock_stop(PEERSOCK_DEFAULT, 0) == PEERSOCK_E_TIMEOUT);
    for (int i = 0; i < WRITERS; i++) {
        CHECK(pthread_join(writers[i].thread, NULL) == 0);
        fprintf(stderr, "call %d: %s, SO_ERROR %s, after %.3f s\n", i, strerror(writers[i].error),
                strerror(writers[i].truth), writers[i].told - ended);
        // To the kernel's own call it is a socket whose peer is gone; SO_ERROR tells the truth.
        if (i == WRITE) CHECK(writers[i].error == ECONNRESET || writers[i].error == EPIPE);
        else CHECK(writers[i].error == ENETDOWN);
        CHECK(i != WRITE || writers[i].truth == ENETDOWN);
        CHECK(writers[i].told - ended < (in_valgrind() ? 20 : 2));
    }
    for (int i = 0; i < WRITERS; i++) {
        ssize_t got;
        while ((got = peersock_recv(at_peer[i], block, BLOCK, 0)) > 0) continue;
        CHECK(got == -1 && errno == ECONNRESET);
        CHECK(close(at_peer[i]) == 0);
    }
    nobody_is_busy();
    for (int i = 0; i < WRITERS; i++) CHECK(close(writers[i].fd) == 0);
    CHECK(close(listener) == 0);
}

int main(void) {
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    peersock_node other = start_pair();
    struct sockaddr_in6 to = address_of(other, 7000);
    play(other, to, 1);
    CHECK(peersock_join(PEERSOCK_DEFAULT, NETWORK, NULL) == PEERSOCK_OK);
    CHECK(peersock_wait_peer(PEERSOCK_DEFAULT, NETWORK, (struct sockaddr *)&to, sizeof to, 60000) == PEERSOCK_OK);
    play(other, to, 0);
    puts("ok");
    return 0;
}
