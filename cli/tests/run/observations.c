/* What a program observes of sockets, one line each: observations ADDRESS, an own address of the machine's
 * network or of the overlay. What is printed does not depend on chance: where something takes time, it is
 * waited for. */
#include "observations.h"
#include "openings.h"
#include "all_options.h"
#include "attempts.h"
#include "datagrams.h"
#include "edges.h"
#include "extension_headers.h"
#include "listeners.h"
#include "streams.h"
#include "wait_all.h"

int main(int count, char **arguments) {
    if (count != 2) return 2;
    signal(SIGPIPE, SIG_IGN);
    alarm(120);
    if (inet_pton(AF_INET6, arguments[1], &own.v6.sin6_addr) == 1) own.any.sa_family = AF_INET6, size = sizeof own.v6;
    else if (inet_pton(AF_INET, arguments[1], &own.v4.sin_addr) == 1) own.any.sa_family = AF_INET, size = sizeof own.v4;
    else return 2;
    openings();
    binding();
    listeners();
    inheriting();
    refused();
    attempts();
    connected();
    moving();
    endings();
    wait_all();
    waking();
    datagrams();
    shut_datagrams();
    backlogs();
    elsewhere();
    extension_headers();
    stream_edges();
    datagram_edges();
    all_options(SOCK_STREAM);
    all_options(SOCK_DGRAM);
    forking();
    return 0;
}
