// Starts a node in a state directory, or shares the one there: starter STATE NETWORK [port=N|turn=TEXT|alone]. It says
// the node's process, and does what the lines of its input ask for. At their end it stops.
#include "common.h"
#include <arpa/inet.h>

static uint64_t network;

static struct sockaddr_in6 own_address(uint16_t port) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    CHECK(peersock_address(PEERSOCK_DEFAULT, network, &address.sin6_addr) == PEERSOCK_OK);
    return address;
}

// A connection of this process to itself, by the node.
static void echo(void) {
    struct sockaddr_in6 own = own_address(0);
    socklen_t length = sizeof own;
    char word[6] = "";
    int listener = peersock_socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(listener >= 0 && peersock_bind(listener, (struct sockaddr *)&own, sizeof own) == 0);
    CHECK(peersock_listen(listener, 1) == 0);
    CHECK(peersock_getsockname(listener, (struct sockaddr *)&own, &length) == 0);
    int fd = connect_to(own), accepted = peersock_accept(listener, NULL, NULL);
    CHECK(accepted >= 0);
    write_all(fd, "hello", 5);
    read_all(accepted, word, 5);
    CHECK(strcmp(word, "hello") == 0);
    CHECK(close(fd) == 0 && close(accepted) == 0 && close(listener) == 0);
}

// A child has the sockets of the node, and the process no other child.
static void fork_a_child(void) {
    char id[PEERSOCK_ID_SIZE];
    int status;
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(peersock_id(PEERSOCK_DEFAULT, id, sizeof id) == PEERSOCK_E_DOWN && errno == ENETDOWN);
        int fd = peersock_socket(AF_INET6, SOCK_STREAM, 0);
        CHECK(fd >= 0 && close(fd) == 0);
        exit(0);
    }
    CHECK(wait(&status) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(wait(&status) == -1 && errno == ECHILD);
}

int main(int count, char **words) {
    char line[100], *status;
    CHECK(count >= 3);
    network = strtoull(words[2], NULL, 16);
    peersock_config *config = in_state(words[1]);
    for (int i = 3; i < count; i++) {
        if (strncmp(words[i], "port=", 5) == 0) {
            CHECK(peersock_config_port(config, (uint16_t)atoi(words[i] + 5)) == PEERSOCK_OK);
        } else if (strncmp(words[i], "turn=", 5) == 0) {
            CHECK(peersock_config_turn(config, words[i] + 5) == PEERSOCK_OK);
        } else {
            CHECK(strcmp(words[i], "alone") == 0 && peersock_config_discovery(config, false) == PEERSOCK_OK);
        }
    }
    peersock_result result = peersock_start(config, NULL);
    peersock_config_free(config);
    if (result != PEERSOCK_OK) {
        printf("error %d: %s\n", result, peersock_last_error());
        return 0;
    }
    uint32_t process = 0;
    CHECK(peersock_process(PEERSOCK_DEFAULT, &process) == PEERSOCK_OK);
    CHECK(peersock_join(PEERSOCK_DEFAULT, network, NULL) == PEERSOCK_OK);
    printf("%s %u\n", process == (uint32_t)getpid() ? "own" : "shared", process);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strcmp(line, "echo\n") == 0) {
            echo();
        } else if (strcmp(line, "fork\n") == 0) {
            fork_a_child();
        } else if (strcmp(line, "status\n") == 0) {
            CHECK(peersock_status(PEERSOCK_DEFAULT, &status) == PEERSOCK_OK);
            printf("%s\n", status);
            peersock_string_free(status);
        } else {
            CHECK(!"a known word");
        }
        printf("done\n");
        fflush(stdout);
    }
    CHECK(peersock_stop(PEERSOCK_DEFAULT, 5000) == PEERSOCK_OK);
    return 0;
}
