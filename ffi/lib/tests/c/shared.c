// Shares the node that runs in a state directory: shared STATE NETWORK. It says its address once a listener
// is at port 7000, echoes one connection, and says so. Then the test kills the node.
#include "common.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <sys/syscall.h>

static uint64_t network;

static struct sockaddr_in6 own_address(peersock_node node, uint16_t port) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    CHECK(peersock_address(node, network, &address.sin6_addr) == PEERSOCK_OK);
    return address;
}

static int count_descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    CHECK(folder != NULL);
    while (readdir(folder) != NULL) count++;
    closedir(folder);
    return count;
}

// What differs from the node's settings is refused, with the program that has set it.
static void ask_for_other_settings(const char *state) {
    peersock_node node;
    peersock_config *config = in_state(state);
    CHECK(peersock_config_port(config, 7777) == PEERSOCK_OK);
    CHECK(peersock_start(config, &node) == PEERSOCK_E_INVALID);
    CHECK(strstr(peersock_last_error(), "without --overlay-port, by `peersock node`") != NULL);
    peersock_config_free(config);
    config = in_state(state);
    CHECK(peersock_config_discovery(config, false) == PEERSOCK_OK);
    CHECK(peersock_start(config, &node) == PEERSOCK_E_INVALID);
    CHECK(strstr(peersock_last_error(), "asks for discovery false") != NULL);
    peersock_config_free(config);
    // A node of its own has the directory for itself.
    config = in_state(state);
    CHECK(setenv("PEERSOCK_OWN_NODE", "1", 1) == 0);
    CHECK(peersock_start(config, &node) == PEERSOCK_E_FILE);
    CHECK(strstr(peersock_last_error(), "in use") != NULL);
    CHECK(unsetenv("PEERSOCK_OWN_NODE") == 0);
    peersock_config_free(config);
}

// Another handle of the same process is another program to the node.
static void share_twice(const char *state, uint32_t process) {
    peersock_node other;
    peersock_config *config = in_state(state);
    uint32_t its = 0;
    CHECK(peersock_start(config, &other) == PEERSOCK_OK);
    peersock_config_free(config);
    CHECK(peersock_process(other, &its) == PEERSOCK_OK && its == process);
    // It sees no network yet.
    size_t count = 9;
    struct sockaddr_in6 to = own_address(PEERSOCK_DEFAULT, 7000);
    CHECK(peersock_networks(other, NULL, 0, &count) == PEERSOCK_OK && count == 0);
    int fd = peersock_node_socket(other, AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0 && peersock_connect(fd, (struct sockaddr *)&to, sizeof to) == -1 && errno == ENETUNREACH);
    CHECK(close(fd) == 0);
    // A listener that is there before the network is not reached in it: another program may have its port.
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(7002)};
    int early = peersock_node_socket(other, AF_INET6, SOCK_STREAM, 0);
    CHECK(early >= 0 && peersock_bind(early, (struct sockaddr *)&any, sizeof any) == 0);
    CHECK(peersock_listen(early, 1) == 0);
    CHECK(peersock_join(other, network, "a passphrase") == PEERSOCK_E_INVALID);
    CHECK(strstr(peersock_last_error(), "with no passphrase") != NULL);
    CHECK(peersock_join(other, network, NULL) == PEERSOCK_OK);
    CHECK(peersock_join(other, network, NULL) == PEERSOCK_E_EXISTS);
    CHECK(peersock_wait_ready(other, network, 1000) == PEERSOCK_OK);
    struct sockaddr_in6 its_own = own_address(other, 7000);
    CHECK(memcmp(&its_own.sin6_addr, &to.sin6_addr, sizeof to.sin6_addr) == 0);
    to.sin6_port = htons(7002);
    fd = peersock_socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0 && peersock_connect(fd, (struct sockaddr *)&to, sizeof to) == -1 && errno == ECONNREFUSED);
    CHECK(close(fd) == 0 && close(early) == 0);
    early = peersock_node_socket(other, AF_INET6, SOCK_STREAM, 0);
    CHECK(early >= 0 && peersock_bind(early, (struct sockaddr *)&any, sizeof any) == 0);
    CHECK(peersock_listen(early, 1) == 0);
    int own = connect_to(to), accepted = peersock_accept(early, NULL, NULL);
    char word[5] = "";
    CHECK(accepted >= 0);
    write_all(own, "late", 4);
    read_all(accepted, word, 4);
    CHECK(strcmp(word, "late") == 0);
    // The ports are the node's.
    fd = peersock_node_socket(other, AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0 && peersock_bind(fd, (struct sockaddr *)&its_own, sizeof its_own) == -1 && errno == EADDRINUSE);
    CHECK(close(fd) == 0);
    // Leaving ends its own connections, and not those of the other program.
    CHECK(peersock_leave(other, network) == PEERSOCK_OK);
    CHECK(peersock_leave(other, network) == PEERSOCK_E_NOT_FOUND);
    CHECK(read(accepted, word, 1) == -1 && errno == ECONNRESET);
    CHECK(read(own, word, 1) == -1 && errno == ECONNRESET);
    CHECK(peersock_wait_ready(other, network, 1000) == PEERSOCK_E_NOT_FOUND);
    CHECK(close(own) == 0 && close(accepted) == 0);
    CHECK(peersock_stop(other, 5000) == PEERSOCK_OK);
    CHECK(peersock_accept(early, NULL, NULL) == -1 && errno == ENETDOWN);
    CHECK(close(early) == 0);
    CHECK(peersock_id(other, word, sizeof word) == PEERSOCK_E_DOWN);
}

// A child uses the node, and has nothing of the attachment.
static void fork_a_child(void) {
    struct sockaddr_in6 to = own_address(PEERSOCK_DEFAULT, 7000);
    int descriptors = count_descriptors(), status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char id[PEERSOCK_ID_SIZE];
        CHECK(count_descriptors() == descriptors);
        CHECK(peersock_id(PEERSOCK_DEFAULT, id, sizeof id) == PEERSOCK_E_DOWN && errno == ENETDOWN);
        CHECK(peersock_stop(PEERSOCK_DEFAULT, 0) == PEERSOCK_E_DOWN);
        int fd = connect_to(to);
        write_all(fd, "child", 5);
        CHECK(close(fd) == 0);
        exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// A name may be a member's, so the system is not asked about it: it may know another host by it.
static void ask_for_names_after_the_end(struct sockaddr_in6 own, const char *text) {
    char machine[256], name[INET6_ADDRSTRLEN], *found;
    struct addrinfo *list;
    CHECK(gethostname(machine, sizeof machine) == 0);
    CHECK(peersock_getaddrinfo(machine, NULL, NULL, &list) == EAI_AGAIN);
    CHECK(peersock_getaddrinfo("127.1", NULL, NULL, &list) == 0);
    peersock_freeaddrinfo(list);
    CHECK(peersock_getaddrinfo("localhost", NULL, NULL, &list) == 0);
    peersock_freeaddrinfo(list);
    struct sockaddr *address = (struct sockaddr *)&own;
    CHECK(peersock_getnameinfo(address, sizeof own, name, sizeof name, NULL, 0, NI_NAMEREQD) == EAI_AGAIN);
    CHECK(peersock_getnameinfo(address, sizeof own, name, sizeof name, NULL, 0, 0) == 0 && strcmp(name, text) == 0);
    CHECK(peersock_lookup(PEERSOCK_DEFAULT, machine, &found) == PEERSOCK_E_DOWN);
}

static _Atomic unsigned reached, stopped;

static void note_event(const peersock_event *event, void *context) {
    CHECK(context == NULL && event->size == sizeof *event);
    if (event->kind == PEERSOCK_PEER_REACHABLE) reached++;
    if (event->kind == PEERSOCK_NODE_STOPPED) stopped++;
}

// The callback and the descriptor tell of the other member, and of the end of the node.
static void read_events(int events, int are_over) {
    peersock_event event = {.kind = 0};
    while (!are_over && event.kind != PEERSOCK_PEER_REACHABLE) {
        CHECK(wait_for(events, POLLIN) == POLLIN);
        CHECK(read(events, &event, sizeof event) == sizeof event);
        CHECK(event.size == sizeof event && strlen(event.peer) == PEERSOCK_ID_SIZE - 1);
    }
    for (int i = 0; i < 60000 && (are_over ? stopped : reached) == 0; i++) usleep(1000);
    CHECK(are_over ? stopped == 1 : reached > 0);
    if (are_over) {
        do CHECK(wait_for(events, POLLIN) & POLLIN);
        while (read(events, &event, sizeof event) > 0);
        CHECK(close(events) == 0);
    }
}

int main(int count, char **words) {
    CHECK(count == 3);
    network = strtoull(words[2], NULL, 16);
    peersock_config *config = in_state(words[1]);
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    uint32_t process = 0;
    CHECK(peersock_process(PEERSOCK_DEFAULT, &process) == PEERSOCK_OK && process != (uint32_t)getpid());
    CHECK(peersock_is_running(PEERSOCK_DEFAULT));
    CHECK(peersock_join_named(PEERSOCK_DEFAULT, words[2], NULL, NULL) == PEERSOCK_OK);
    // It needs no descriptor of this process.
    CHECK(syscall(SYS_close_range, 3u, ~0u, 0u) == 0);

    char id[PEERSOCK_ID_SIZE], key[PEERSOCK_KEY_SIZE], text[INET6_ADDRSTRLEN], *status;
    CHECK(peersock_id(PEERSOCK_DEFAULT, id, sizeof id) == PEERSOCK_OK);
    CHECK(peersock_key(PEERSOCK_DEFAULT, key, sizeof key) == PEERSOCK_OK);
    CHECK(peersock_status(PEERSOCK_DEFAULT, &status) == PEERSOCK_OK);
    CHECK(strstr(status, id) != NULL && strstr(status, key) != NULL && strstr(status, "\"programs\":[{\"name\":\"program\"") != NULL);
    peersock_string_free(status);
    uint16_t port = 0;
    CHECK(peersock_udp_port(PEERSOCK_DEFAULT, &port) == PEERSOCK_OK && port != 0);
    int events = peersock_event_fd(PEERSOCK_DEFAULT);
    CHECK(events >= 0);
    CHECK(peersock_on_event(PEERSOCK_DEFAULT, note_event, NULL) == PEERSOCK_OK);
    ask_for_other_settings(words[1]);

    struct sockaddr_in6 own = own_address(PEERSOCK_DEFAULT, 7000);
    int listener = peersock_socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(peersock_bind(listener, (struct sockaddr *)&own, sizeof own) == 0 && peersock_listen(listener, 16) == 0);
    share_twice(words[1], process);
    fork_a_child();
    int fd = peersock_accept(listener, NULL, NULL);
    char data[100];
    CHECK(fd >= 0);
    read_all(fd, data, 5);
    CHECK(memcmp(data, "child", 5) == 0 && read(fd, data, 1) == 0 && close(fd) == 0);

    puts(inet_ntop(AF_INET6, &own.sin6_addr, text, sizeof text));
    fflush(stdout);
    fd = peersock_accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    ssize_t got;
    while ((got = read(fd, data, sizeof data)) > 0) write_all(fd, data, (size_t)got);
    CHECK(got == 0 && close(fd) == 0);
    read_events(events, 0);
    puts("echoed");
    fflush(stdout);

    // Until the node is killed.
    CHECK(peersock_accept(listener, NULL, NULL) == -1 && errno == ENETDOWN);
    CHECK(peersock_id(PEERSOCK_DEFAULT, id, sizeof id) == PEERSOCK_E_DOWN && errno == ENETDOWN);
    CHECK(!peersock_is_running(PEERSOCK_DEFAULT));
    read_events(events, 1);
    CHECK(peersock_socket(AF_INET6, SOCK_STREAM, 0) == -1 && errno == ENETDOWN);
    ask_for_names_after_the_end(own, text);
    // The next one is in this process, because nobody shares any more.
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    CHECK(peersock_process(PEERSOCK_DEFAULT, &process) == PEERSOCK_OK && process == (uint32_t)getpid());
    CHECK(peersock_join(PEERSOCK_DEFAULT, network, NULL) == PEERSOCK_OK);
    struct sockaddr_in6 again = own_address(PEERSOCK_DEFAULT, 7000);
    CHECK(memcmp(&again.sin6_addr, &own.sin6_addr, sizeof own.sin6_addr) == 0);
    peersock_config_free(config);
    CHECK(close(listener) == 0);
    return 0;
}
