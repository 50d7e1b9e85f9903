// C++ with libevent: an echo server and fifty clients in one event loop; five where each instruction costs thirty.
#include "common.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include <memory>
#include <string>
#include <vector>

namespace {

const int CLIENTS = in_valgrind() ? 5 : 50;
const std::string TEXT(100000, 'x');

int answered = 0, ended = 0;

void leave_when_done(event_base *base) {
    if (answered == CLIENTS && ended == CLIENTS) event_base_loopexit(base, nullptr);
}

void echo(bufferevent *connection, void *) {
    CHECK(bufferevent_write_buffer(connection, bufferevent_get_input(connection)) == 0);
}

void end(bufferevent *connection, short what, void *base) {
    CHECK(what & BEV_EVENT_EOF);
    bufferevent_free(connection);
    ended++;
    leave_when_done(static_cast<event_base *>(base));
}

void accept_one(evconnlistener *, evutil_socket_t fd, sockaddr *, int, void *base) {
    bufferevent *connection = bufferevent_socket_new(static_cast<event_base *>(base), fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(connection, echo, nullptr, end, base);
    CHECK(bufferevent_enable(connection, EV_READ | EV_WRITE) == 0);
}

void receive(bufferevent *connection, void *base) {
    if (evbuffer_get_length(bufferevent_get_input(connection)) < TEXT.size()) return;
    std::string text(TEXT.size(), '\0');
    CHECK(bufferevent_read(connection, &text[0], text.size()) == text.size() && text == TEXT);
    bufferevent_free(connection);
    answered++;
    leave_when_done(static_cast<event_base *>(base));
}

void progress(bufferevent *connection, short what, void *) {
    CHECK(what & BEV_EVENT_CONNECTED);
    CHECK(bufferevent_write(connection, TEXT.data(), TEXT.size()) == 0);
}

// libevent would open a socket of the kernel's itself, so it is given one that is connecting.
bufferevent *start_client(event_base *base, sockaddr_in6 to) {
    int fd = peersock_socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK(peersock_connect(fd, reinterpret_cast<sockaddr *>(&to), sizeof to) == -1 && errno == EINPROGRESS);
    bufferevent *connection = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(connection, receive, nullptr, progress, base);
    // Without an address: tells when the connection that has begun is there.
    CHECK(bufferevent_socket_connect(connection, nullptr, 0) == 0);
    CHECK(bufferevent_enable(connection, EV_READ | EV_WRITE) == 0);
    return connection;
}

}  // namespace

int main() {
    peersock_node other = start_pair();
    int listener = listen_on(other, 7000);
    CHECK(evutil_make_socket_nonblocking(listener) == 0);
    std::unique_ptr<event_base, decltype(&event_base_free)> base(event_base_new(), event_base_free);
    // A backlog of 0: it listens already.
    std::unique_ptr<evconnlistener, decltype(&evconnlistener_free)> accepting(
        evconnlistener_new(base.get(), accept_one, base.get(), LEV_OPT_CLOSE_ON_FREE, 0, listener),
        evconnlistener_free);
    CHECK(accepting);
    std::vector<bufferevent *> clients;
    for (int i = 0; i < CLIENTS; i++) clients.push_back(start_client(base.get(), address_of(other, 7000)));
    CHECK(event_base_dispatch(base.get()) == 0);
    CHECK(answered == CLIENTS && ended == CLIENTS);
    accepting.reset();
    puts("ok");
    return 0;
}
