// A path that carries less than the smallest datagram: whoever waits for acknowledgements is told so.
// In a network namespace of its own, whose loopback interface begins to drop what is too long.
#include "common.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>

// What is promised, in seconds.
static const double TOLD = 15;

// Acknowledgements and keep-alives still pass.
static const char NARROW[] = "nft 'table inet small { chain arriving { type filter hook input priority 0; "
                             "meta length > 150 drop; }; }'";

static double now(void) {
    struct timespec time;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    CHECK(system("ip link set lo up") == 0);
    // Otherwise several datagrams cross the interface as one packet, which is longer than any.
    if (argc < 2 || strcmp(argv[1], "together") != 0) CHECK(system("ip link set lo gso_max_segs 1") == 0);
    static char data[5000];
    char byte;
    int error = -1;
    socklen_t length = sizeof error;
    peersock_node other = start_pair();
    int listener = listen_on(other, 7000);
    int first = connect_to(address_of(other, 7000)), first_peer = peersock_accept(listener, NULL, NULL);
    int second = connect_to(address_of(other, 7000)), second_peer = peersock_accept(listener, NULL, NULL);
    CHECK(first_peer >= 0 && second_peer >= 0);
    write_all(first, data, sizeof data), read_all(first_peer, data, sizeof data);
    write_all(second, data, sizeof data), read_all(second_peer, data, sizeof data);

    CHECK(system(NARROW) == 0);
    double began = now();
    write_all(first, data, sizeof data), write_all(second, data, sizeof data);
    wait_for(first, POLLIN);
    CHECK(peersock_recv(first, &byte, 1, 0) == -1 && errno == EMSGSIZE);
    CHECK(now() - began <= TOLD);
    // It is told once.
    CHECK(peersock_getsockopt(first, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0);
    // The kernel's own call knows that it is over, not why.
    wait_for(second, POLLIN);
    CHECK(read(second, &byte, 1) == -1 && errno == ECONNRESET);
    CHECK(now() - began <= TOLD);
    wait_for(first_peer, POLLIN);
    CHECK(peersock_recv(first_peer, &byte, 1, 0) == -1 && errno == ECONNRESET);

    close(first), close(second), close(first_peer), close(second_peer), close(listener);
    puts("ok");
    return 0;
}
