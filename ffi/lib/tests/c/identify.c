// Accepts one connection on the port that it prints, and says who has opened it: identify STATE INVITE. The other
// end's name, tags and claims have to be those of the invite `worker`, tags `blue` and `db`.
#include "common.h"
#include <pthread.h>

static int accepted;

static void *ask(void *result) {
    for (int i = 0; i < 100; i++) {
        peersock_identity peer;
        if (peersock_identify(accepted, &peer, sizeof peer) != 0 || strcmp(peer.tags, "blue,db") != 0) return result;
    }
    return NULL;
}

int main(int count, char **words) {
    CHECK(count == 3);
    peersock_config *config = in_state(words[1]);
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    peersock_config_free(config);
    uint64_t network = 0;
    CHECK(peersock_join_invite(PEERSOCK_DEFAULT, words[2], &network) == PEERSOCK_OK);
    CHECK(peersock_wait_ready(PEERSOCK_DEFAULT, network, 60000) == PEERSOCK_OK);

    int listener = peersock_socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    CHECK(peersock_bind(listener, (struct sockaddr *)&any, sizeof any) == 0 && peersock_listen(listener, 8) == 0);
    socklen_t length = sizeof any;
    CHECK(peersock_getsockname(listener, (struct sockaddr *)&any, &length) == 0);
    printf("%d\n", ntohs(any.sin6_port));
    fflush(stdout);

    peersock_identity peer;
    CHECK(peersock_identify(listener, &peer, sizeof peer) == -1 && errno == ENOTCONN);
    accepted = peersock_accept(listener, NULL, NULL);
    CHECK(accepted >= 0);
    memset(&peer, 0xff, sizeof peer);
    CHECK(peersock_identify(accepted, &peer, sizeof peer) == 0);
    CHECK(peer.network == network && !peer.gateway && strlen(peer.node) == PEERSOCK_ID_SIZE - 1);
    CHECK(strcmp(peer.name, "worker") == 0 && peer.label[0] == 0 && strcmp(peer.tags, "blue,db") == 0);
    CHECK(peer.claims_length == 3 && memcmp(peer.claims, "\x00\x01\xff", 3) == 0 && peer.claims[3] == 0);

    // A newer program's longer structure ends with zeros, and a shorter one than the first is none.
    union {
        peersock_identity known;
        char all[sizeof(peersock_identity) + 64];
    } longer;
    memset(&longer, 0xff, sizeof longer);
    CHECK(peersock_identify(accepted, &longer.known, sizeof longer) == 0 && strcmp(longer.known.name, "worker") == 0);
    for (size_t i = sizeof(peersock_identity); i < sizeof longer; i++) CHECK(longer.all[i] == 0);
    CHECK(peersock_identify(accepted, &peer, 8) == -1 && errno == EINVAL);
    CHECK(peersock_identify(accepted, NULL, sizeof peer) == -1 && errno == EFAULT);
    CHECK(peersock_identify(-1, &peer, sizeof peer) == -1 && errno == EBADF);
    CHECK(peersock_identify(STDOUT_FILENO, &peer, sizeof peer) == -1 && errno == ENOTSOCK);
    int systems = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(peersock_identify(systems, &peer, sizeof peer) == -1 && errno == EOPNOTSUPP);
    char small[16];
    length = sizeof small;
    CHECK(peersock_getsockopt(accepted, 0x7073, 1, small, &length) == -1 && errno == ERANGE);

    pthread_t threads[8];
    for (int i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, ask, "failed") == 0);
    for (int i = 0; i < 8; i++) {
        void *failed;
        CHECK(pthread_join(threads[i], &failed) == 0 && failed == NULL);
    }

    // It stays when the connection has ended.
    char byte;
    while (peersock_recv(accepted, &byte, 1, 0) > 0) continue;
    CHECK(peersock_identify(accepted, &peer, sizeof peer) == 0 && strcmp(peer.name, "worker") == 0);
    puts(peer.node);
    return peersock_stop(PEERSOCK_DEFAULT, 5000) == PEERSOCK_OK ? 0 : 1;
}
