// Events by a callback and by a descriptor in an epoll set; the log by a callback.
#include "common.h"
#include <sys/epoll.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int reachable, stopped, lines;
static char peer[PEERSOCK_ID_SIZE];

static void on_event(const peersock_event *event, void *context) {
    CHECK(context == &lock);
    // The process's descriptors are there: this one is a pipe's.
    CHECK(fcntl(STDERR_FILENO, F_GETFD) >= 0);
    pthread_mutex_lock(&lock);
    if (event->kind == PEERSOCK_PEER_REACHABLE) {
        CHECK(event->relayed == 0 && event->turn == 0);
        reachable++;
        memcpy(peer, event->peer, sizeof peer);
    }
    stopped += event->kind == PEERSOCK_NODE_STOPPED;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_log(int level, const char *text, void *context) {
    CHECK(context == NULL && level >= PEERSOCK_LOG_ERROR && level <= PEERSOCK_LOG_DEBUG && text[0] != '\0');
    pthread_mutex_lock(&lock);
    lines++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void wait_until(int *number) {
    pthread_mutex_lock(&lock);
    while (*number == 0) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

// Out before anything happens: it hears nothing.
static void on_nothing(const peersock_event *event, void *context) {
    (void)context;
    CHECK(event == NULL);
}

int main(void) {
    char id[PEERSOCK_ID_SIZE];
    peersock_event event;
    peersock_node other;
    CHECK(peersock_on_log(PEERSOCK_LOG_DEBUG, on_log, NULL) == PEERSOCK_OK);
    CHECK(peersock_on_log(17, on_log, NULL) == PEERSOCK_E_INVALID);
    start(NULL);
    CHECK(peersock_on_event(PEERSOCK_DEFAULT, on_nothing, NULL) == PEERSOCK_OK);
    CHECK(peersock_on_event(PEERSOCK_DEFAULT, on_event, &lock) == PEERSOCK_OK);
    int fd = peersock_event_fd(PEERSOCK_DEFAULT), set = epoll_create1(EPOLL_CLOEXEC);
    CHECK(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    CHECK(read(fd, &event, sizeof event) == -1 && errno == EAGAIN);
    struct epoll_event wanted = {.events = EPOLLIN, .data = {.fd = fd}}, found;
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &wanted) == 0);

    start(&other);
    CHECK(peersock_id(other, id, sizeof id) == PEERSOCK_OK);
    struct sockaddr_in6 address = address_of(other, 0);
    CHECK(peersock_wait_peer(PEERSOCK_DEFAULT, NETWORK, (struct sockaddr *)&address, sizeof address, 60000) ==
          PEERSOCK_OK);
    wait_until(&reachable);
    CHECK(strcmp(peer, id) == 0);
    do {
        CHECK(epoll_wait(set, &found, 1, 60000) == 1);
        CHECK(read(fd, &event, sizeof event) == sizeof event);
        CHECK(strcmp(event.peer, id) == 0);
    } while (event.kind != PEERSOCK_PEER_REACHABLE);
    wait_until(&lines);
    CHECK(peersock_on_log(PEERSOCK_LOG_OFF, NULL, NULL) == PEERSOCK_OK);

    CHECK(peersock_stop(PEERSOCK_DEFAULT, 1000) == PEERSOCK_OK);
    CHECK(stopped == 1);
    ssize_t got;
    do {
        CHECK(epoll_wait(set, &found, 1, 60000) == 1);
        got = read(fd, &event, sizeof event);
        CHECK(got == 0 || got == sizeof event);
    } while (got > 0);
    CHECK(close(fd) == 0 && close(set) == 0);
    puts("ok");
    return 0;
}
