// A path that a root relays until a direct one opens, and again when that is cut: what the events and the
// status say. In three network namespaces: each node has one, and between them is that of the program, with
// the root, which forwards nothing until it is told to.
//
//  here  10.97.1.2 ---- 10.97.1.1
//                                  10.97.3.1, with the root
//  there 10.97.2.2 ---- 10.97.2.1
#include "common.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <time.h>

// The longest wait for something, milliseconds: a way that was silent is tried again after half a minute,
// then after one.
static const int PATIENCE_MS = 150000;
static const uint16_t PORT = 7000;

// What the root prints: where it is.
static char root[600];

// Runs commands of the shell.
static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...) {
    char commands[1000];
    va_list arguments;
    va_start(arguments, format);
    CHECK(vsnprintf(commands, sizeof commands, format, arguments) < (int)sizeof commands);
    va_end(arguments);
    CHECK(system(commands) == 0);
}

static int64_t now_ms(void) {
    struct timespec time;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

// A process that ends with this one, and has an end of a pair of sockets.
static pid_t start_child(int *fd, int *child_fd) {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    *fd = ends[0], *child_fd = ends[1];
    if (pid == 0) CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    close(ends[pid == 0 ? 0 : 1]);
    return pid;
}

// Starts the root, in this namespace, and reads where it is.
static void start_root(const char *program) {
    int fd, child_fd;
    run("set -e; ip link set lo up; ip addr add 10.97.3.1/32 dev lo; echo 0 > /proc/sys/net/ipv4/ip_forward");
    if (start_child(&fd, &child_fd) == 0) {
        CHECK(dup2(child_fd, STDOUT_FILENO) == STDOUT_FILENO);
        execl(program, program, "root", "--ephemeral", "--drain", "0", "--listen", "10.97.3.1", "--port", "0",
              NULL);
        CHECK(!"the program can be run");
    }
    size_t length = 0;
    do {
        CHECK(length < sizeof root - 1);
        read_all(fd, root + length, 1);
    } while (root[length++] != '\n');
    root[length - 1] = '\0';
}

// Starts a node in a namespace of its own, of which one interface leads to the root. 0 in the new process.
static pid_t start_host(int number, int *fd) {
    char byte = 0;
    int child_fd;
    pid_t pid = start_child(fd, &child_fd);
    if (pid == 0) {
        CHECK(unshare(CLONE_NEWNET) == 0);
        write_all(child_fd, &byte, 1), read_all(child_fd, &byte, 1);
        run("set -e; ip link set lo up; ip addr add 10.97.%d.2/24 dev eth0; ip link set eth0 up; "
            "ip route add default via 10.97.%d.1", number, number);
        *fd = child_fd;
        peersock_config *config = settings();
        CHECK(peersock_config_interfaces(config, "eth0") == PEERSOCK_OK);
        CHECK(peersock_config_discovery(config, false) == PEERSOCK_OK);
        CHECK(peersock_config_roots(config, root) == PEERSOCK_OK);
        CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
        peersock_config_free(config);
        CHECK(peersock_join(PEERSOCK_DEFAULT, NETWORK, NULL) == PEERSOCK_OK);
        return 0;
    }
    read_all(*fd, &byte, 1);
    run("set -e; ip link add to%d type veth peer name eth0 netns %d; ip addr add 10.97.%d.1/24 dev to%d; "
        "ip link set to%d up", number, (int)pid, number, number, number);
    write_all(*fd, &byte, 1);
    return pid;
}

// Says where it is, and sends back what one connection sends.
static void serve(int fd) {
    char byte;
    struct sockaddr_in6 address = address_of(PEERSOCK_DEFAULT, PORT);
    int listener = listen_on(PEERSOCK_DEFAULT, PORT);
    write_all(fd, (const char *)&address, sizeof address);
    int connection = peersock_accept(listener, NULL, NULL);
    CHECK(connection >= 0);
    while (peersock_recv(connection, &byte, 1, 0) == 1) write_all(connection, &byte, 1);
}

// Has packets pass between the nodes, or not any more.
static void forward(int fd, char on) {
    write_all(fd, &on, 1), read_all(fd, &on, 1);
}

// The peer, which is the only one.
static peersock_peer only_peer(void) {
    peersock_peer peer;
    size_t count;
    CHECK(peersock_peers(PEERSOCK_DEFAULT, NETWORK, &peer, sizeof(peersock_peer), 1, &count) == PEERSOCK_OK && count == 1);
    return peer;
}

// Whether the path leads to this host.
static bool leads_to(const peersock_peer *peer, const char *host) {
    char text[INET_ADDRSTRLEN];
    const struct sockaddr_in *path = (const struct sockaddr_in *)&peer->path;
    if (peer->path.ss_family != AF_INET) return false;
    CHECK(inet_ntop(AF_INET, &path->sin_addr, text, sizeof text) != NULL);
    return strcmp(text, host) == 0;
}

// One byte there and back: a path is looked for while packets flow.
static void exchange(int connection) {
    char byte = 'x';
    write_all(connection, &byte, 1), read_all(connection, &byte, 1);
    CHECK(byte == 'x');
}

// Waits for an event that says whether a root relays, and checks that the peer is as the event says. Gives
// the kinds of event that came until then, a bit each.
static unsigned wait_until(int events, int connection, bool relayed) {
    peersock_event event = {0};
    unsigned kinds = 0;
    bool is_so = false;
    for (int64_t end = now_ms() + PATIENCE_MS; !is_so;) {
        CHECK(now_ms() < end);
        exchange(connection);
        struct pollfd readable = {events, POLLIN, 0};
        if (poll(&readable, 1, 50) == 0) continue;
        CHECK(read(events, &event, sizeof event) == sizeof event);
        CHECK(strcmp(event.peer, only_peer().id) == 0 && event.turn == 0);
        kinds |= 1u << event.kind;
        bool has_path = event.kind == PEERSOCK_PEER_REACHABLE || event.kind == PEERSOCK_PATH_CHANGED;
        is_so = has_path && event.relayed == relayed;
    }
    peersock_peer peer = only_peer();
    CHECK(peer.connected && !(peer.flags & PEERSOCK_PEER_TURN));
    CHECK(relayed == ((peer.flags & PEERSOCK_PEER_RELAYED) != 0));
    CHECK(leads_to(&peer, relayed ? "10.97.3.1" : "10.97.2.2"));
    return kinds;
}

// Waits until the status says that a direct path was looked for at the peer's address, and why there is none.
static void wait_for_attempts(int connection) {
    bool is_told = false;
    for (int64_t end = now_ms() + PATIENCE_MS; !is_told;) {
        char *status;
        CHECK(now_ms() < end);
        exchange(connection);
        CHECK(peersock_status(PEERSOCK_DEFAULT, &status) == PEERSOCK_OK);
        const char *attempts = strstr(status, "\"attempts\":[{\"address\":\"10.97.2.2:");
        const char *over = attempts ? strstr(attempts, "}]") : NULL;
        const char *outcome = attempts ? strstr(attempts, "\"outcome\":\"no answer\"") : NULL;
        is_told = outcome != NULL && outcome < over;
        peersock_string_free(status);
        usleep(10000);
    }
}

static void follow(int fd) {
    struct sockaddr_in6 address;
    read_all(fd, (char *)&address, sizeof address);
    int events = peersock_event_fd(PEERSOCK_DEFAULT);
    CHECK(events >= 0);
    int connection = connect_to(address);
    unsigned kinds = wait_until(events, connection, true);
    wait_for_attempts(connection);
    CHECK(only_peer().flags & PEERSOCK_PEER_RELAYED);
    forward(fd, 1);
    kinds |= wait_until(events, connection, false);
    CHECK(kinds & 1u << PEERSOCK_PEER_REACHABLE && kinds & 1u << PEERSOCK_PATH_CHANGED);
    // The connection is still the same.
    forward(fd, 0);
    CHECK(wait_until(events, connection, true) & 1u << PEERSOCK_PATH_CHANGED);
    CHECK(close(connection) == 0 && close(events) == 0);
    puts("ok");
}

int main(int argc, char **argv) {
    char on;
    int here, there, status;
    struct sockaddr_in6 address;
    CHECK(argc == 2);
    start_root(argv[1]);
    if (start_host(2, &there) == 0) return serve(there), 0;
    read_all(there, (char *)&address, sizeof address);
    pid_t pid = start_host(1, &here);
    if (pid == 0) return follow(here), 0;
    write_all(here, (const char *)&address, sizeof address);
    // Until it has ended.
    while (read(here, &on, 1) == 1) {
        run("echo %d > /proc/sys/net/ipv4/ip_forward", on);
        write_all(here, &on, 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
