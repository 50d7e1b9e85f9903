// A program in libzt's manner: it knows no call of peersock's. Its child is the client.
#include "libzt_common.h"
#include <sys/wait.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int node_events, network_events, peer_events;

static int count(const int *events) {
    pthread_mutex_lock(&lock);
    int seen = *events;
    pthread_mutex_unlock(&lock);
    return seen;
}

static void on_event(void *message_pointer) {
    zts_event_msg_t *message = message_pointer;
    pthread_mutex_lock(&lock);
    if (message->event_code == ZTS_EVENT_NODE_ONLINE) {
        CHECK(message->node->node_id != 0 && message->node->port_primary != 0);
        node_events++;
    }
    if (message->event_code == ZTS_EVENT_NETWORK_OK) network_events += message->network->assigned_addr_count == 1;
    if (message->event_code == ZTS_EVENT_ADDR_ADDED_IP6) CHECK(message->addr->addr.ss_family == ZTS_AF_INET6);
    if (message->event_code == ZTS_EVENT_PEER_DIRECT) peer_events += message->peer->peer_id != 0;
    pthread_mutex_unlock(&lock);
}

// Roots of peersock's are used, and those of ZeroTier's do no harm.
static void set_roots(void) {
    static zts_root_set_t spec;
    char id[ZTS_ID_STR_BUF_LEN], key[PEERSOCK_KEY_SIZE], set[ZTS_STORE_DATA_LEN], wanted[300];
    char v4[] = "192.0.2.1/7420", v6[] = "2001:db8::1/7420", theirs[] = "992fcf1db7:0:206ed59350b31916f749a1f85dffb3a8";
    uint8_t seed[PEERSOCK_SEED_SIZE] = {7};
    unsigned int length = sizeof set, id_length = sizeof id;
    CHECK(peersock_identity_key(seed, sizeof seed, key, sizeof key) == PEERSOCK_OK);
    spec.public_id_str[0] = theirs;
    spec.endpoint_ip_str[0][0] = v4;
    spec.public_id_str[1] = key;
    spec.endpoint_ip_str[1][0] = v4;
    spec.endpoint_ip_str[1][1] = v6;
    CHECK(zts_util_sign_root_set(set, &length, id, &id_length, id, &id_length, 1, 2, &spec) == ZTS_ERR_OK);
    CHECK(length == strlen(set));
    snprintf(wanted, sizeof wanted, "%s@192.0.2.1:7420,[2001:db8::1]:7420\n", key);
    CHECK(strcmp(set, wanted) == 0);
    CHECK(zts_init_set_roots("\x01\x00\x00\x00\x00\x08\xea\xc9\x0a", 9) == ZTS_ERR_OK);
    CHECK(zts_init_set_roots("nonsense", 8) == ZTS_ERR_ARG && zts_init_set_roots(NULL, 5) == ZTS_ERR_ARG);
    CHECK(zts_init_set_roots(set, length) == ZTS_ERR_OK);
    CHECK(zts_init_allow_tcp_relay(1) == ZTS_ERR_OK && zts_init_force_tcp_relay(1) == ZTS_ERR_OK);
    CHECK(zts_init_set_tcp_relay("192.0.2.1", 443) == ZTS_ERR_OK && zts_init_set_tcp_relay(NULL, 443) == ZTS_ERR_ARG);
    CHECK(zts_moon_orbit(1, 2) == ZTS_ERR_SERVICE);
}

// Everything that libzt's programs do before they open a socket. Gives the own address.
static void come_online(uint64_t net_id, char *address) {
    char key[ZTS_ID_STR_BUF_LEN];
    unsigned int length = sizeof key;
    CHECK(zts_net_join(net_id) == ZTS_ERR_SERVICE && zts_socket(ZTS_AF_INET6, ZTS_SOCK_STREAM, 0) == ZTS_ERR_SERVICE);
    CHECK(zts_id_new(key, &length) == ZTS_ERR_OK && zts_id_pair_is_valid(key, length));
    CHECK(zts_init_from_memory(key, length) == ZTS_ERR_OK);
    CHECK(zts_init_set_event_handler(on_event) == ZTS_ERR_OK);
    CHECK(zts_init_allow_net_cache(0) == ZTS_ERR_OK);
    set_roots();
    use_loopback();
    CHECK(zts_node_start() == ZTS_ERR_OK);
    while (!zts_node_is_online()) zts_util_delay(50);
    CHECK(zts_node_get_id() != 0 && zts_node_get_port() > 0);
    CHECK(zts_moon_orbit(1, 2) == ZTS_ERR_OK && zts_moon_deorbit(1) == ZTS_ERR_OK);
    char *status;
    CHECK(peersock_status(PEERSOCK_DEFAULT, &status) == PEERSOCK_OK && strstr(status, "192.0.2.1:7420") != NULL);
    peersock_string_free(status);
    CHECK(zts_net_join(net_id) == ZTS_ERR_OK);
    while (!zts_net_transport_is_ready(net_id)) zts_util_delay(50);
    CHECK(zts_addr_is_assigned(net_id, ZTS_AF_INET6) && !zts_addr_is_assigned(net_id, ZTS_AF_INET));
    CHECK(zts_addr_get_str(net_id, ZTS_AF_INET6, address, ZTS_IP_MAX_STR_LEN) == ZTS_ERR_OK);
    CHECK(zts_net_get_status(net_id) == ZTS_NETWORK_STATUS_OK);
    CHECK(node_events == 1 && network_events == 1);
}

static int run_client(uint64_t net_id, const char *server) {
    char own[ZTS_IP_MAX_STR_LEN], peer[ZTS_IP_MAX_STR_LEN], buf[64] = "";
    unsigned short port = 0;
    come_online(net_id, own);
    int fd = zts_socket(ZTS_AF_INET6, ZTS_SOCK_STREAM, 0);
    CHECK(fd >= 0 && zts_set_no_delay(fd, 1) == ZTS_ERR_OK && zts_get_no_delay(fd) == 1);
    CHECK(zts_set_recv_timeout(fd, 30, 0) == ZTS_ERR_OK && zts_get_recv_timeout(fd) == 30);
    CHECK(zts_connect(fd, server, 7000, 30000) == ZTS_ERR_OK);
    CHECK(zts_getpeername(fd, peer, sizeof peer, &port) == ZTS_ERR_OK && strcmp(peer, server) == 0 && port == 7000);
    CHECK(zts_write(fd, "welcome to the machine", 22) == 22);
    CHECK(zts_shutdown_wr(fd) == ZTS_ERR_OK);
    CHECK(zts_recv(fd, buf, 22, ZTS_MSG_WAITALL) == 22 && strcmp(buf, "welcome to the machine") == 0);
    CHECK(zts_read(fd, buf, sizeof buf) == 0);
    CHECK(zts_close(fd) == ZTS_ERR_OK);
    CHECK(zts_close(fd) == ZTS_ERR_SOCKET && zts_errno == ZTS_EBADF);
    fd = zts_tcp_client(server, 7001);
    CHECK(fd == ZTS_ERR_SOCKET && zts_errno == ZTS_ECONNREFUSED);
    // Another thread tells of events, in its own time.
    for (int looked = 0; looked < 600 && count(&peer_events) == 0; looked++) zts_util_delay(50);
    CHECK(count(&peer_events) == 1);
    CHECK(zts_node_stop() == ZTS_ERR_OK && zts_node_stop() == ZTS_ERR_SERVICE);
    return 0;
}

int main(void) {
    // A network that no other test is in.
    uint16_t first = (uint16_t)(1000 + getpid() % 6000);
    uint64_t net_id = zts_net_compute_adhoc_id(first, 8000);
    char address[ZTS_IP_MAX_STR_LEN] = "", buf[64];
    int pipes[2], status = -1;
    CHECK(pipe(pipes) == 0);
    pid_t client = fork();
    CHECK(client >= 0);
    if (client == 0) {
        CHECK(read(pipes[0], address, sizeof address) == sizeof address);
        return run_client(net_id, address);
    }
    come_online(net_id, address);
    struct zts_sockaddr_in6 local, peer, any;
    zts_socklen_t length = sizeof local;
    CHECK(zts_util_ipstr_to_saddr("::", 7000, (struct zts_sockaddr *)&any, &length) == ZTS_ERR_OK);
    CHECK(any.sin6_len == sizeof any && any.sin6_family == ZTS_AF_INET6 && any.sin6_port == htons(7000));
    int listener = zts_bsd_socket(ZTS_AF_INET6, ZTS_SOCK_STREAM, 0);
    CHECK(zts_bsd_bind(listener, (struct zts_sockaddr *)&any, sizeof any) == ZTS_ERR_OK);
    CHECK(zts_bsd_listen(listener, 8) == ZTS_ERR_OK);
    CHECK(write(pipes[1], address, sizeof address) == sizeof address);

    struct zts_pollfd poll_fd = {listener, ZTS_POLLIN, 0};
    CHECK(zts_bsd_poll(&poll_fd, 1, 60000) == 1 && poll_fd.revents == ZTS_POLLIN);
    length = sizeof peer;
    int fd = zts_bsd_accept(listener, (struct zts_sockaddr *)&peer, &length);
    CHECK(fd >= 0 && length == sizeof peer && peer.sin6_len == sizeof peer && peer.sin6_family == ZTS_AF_INET6);
    length = sizeof local;
    CHECK(zts_bsd_getsockname(fd, (struct zts_sockaddr *)&local, &length) == ZTS_ERR_OK);
    CHECK(zts_util_ntop((struct zts_sockaddr *)&local, length, buf, sizeof buf, NULL) == ZTS_ERR_OK);
    CHECK(strcmp(buf, address) == 0);

    CHECK(zts_bsd_fcntl(fd, ZTS_F_SETFL, ZTS_O_NONBLOCK) == ZTS_ERR_OK && zts_get_blocking(fd) == 0);
    zts_fd_set readable;
    struct zts_timeval timeout = {60, 0};
    size_t received = 0;
    while (received < 22) {
        ZTS_FD_ZERO(&readable);
        ZTS_FD_SET(fd, &readable);
        CHECK(zts_bsd_select(fd + 1, &readable, NULL, NULL, &timeout) == 1);
        ssize_t n = zts_bsd_recv(fd, buf + received, sizeof buf - received, 0);
        CHECK(n > 0);
        received += (size_t)n;
    }
    CHECK(zts_set_blocking(fd, 1) == ZTS_ERR_OK);
    struct zts_iovec pieces[2] = {{buf, 10}, {buf + 10, 12}};
    CHECK(zts_bsd_writev(fd, pieces, 2) == 22);
    CHECK(zts_bsd_close(fd) == ZTS_ERR_OK && zts_bsd_close(listener) == ZTS_ERR_OK);
    CHECK(waitpid(client, &status, 0) == client && status == 0);
    CHECK(zts_net_leave(net_id) == ZTS_ERR_OK && zts_net_leave(net_id) != ZTS_ERR_OK);
    CHECK(zts_node_free() == ZTS_ERR_OK);
    puts("ok");
    return 0;
}
