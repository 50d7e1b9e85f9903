// What a program knows that was built with the header of version 0.1. Never changed: later libraries are
// tried with it.
#ifndef PEERSOCK_0_1_H
#define PEERSOCK_0_1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct peersock_config peersock_config;
typedef int peersock_result;
typedef uint32_t peersock_node;

typedef struct peersock_event {
    uint32_t size;
    uint32_t kind;
    char peer[65];
    uint8_t relayed;
    uint8_t turn;
    uint8_t reserved[21];
} peersock_event;

typedef struct peersock_peer {
    uint64_t network;
    char id[65];
    bool connected;
    struct sockaddr_storage address;
    struct sockaddr_storage path;
    uint32_t addresses;
    uint32_t candidates;
    uint32_t datagram_size;
    uint32_t rtt_us;
    uint64_t session_age_ms;
    uint64_t sent_packets;
    uint64_t sent_bytes;
    uint64_t received_packets;
    uint64_t received_bytes;
    uint32_t state;
    uint32_t flags;
    uint64_t last_seen_ms;
    uint64_t last_heard_ms;
    uint64_t total_sent_packets;
    uint64_t total_sent_bytes;
    uint64_t total_received_packets;
    uint64_t total_received_bytes;
    uint64_t total_lost_packets;
} peersock_peer;

peersock_config *peersock_config_new(void);
void peersock_config_free(peersock_config *config);
peersock_result peersock_config_ephemeral(peersock_config *config);
peersock_result peersock_config_interfaces(peersock_config *config, const char *interfaces);
peersock_result peersock_config_discovery_port(peersock_config *config, uint16_t port);
peersock_result peersock_start(const peersock_config *config, peersock_node *node);
peersock_result peersock_stop(peersock_node node, int linger_ms);
peersock_result peersock_join(peersock_node node, uint64_t network, const char *secret);
peersock_result peersock_id(peersock_node node, char *id, size_t size);
peersock_result peersock_address(peersock_node node, uint64_t network, void *address);
peersock_result peersock_wait_peer(peersock_node node, uint64_t network, const struct sockaddr *address, socklen_t length,
                                   int timeout);
peersock_result peersock_peers(peersock_node node, uint64_t network, peersock_peer *peers, size_t size, size_t capacity,
                               size_t *count);
int peersock_event_fd(peersock_node node);
const char *peersock_last_error(void);

#endif
