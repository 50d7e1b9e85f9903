// What network the machine is in, by the loopback interface, with a STUN server and a root of the program's
// own.
#include "common.h"

#include <signal.h>
#include <sys/prctl.h>

// Starts a root, which ends with this process, and reads the line that names it.
static void start_root(const char *program, char *line, size_t size) {
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && dup2(ends[1], STDOUT_FILENO) == STDOUT_FILENO);
        execl(program, program, "root", "--ephemeral", "--drain", "0", "--listen", "127.0.0.1", "--port", "0", NULL);
        CHECK(!"the program can be run");
    }
    CHECK(close(ends[1]) == 0);
    size_t length = 0;
    do {
        CHECK(length < size && read(ends[0], line + length, 1) == 1);
    } while (line[length++] != '\n');
    line[length - 1] = '\0';
    CHECK(close(ends[0]) == 0);
}

// Answers one binding request (RFC 8489) after the other with where it came from, until a short datagram
// comes.
static void *serve(void *context) {
    int fd = *(int *)context;
    uint8_t packet[2048];
    struct sockaddr_in from;
    for (;;) {
        socklen_t size = sizeof from;
        ssize_t got = recvfrom(fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &size);
        CHECK(got >= 0);
        if (got < 20) return NULL;
        uint8_t answer[32] = {1, 1, 0, 12};
        memcpy(answer + 4, packet + 4, 16);
        // XOR-MAPPED-ADDRESS: the port and the address, each with the cookie.
        const uint8_t attribute[4] = {0, 0x20, 0, 8};
        memcpy(answer + 20, attribute, sizeof attribute);
        answer[25] = 1;
        memcpy(answer + 26, &from.sin_port, 2);
        memcpy(answer + 28, &from.sin_addr, 4);
        for (int i = 0; i < 2; i++) answer[26 + i] ^= answer[4 + i];
        for (int i = 0; i < 4; i++) answer[28 + i] ^= answer[4 + i];
        CHECK(sendto(fd, answer, sizeof answer, 0, (struct sockaddr *)&from, size) == (ssize_t)sizeof answer);
    }
}

static void contains(const char *json, const char *text) {
    if (strstr(json, text) == NULL) {
        fprintf(stderr, "%s is not in %s\n", text, json);
        exit(1);
    }
}

// A root proves its key, and its round trip is told.
static void look_at_root(const char *line) {
    char entry[128], *json = NULL;
    peersock_config *config = settings();
    CHECK(peersock_config_roots(config, line) == PEERSOCK_OK);
    CHECK(peersock_netcheck(config, "", &json) == PEERSOCK_OK);
    contains(json, "\"has_key\":true");
    contains(json, "\"state\":\"registered\"");
    snprintf(entry, sizeof entry, "\"target\":\"%s\"", strchr(line, '@') + 1);
    contains(json, entry);
    // The only server there is.
    const char *time = strstr(strstr(json, "\"servers\":"), "\"rtt_ms\":");
    CHECK(time != NULL && strtod(time + strlen("\"rtt_ms\":"), NULL) > 0);
    peersock_string_free(json);
    peersock_config_free(config);
}

int main(int argc, char **argv) {
    char line[600];
    CHECK(argc == 2);
    start_root(argv[1], line, sizeof line);
    struct sockaddr_in at;
    socklen_t size = sizeof at;
    char server[64], entry[128], *json = NULL;
    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&at, &size) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, serve, &fd) == 0);
    snprintf(server, sizeof server, "127.0.0.1:%u", ntohs(at.sin_port));
    CHECK(unsetenv("PEERSOCK_STUN") == 0 && unsetenv("PEERSOCK_ROOTS") == 0 && unsetenv("PEERSOCK_TURN") == 0);

    peersock_config *config = settings();
    CHECK(peersock_netcheck(config, server, &json) == PEERSOCK_OK && json != NULL);
    snprintf(entry, sizeof entry, "\"target\":\"%s\"", server);
    contains(json, entry);
    contains(json, "\"udp\":true");
    contains(json, "\"name\":\"lo\"");
    contains(json, "\"translated\":false");
    peersock_string_free(json);

    // The variable names the server, unless the caller says that there is none.
    CHECK(setenv("PEERSOCK_STUN", server, 1) == 0);
    CHECK(peersock_netcheck(config, NULL, &json) == PEERSOCK_OK);
    contains(json, entry);
    peersock_string_free(json);
    CHECK(peersock_netcheck(config, "", &json) == PEERSOCK_OK);
    contains(json, "\"servers\":[]");
    contains(json, "no server was given");
    peersock_string_free(json);

    // Roots and TURN servers are those of the settings. Nothing answers there.
    uint8_t seed[PEERSOCK_SEED_SIZE] = {7};
    char key[PEERSOCK_KEY_SIZE], id[PEERSOCK_ID_SIZE], root[200];
    CHECK(peersock_identity_key(seed, sizeof seed, key, sizeof key) == PEERSOCK_OK);
    CHECK(peersock_identity_id(seed, sizeof seed, id, sizeof id) == PEERSOCK_OK);
    snprintf(root, sizeof root, "%s@127.0.0.1:9", key);
    CHECK(peersock_config_roots(config, root) == PEERSOCK_OK);
    CHECK(peersock_config_turn(config, "turn:alice:sesame@127.0.0.1:9?transport=tcp") == PEERSOCK_OK);
    CHECK(peersock_netcheck(config, "", &json) == PEERSOCK_OK);
    snprintf(entry, sizeof entry, "\"node_id\":\"%s\"", id);
    contains(json, entry);
    contains(json, "\"has_key\":null");
    contains(json, "turn:alice@127.0.0.1:9");
    CHECK(strstr(json, "sesame") == NULL);
    peersock_string_free(json);

    json = NULL;
    CHECK(peersock_netcheck(config, "no port", &json) == PEERSOCK_E_INVALID && json == NULL);
    CHECK(strstr(peersock_last_error(), "HOST:PORT") != NULL);
    CHECK(peersock_netcheck(config, "", NULL) == PEERSOCK_E_INVALID);
    CHECK(setenv("PEERSOCK_STUN", "nonsense", 1) == 0);
    CHECK(peersock_netcheck(config, NULL, &json) == PEERSOCK_E_INVALID && json == NULL);
    CHECK(strstr(peersock_last_error(), "PEERSOCK_STUN") != NULL);
    CHECK(peersock_config_interfaces(config, "none of this name") == PEERSOCK_OK);
    CHECK(peersock_netcheck(config, "", &json) == PEERSOCK_E_NOT_FOUND && json == NULL);
    CHECK(strstr(peersock_last_error(), "none of this name") != NULL);
    peersock_config_free(config);
    look_at_root(line);

    CHECK(sendto(fd, "", 0, 0, (struct sockaddr *)&at, sizeof at) == 0);
    CHECK(pthread_join(thread, NULL) == 0 && close(fd) == 0);
    puts("ok");
    return 0;
}
