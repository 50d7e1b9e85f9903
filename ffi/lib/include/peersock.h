/*
 * peersock: encrypted peer-to-peer sockets.
 *
 * Two families of functions:
 *
 *  - node calls return a peersock_result, 0 for success, and give values through pointers;
 *    peersock_last_error() has the text of the calling thread's last failure;
 *  - socket calls (peersock_socket, peersock_connect, ...) follow POSIX: -1 and errno. They open file
 *    descriptors of the process: read, write, poll, select, epoll, fcntl, dup, fork and sendfile work on them.
 *
 * Several threads may call all functions at the same time. A forked child may continue to use sockets of its
 * parent's node, and open new ones; node calls fail there. The child may execute other programs, and so may
 * posix_spawn, system and popen. A process that has a node and executes another program in its own place,
 * without fork, loses undelivered data. It must close its sockets and call peersock_stop() before.
 *
 * Made from the library's source code by `cargo xtask header`: do not edit.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */

#ifndef PEERSOCK_H
#define PEERSOCK_H

#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct addrinfo;
struct if_nameindex;

// Size of a node ID as text in bytes, with the final zero.
#define PEERSOCK_ID_SIZE 65

// Size of a public key as text in bytes, with the final zero.
#define PEERSOCK_KEY_SIZE 87

// A member of a network was found.
#define PEERSOCK_PEER_FOUND 1

// An encrypted session with the peer exists: packets flow.
#define PEERSOCK_PEER_REACHABLE 2

// The path has changed: the peer's address or the packet size, or a root or TURN server has started or
// stopped relaying.
#define PEERSOCK_PATH_CHANGED 3

// The session has ended: the peer left, or was silent for minutes.
#define PEERSOCK_PEER_LOST 4

// The peer does not answer. The node keeps trying while sockets have data to send.
#define PEERSOCK_PEER_UNREACHABLE 5

// The node was stopped. This is the last event of a callback; a descriptor is at its end instead.
#define PEERSOCK_NODE_STOPPED 6

// Size of a secret seed in bytes.
#define PEERSOCK_SEED_SIZE 32

// Log level without records.
#define PEERSOCK_LOG_OFF 0

// Log level of failures.
#define PEERSOCK_LOG_ERROR 1

// Log level of warnings.
#define PEERSOCK_LOG_WARN 2

// Log level of changes of paths and memberships.
#define PEERSOCK_LOG_INFO 3

// Log level of decisions. Addresses and names appear at this level and above.
#define PEERSOCK_LOG_DEBUG 4

// Log level of packets.
#define PEERSOCK_LOG_TRACE 5

// Size of a member's name, or of a program's label, with its final zero.
#define PEERSOCK_NAME_SIZE 64

// Size of a member's tags as one text, with its final zero.
#define PEERSOCK_TAGS_SIZE 128

// Size of the largest claims.
#define PEERSOCK_CLAIMS_SIZE 128

// A session with the peer exists.
#define PEERSOCK_PEER_CONNECTED 1

// No session with the peer exists; sending something starts one.
#define PEERSOCK_PEER_KNOWN 2

// The peer has said goodbye or, in an ad-hoc network, was silent for two minutes.
#define PEERSOCK_PEER_GONE 3

// Two nodes run with the peer's identity, and a connection reaches either of them.
#define PEERSOCK_PEER_CONFLICT 1

// A root relays packets to and from the peer.
#define PEERSOCK_PEER_RELAYED 2

// A TURN server relays: this node's, or the peer's if the peer has announced it.
#define PEERSOCK_PEER_TURN 4

// Settings of a node. Only one thread at a time may use them; a started node has its own copy.
typedef struct peersock_config peersock_config;

// Result of a node call: 0, or one of the `PEERSOCK_E_` constants.
//
// `peersock_last_error()` has the details of a failure.
typedef int peersock_result;

// Handle of a node: 0 is the default node of the process; `peersock_start()` returns others. Handles are
// never reused.
typedef uint32_t peersock_node;

// Event of a node. Later versions may add kinds, and members at the end; ignore unknown kinds.
typedef struct peersock_event {
    // Size of the event in this library, in bytes. It tells a program with a newer header which members
    // exist.
    uint32_t size;
    // Kind of the event: `PEERSOCK_PEER_FOUND` and so on.
    uint32_t kind;
    // Node ID of the peer; empty for events of the node.
    char peer[PEERSOCK_ID_SIZE];
    // 1 if a root relays now, otherwise 0, for `PEERSOCK_PEER_REACHABLE` and `PEERSOCK_PATH_CHANGED`.
    uint8_t relayed;
    // 1 if a TURN server relays now, otherwise 0, for the same events. Covers this node's server, and the
    // peer's if the peer has announced it.
    uint8_t turn;
    // Zeros, reserved for later versions.
    uint8_t reserved[21];
} peersock_event;

// Callback for events. It runs on a library thread that shares the descriptors of the process, for one event
// after the other. It may call every function of the library except `peersock_stop()` of the same node.
// `event` is valid during the call.
typedef void (*peersock_event_callback)(const struct peersock_event *event, void *context);

// Callback for log records, with their level and text. It runs on a library thread that shares the
// descriptors of the process, for one record after the other. `text` is valid during the call.
typedef void (*peersock_log_callback)(int level, const char *text, void *context);

// Other end of a connection, as its network describes it. Later versions may add members at the end.
typedef struct peersock_identity {
    // ID of the network.
    uint64_t network;
    // ID of the node, which is the hash of its public keys.
    char node[PEERSOCK_ID_SIZE];
    // ID of the machine's node: another one than `node` if that is a program with its own keys.
    char machine[PEERSOCK_ID_SIZE];
    // Name of the machine; empty in networks without names.
    char name[PEERSOCK_NAME_SIZE];
    // Label of such a program, under which it alone is addressed; mostly empty.
    char label[PEERSOCK_NAME_SIZE];
    // Tags of the machine in ascending order, with a comma between two.
    char tags[PEERSOCK_TAGS_SIZE];
    // Bytes for programs that the network's controller has signed.
    uint8_t claims[PEERSOCK_CLAIMS_SIZE];
    // Number of these bytes.
    uint32_t claims_length;
    // True if the other end is a machine without peersock, for which this member forwards packets.
    bool gateway;
} peersock_identity;

// Peer in one network. Later versions may add members at the end.
typedef struct peersock_peer {
    // ID of the network.
    uint64_t network;
    // Node ID of the peer.
    char id[PEERSOCK_ID_SIZE];
    // True if a session with the peer exists: packets flow.
    bool connected;
    // First address of the peer in the network.
    struct sockaddr_storage address;
    // Current destination of packets to the peer, which is a root's address if a root relays. `ss_family` is
    // AF_UNSPEC if it is unknown.
    struct sockaddr_storage path;
    // Number of addresses of the peer in the network.
    uint32_t addresses;
    // Number of other possible addresses of the peer; see `peersock_paths()`.
    uint32_t candidates;
    // Largest UDP payload known to pass on the path, in bytes; 0 if unknown.
    uint32_t datagram_size;
    // Smoothed round-trip time of the path in microseconds; 0 if unknown.
    uint32_t rtt_us;
    // Age of the session in milliseconds.
    uint64_t session_age_ms;
    // Packets sent in the session.
    uint64_t sent_packets;
    // Bytes sent in the session.
    uint64_t sent_bytes;
    // Packets received in the session.
    uint64_t received_packets;
    // Bytes received in the session.
    uint64_t received_bytes;
    // State of the peer: one of the `PEERSOCK_PEER_` constants; later versions may add some.
    uint32_t state;
    // Flags: `PEERSOCK_PEER_CONFLICT`, `PEERSOCK_PEER_RELAYED`, `PEERSOCK_PEER_TURN`; later versions may add
    // some.
    uint32_t flags;
    // Milliseconds since the peer last proved its presence, by an authentic packet or handshake; UINT64_MAX
    // if never.
    uint64_t last_seen_ms;
    // Milliseconds since local discovery last heard of the peer, which proves nothing; UINT64_MAX if never.
    uint64_t last_heard_ms;
    // Packets sent in all sessions with the peer since the node learned of it.
    uint64_t total_sent_packets;
    // Bytes sent in all these sessions.
    uint64_t total_sent_bytes;
    // Packets received in all these sessions.
    uint64_t total_received_packets;
    // Bytes received in all these sessions.
    uint64_t total_received_bytes;
    // Packets from the peer that are missing although later ones have arrived: lost or late.
    uint64_t total_lost_packets;
} peersock_peer;

// Success.
#define PEERSOCK_OK 0

// A pointer is null, or a number, a length or a text is invalid.
#define PEERSOCK_E_INVALID 1

// No such node exists, it was stopped, or this process is a forked child of the one that has it.
#define PEERSOCK_E_DOWN 2

// A default node exists already, or the network is joined already with the same secret and members. If the
// secret or members differ, the result is PEERSOCK_E_INVALID.
#define PEERSOCK_E_EXISTS 3

// The network is not joined, the peer is unknown, or no member can have the address.
#define PEERSOCK_E_NOT_FOUND 4

// The timeout has passed.
#define PEERSOCK_E_TIMEOUT 5

// The buffer is too small.
#define PEERSOCK_E_SPACE 6

// The state directory, the identity file or the network's file cannot be used.
#define PEERSOCK_E_FILE 7

// The UDP port is taken.
#define PEERSOCK_E_PORT 8

// The system refused the operation; `errno` has the reason.
#define PEERSOCK_E_SYSTEM 9

// A bug in the library. Please report it.
#define PEERSOCK_E_BUG 10

// Default node of the process. The first call that needs it starts it with the default settings, unless
// `peersock_start()` has started it before.
#define PEERSOCK_DEFAULT 0

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Makes default settings: the identity in the default state directory, all interfaces, a UDP port that the
// system chooses, and discovery on. Returns NULL if memory is exhausted. Free the settings with
// `peersock_config_free()`.
struct peersock_config *peersock_config_new(void);

// Frees settings. NULL is allowed.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()` and was not freed.
void peersock_config_free(struct peersock_config *config);

// Keeps the identity in this directory, which is created if missing and used by one node at a time. NULL
// selects the default directory, `peersock` under `$XDG_STATE_HOME` or `~/.local/state`.
//
// Pointers:
// `path` is NULL or a C string.
peersock_result peersock_config_state_dir(struct peersock_config *config, const char *path);

// Uses a new identity that is never written anywhere.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_ephemeral(struct peersock_config *config);

// Uses the identity of this secret seed of `PEERSOCK_SEED_SIZE` bytes.
//
// Pointers:
// `seed` is NULL or points to `size` bytes.
peersock_result peersock_config_seed(struct peersock_config *config, const uint8_t *seed, size_t size);

// Sets the network interfaces that the node may use: `"all"` (the default), `"loopback"`, or names separated
// by commas, such as `"eth0,wlan0"`.
//
// Pointers:
// `interfaces` is NULL or a C string.
peersock_result peersock_config_interfaces(struct peersock_config *config, const char *interfaces);

// Sets the UDP port of the node; with 0, the default, the system chooses.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_port(struct peersock_config *config, uint16_t port);

// Sets whether the node finds peers on this machine and on the local networks, and is found there. The
// default is true.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_discovery(struct peersock_config *config, bool on);

// Sets the UDP port of discovery, which must be the same on all nodes that find each other. The default is
// 7473.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_discovery_port(struct peersock_config *config, uint16_t port);

// Sets the roots at which peers find the node, and which relay for it, in the form of `PEERSOCK_ROOTS`:
// texts separated by white space. Each text is a line that `peersock root` prints (with `?token=TEXT`
// appended if the root requires a token), `dns:DOMAIN` for the roots in the DNS, `lan` for the roots
// announced on the local network, or `@` and the path of a file with such texts. An empty text means no
// roots. NULL, the default, uses the variable `PEERSOCK_ROOTS`.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`; `roots` is NULL or a C string.
peersock_result peersock_config_roots(struct peersock_config *config, const char *roots);

// Sets the TURN servers that relay to the node if no direct path opens, in the form of `PEERSOCK_TURN`:
// texts separated by white space. Each text is `turn:USER:PASSWORD@HOST:PORT`, with `?transport=tcp`
// appended for TCP, `turns:USER:PASSWORD@HOST:PORT` for TLS, or `@` and the path of a file of mode 0600 with
// such texts. An empty text means no servers. NULL, the default, uses the variable `PEERSOCK_TURN`. At most
// four servers are asked. docs/use/TURN.md says more; `peersock_status()` shows the result.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`; `servers` is NULL or a C string.
peersock_result peersock_config_turn(struct peersock_config *config, const char *servers);

// Sets the maximum sizes in bytes of the send and the receive buffer of each TCP socket. The default is 64
// MiB each.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_tcp_buffers(struct peersock_config *config, size_t send, size_t receive);

// Returns the library's version, such as `"0.1.0"`.
const char *peersock_version(void);

// Starts a node. With NULL for `node`, it is the default node of the process, `PEERSOCK_DEFAULT`; otherwise
// `*node` becomes the handle of another node. NULL for `config` means the default settings. A default node
// that was stopped can be started again.
//
// If a shared node runs in the state directory, as that of `peersock node` and of the programs under
// `peersock run`, this program uses it: it has the same identity and addresses, its ports are that node's,
// and the networks are those that it joins itself. Settings that differ from the shared node's are
// `PEERSOCK_E_INVALID`, with a text that names the program that has set them. When the shared node ends, all
// calls fail with ENETDOWN (`PEERSOCK_E_DOWN`), and the default node can be started again.
//
// If no node runs there, this program starts one by the installed program `peersock`: the one that the
// variable `PEERSOCK_PROGRAM` names, or else the first in `PATH`. That node ends some seconds after its last
// program. If none can be started, without a state directory, or with the variable `PEERSOCK_OWN_NODE` not
// empty, the node is in this process. `peersock_process()` tells which it is.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`; `node` is NULL or has room for a handle.
peersock_result peersock_start(const struct peersock_config *config, peersock_node *node);

// Stops a node. Delivers the data written so far for up to `linger_ms` milliseconds, and returns
// `PEERSOCK_E_TIMEOUT` if some of it was not delivered. Then connections that are still open are reset. Open
// descriptors stay open until they are closed, but are useless: waiting and later calls fail with ENETDOWN,
// once on each connection. The handle becomes invalid. The default node can be started again, but does not
// start by itself.
//
// A process that returns from `main`, or calls exit(3) or quick_exit(3), delivers data while peers accept
// it. A peer that accepts nothing has 30 seconds, a peer that answers nothing has ten seconds and a round
// trip, and all peers together have ten minutes. Sockets that are still open are closed in order, as the
// kernel does. A line on stderr reports lost data; the exit status is unchanged. A process that is killed or
// calls _exit(2) delivers nothing more.
//
// A process that executes another program in its own place also delivers nothing more, because exec(3) ends
// all its threads and the node. Peers see a reset, and sockets that the new program inherits are useless.
// Close the sockets and call this function before exec(3). A child after fork(2) need not, because its
// exec(3) does not affect the parent's node; the same holds for vfork(2), posix_spawn(3), system(3) and
// popen(3).
peersock_result peersock_stop(peersock_node node, int linger_ms);

// Returns true if the node runs, and this process uses it. Starts no node.
bool peersock_is_running(peersock_node node);

// Gets the number of the process that holds the node: this one, or that of a shared node. See
// `peersock_start()`.
//
// Pointers:
// `process` is NULL or has room for a number.
peersock_result peersock_process(peersock_node node, uint32_t *process);

// Copies the node ID as text: `PEERSOCK_ID_SIZE` bytes with the final zero.
//
// Pointers:
// `id` is NULL or has room for `size` bytes.
peersock_result peersock_id(peersock_node node, char *id, size_t size);

// Copies the public key of the node, in the form that the file of a static network lists:
// `PEERSOCK_KEY_SIZE` bytes with the final zero.
//
// Pointers:
// `key` is NULL or has room for `size` bytes.
peersock_result peersock_key(peersock_node node, char *key, size_t size);

// Gets the UDP port of the node.
//
// Pointers:
// `port` is NULL or has room for a port.
peersock_result peersock_udp_port(peersock_node node, uint16_t *port);

// Gets the state of the node as JSON, as `peersock status --json` prints it. Free the text with
// `peersock_string_free()`.
//
// Pointers:
// `json` is NULL or has room for a pointer.
peersock_result peersock_status(peersock_node node, char **json);

// Frees a text that the library has returned. NULL is allowed.
//
// Pointers:
// `text` is NULL, or comes from a function that names `peersock_string_free()`, and was not freed.
void peersock_string_free(char *text);

// Gets a counter of the node by the name that `peersock_status()` shows. Counters only grow.
//
// Pointers:
// `name` is NULL or a C string; `value` is NULL or has room for a number.
peersock_result peersock_counter(peersock_node node, const char *name, uint64_t *value);

// Copies the value that the environment variable `PEERSOCK_NODE` needs in child processes that use this
// node, such as programs under `peersock run`. It is a secret of 64 bytes.
//
// Pointers:
// `text` is NULL or has room for `size` bytes.
peersock_result peersock_environment(peersock_node node, char *text, size_t size);

// Returns the ID of the ad-hoc network that allows TCP and UDP ports `first` to `last`, or 0 if `first` is
// greater.
uint64_t peersock_ad_hoc(uint16_t first, uint16_t last);

// Joins the ad-hoc or managed network that has this ID. Sockets can be opened at once, while the node
// searches for peers. With a passphrase, which may be NULL but not empty, only nodes that know it are
// members of an ad-hoc network; stretching it takes some tens of milliseconds. A managed network has none:
// other members are reached once a controller has admitted the node, see `peersock_status()`. Under
// `peersock run`, a network of the launcher needs a secret here exactly if it has one there: otherwise the
// result is `PEERSOCK_E_INVALID`.
//
// Pointers:
// `passphrase` is NULL or a C string.
peersock_result peersock_join(peersock_node node, uint64_t network, const char *passphrase);

// As `peersock_join()`, with a random key of 32 bytes instead of a passphrase.
//
// Pointers:
// `key` is NULL or points to `size` bytes.
peersock_result peersock_join_key(peersock_node node, uint64_t network, const uint8_t *key, size_t size);

// Joins the static network that a TOML file describes. `peersock network new` makes such a file, and
// docs/use/NETWORKS.md describes its fields. If `network` is not NULL, `*network` becomes the network's ID.
//
// Pointers:
// `path` is NULL or a C string; `network` is NULL or has room for an ID.
peersock_result peersock_join_file(peersock_node node, const char *path, uint64_t *network);

// Joins a managed network by an invite, the text that `peersock network invite` prints. Other members are
// reached once a controller has admitted the node, which `peersock_wait_ready()` waits for. The identity in
// the node's state directory is the member; a node without one is a new machine each time. If `network` is
// not NULL, `*network` becomes the network's ID.
//
// Pointers:
// `invite` is NULL or a C string; `network` is NULL or has room for an ID.
peersock_result peersock_join_invite(peersock_node node, const char *invite, uint64_t *network);

// Joins a network named as in the settings `network` and `secret` of `peersock_open()`. An ad-hoc network is
// named by its ID, a text of 16 hexadecimal digits; its passphrase may be NULL. A managed network is named
// by its ID or an invite, and a static one by the path of its file, without a passphrase. If `network` is
// not NULL, `*network` becomes the network's ID.
//
// Pointers:
// `name` and `passphrase` are NULL or C strings; `network` is NULL or has room for an ID.
peersock_result peersock_join_named(peersock_node node,
                                    const char *name,
                                    const char *passphrase,
                                    uint64_t *network);

// Leaves a network. Its connections are reset, and its sockets fail with ENETDOWN. If other programs use the
// network on a shared node, its sockets stay open instead, and neither send nor receive anything.
peersock_result peersock_leave(peersock_node node, uint64_t network);

// Copies the IDs of the joined networks, in the order of joining, up to `capacity`. `*count` becomes the
// number of joined networks.
//
// Pointers:
// `networks` is NULL or has room for `capacity` IDs; `count` is NULL or has room for a number.
peersock_result peersock_networks(peersock_node node, uint64_t *networks, size_t capacity, size_t *count);

// Waits until the node has its addresses in the network, up to `timeout_ms` milliseconds (negative: without
// limit). Only in a managed network that takes time: until a controller has admitted the node; if it
// refuses the node, the result is `PEERSOCK_E_SYSTEM` with EACCES.
peersock_result peersock_wait_ready(peersock_node node, uint64_t network, int timeout_ms);

// Waits until a session exists with the member that has this address, up to `timeout_ms` milliseconds
// (negative: without limit). The port is ignored.
//
// Pointers:
// `address` is NULL or points to `length` bytes.
peersock_result peersock_wait_peer(peersock_node node,
                                   uint64_t network,
                                   const struct sockaddr *address,
                                   socklen_t length,
                                   int timeout_ms);

// Gets the IPv6 address of the node in a network, which follows from its key.
//
// Pointers:
// `address` is NULL or has room for an address.
peersock_result peersock_address(peersock_node node, uint64_t network, struct in6_addr *address);

// Copies the addresses of the node in a network, up to `capacity`. `*count` becomes the number of addresses.
//
// Pointers:
// `addresses` is NULL or has room for `capacity` addresses; `count` is NULL or has room for a number.
peersock_result peersock_addresses(peersock_node node,
                                   uint64_t network,
                                   struct sockaddr_storage *addresses,
                                   size_t capacity,
                                   size_t *count);

// As socket(2), on the default node: AF_INET or AF_INET6; SOCK_STREAM, SOCK_DGRAM or SOCK_RAW, with
// SOCK_NONBLOCK and SOCK_CLOEXEC. The result is a file descriptor of the process: read(2), write(2),
// poll(2), epoll(7), dup(2), fork(2) and passing it to other processes work.
//
// ENETDOWN means that the default node cannot be started; `peersock_last_error()` has the reason.
int peersock_socket(int domain, int kind, int protocol);

// As `peersock_socket()`, on any node.
int peersock_node_socket(peersock_node node, int domain, int kind, int protocol);

// As bind(2).
//
// EACCES means that the network does not allow the port for a stream socket; `peersock_last_error()` lists
// the allowed ports. A UDP socket can be bound to any port, because clients may use any, but peers cannot
// reach a server on a port that is not allowed.
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_bind(int fd, const struct sockaddr *address, socklen_t length);

// As connect(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_connect(int fd, const struct sockaddr *address, socklen_t length);

// Returns the outcome of connect(2) on a non-blocking stream: 0 if it is connected, otherwise -1. `errno` is
// EINPROGRESS while the attempt continues (poll(2) reports the stream as writable after it has ended), or
// the reason of the failure. After a failed read(2) or write(2), `errno` is the node's more exact reason,
// such as ENETDOWN, if the node knows one. Like SO_ERROR, each reason is returned once.
int peersock_connected(int fd);

// Returns the reason why a connection has ended: `error`, the `errno` of a failed read(2) or write(2), or
// the node's more exact reason, such as ENETDOWN where the kernel says ECONNRESET or EPIPE. Like SO_ERROR,
// each reason is returned once.
//
// `if (read(fd, buf, size) < 0) errno = peersock_reason(fd, errno);`
int peersock_reason(int fd, int error);

// As listen(2).
//
// EACCES means that no network allows the port; `peersock_last_error()` lists the allowed ports.
int peersock_listen(int fd, int backlog);

// As accept(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_accept(int fd, struct sockaddr *address, socklen_t *length);

// As accept4(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);

// As send(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
ssize_t peersock_send(int fd, const void *data, size_t size, int flags);

// As recv(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
ssize_t peersock_recv(int fd, void *buf, size_t size, int flags);

// As sendto(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
ssize_t peersock_sendto(int fd,
                        const void *data,
                        size_t size,
                        int flags,
                        const struct sockaddr *address,
                        socklen_t length);

// As recvfrom(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
ssize_t peersock_recvfrom(int fd,
                          void *buf,
                          size_t size,
                          int flags,
                          struct sockaddr *address,
                          socklen_t *length);

// As sendmsg(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
ssize_t peersock_sendmsg(int fd, const struct msghdr *message, int flags);

// As recvmsg(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
ssize_t peersock_recvmsg(int fd, struct msghdr *message, int flags);

// As shutdown(2).
int peersock_shutdown(int fd, int how);

// As close(2), which also works. Only this function waits as SO_LINGER with a time requires, and fails if
// not everything was delivered (ECONNRESET, EPIPE, or ETIMEDOUT after that time). The descriptor is closed
// in any case.
int peersock_close(int fd);

// As getsockname(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_getsockname(int fd, struct sockaddr *address, socklen_t *length);

// As getpeername(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_getpeername(int fd, struct sockaddr *address, socklen_t *length);

// As getsockopt(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_getsockopt(int fd, int level, int name, void *value, socklen_t *length);

// As setsockopt(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_setsockopt(int fd, int level, int name, const void *value, socklen_t length);

// Returns the text of the last failure on this thread, or an empty text. Covers node calls,
// `peersock_dial()`, `peersock_listen_at()`, and a `peersock_bind()` or `peersock_listen()` on a port that
// no network allows (EACCES). The text stays valid until the next such failure on this thread.
const char *peersock_last_error(void);

// Resolves a text to addresses, in the order in which to try them, as texts separated by spaces. An address
// resolves to itself, a name to the addresses of the member that has it in one of the node's networks. NULL
// or an empty text means the node itself, which has no addresses before it joins a network. Only the node is
// asked, so this function does not wait. Free the text with `peersock_string_free()`.
//
// PEERSOCK_E_NOT_FOUND means that no member has this name.
//
// Pointers:
// `host` is NULL or a C string; `addresses` is NULL or has room for a pointer.
peersock_result peersock_lookup(peersock_node node, const char *host, char **addresses);

// Opens a socket and connects it to a host and port. `kind` is SOCK_STREAM or SOCK_DGRAM, optionally with
// SOCK_NONBLOCK and SOCK_CLOEXEC. `host` is resolved as by `peersock_lookup()`. `family` is AF_INET or
// AF_INET6 for addresses of only that family, or AF_UNSPEC. The addresses are tried in turn; if all fail,
// the first failure counts. With SOCK_NONBLOCK, a stream is returned while it connects to the first address:
// wait until it is writable, then ask `peersock_connected()`.
//
// The socket is an AF_INET6 socket, in which IPv4 addresses are mapped. A stream has TCP_NODELAY.
//
// Returns -1 and `errno` on failure, with a text in `peersock_last_error()`: EHOSTUNREACH if no such address
// exists, and the errors of socket(2) and connect(2).
//
// Pointers:
// `host` is NULL or a C string.
int peersock_dial(peersock_node node, int family, int kind, const char *host, uint16_t port);

// Opens a socket that is bound to a host and port of the node; a stream listens, with a backlog of `backlog`
// connections. `kind` is as for `peersock_dial()`. `host` is an address, the name of a member, or NULL or an
// empty text for all addresses. `family` is AF_INET or AF_INET6 to accept only that family, or AF_UNSPEC; an
// address as `host` already determines the family. Port 0 picks one that the networks allow, which
// `peersock_getsockname()` returns.
//
// The socket is an AF_INET6 socket, in which IPv4 addresses are mapped; with AF_INET6 it has IPV6_V6ONLY. A
// stream has SO_REUSEADDR, and connections that it accepts have TCP_NODELAY.
//
// Returns -1 and `errno` on failure, with a text in `peersock_last_error()`: EACCES if no network allows the
// port, EADDRNOTAVAIL if no such address exists, and the errors of socket(2), bind(2) and listen(2).
//
// Pointers:
// `host` is NULL or a C string.
int peersock_listen_at(peersock_node node,
                       int family,
                       int kind,
                       const char *host,
                       uint16_t port,
                       int backlog);

// Calls `callback` for the events of the node from now on, instead of an earlier callback; NULL removes the
// callback. When this function returns, an earlier callback no longer runs, unless that callback is the
// caller.
//
// A callback that is more than 1024 events behind misses the oldest.
//
// A shared node reports the events of the members of this program's networks.
//
// Pointers:
// `callback` may be called with `context` from another thread until this function is called again, or the
// node is stopped.
peersock_result peersock_on_event(peersock_node node, peersock_event_callback callback, void *context);

// Opens a descriptor that becomes readable (poll(2), epoll(7)) when an event occurs. One read(2) of
// `sizeof(peersock_event)` bytes returns one event; a smaller read drops the rest of it. The descriptor is
// non-blocking and closed on exec, and the caller closes it. A read of zero bytes means that the node was
// stopped. Returns -1 and `errno` on failure.
int peersock_event_fd(peersock_node node);

// Makes a new secret seed from the operating system's randomness. `size` must be `PEERSOCK_SEED_SIZE`.
//
// Pointers:
// `seed` is NULL or has room for `size` bytes.
peersock_result peersock_identity_generate(uint8_t *seed, size_t size);

// Reads a seed from a file that `peersock_identity_store()` or a node has written. Other users must not have
// access to the file.
//
// Pointers:
// `path` is NULL or a C string; `seed` is NULL or has room for `size` bytes.
peersock_result peersock_identity_load(const char *path, uint8_t *seed, size_t size);

// Writes a seed to a new file that only its owner may read. An existing file is not overwritten.
//
// Pointers:
// `path` is NULL or a C string; `seed` is NULL or points to `size` bytes.
peersock_result peersock_identity_store(const char *path, const uint8_t *seed, size_t size);

// Copies the node ID of a seed as text: `PEERSOCK_ID_SIZE` bytes with the final zero.
//
// Pointers:
// `seed` is NULL or points to `seed_size` bytes; `id` is NULL or has room for `size` bytes.
peersock_result peersock_identity_id(const uint8_t *seed, size_t seed_size, char *id, size_t size);

// Copies the public key of a seed, in the form that the file of a static network lists: `PEERSOCK_KEY_SIZE`
// bytes with the final zero.
//
// Pointers:
// `seed` is NULL or points to `seed_size` bytes; `key` is NULL or has room for `size` bytes.
peersock_result peersock_identity_key(const uint8_t *seed, size_t seed_size, char *key, size_t size);

// As if_nametoindex(3), for the networks of the default node, which are named `ps1`, `ps2` and so on.
// Returns 0 and ENODEV if no network has this name.
//
// Pointers:
// `name` is NULL or a C string.
unsigned int peersock_if_nametoindex(const char *name);

// As if_indextoname(3), for the networks of the default node. `name` has room for IF_NAMESIZE bytes. Returns
// NULL and ENXIO if no network has this index.
//
// Pointers:
// `name` is NULL or has room for IF_NAMESIZE bytes.
char *peersock_if_indextoname(unsigned int index, char *name);

// As if_nameindex(3), for the networks of the default node. Free the array with
// `peersock_if_freenameindex()`.
struct if_nameindex *peersock_if_nameindex(void);

// Frees an array from `peersock_if_nameindex()`. NULL is allowed.
//
// Pointers:
// `list` is NULL or comes from `peersock_if_nameindex()` and was not freed.
void peersock_if_freenameindex(struct if_nameindex *list);

// Calls `callback` for log records up to `level` (`PEERSOCK_LOG_ERROR` to `PEERSOCK_LOG_TRACE`) of all nodes
// of the process; NULL stops logging. When this function returns, an earlier callback no longer runs, unless
// that callback is the caller.
//
// Pointers:
// `callback` may be called with `context` from another thread until this function is called again.
peersock_result peersock_on_log(int level, peersock_log_callback callback, void *context);

// As getaddrinfo(3). Names of members of the default node's networks come first, then the names that the
// system resolves. When the node has ended or does not answer, the system is asked about `localhost` only:
// the error for other names is EAI_AGAIN. The system is not asked, either, about names that end with the
// local name or the ID of a network, such as `alpha.team`: if no member has one, the error is EAI_NONAME.
// Free the list with `peersock_freeaddrinfo()`.
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_getaddrinfo(const char *node,
                         const char *service,
                         const struct addrinfo *hints,
                         struct addrinfo **result);

// Frees a list from `peersock_getaddrinfo()`. NULL is allowed.
//
// Pointers:
// `list` is NULL or comes from `peersock_getaddrinfo()` and was not freed.
void peersock_freeaddrinfo(struct addrinfo *list);

// As getnameinfo(3). Members of the default node's networks have their names there. The system is not asked
// about other addresses of the networks, nor about any when the node has ended or does not answer; then the
// error for NI_NAMEREQD is EAI_AGAIN.
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_getnameinfo(const struct sockaddr *address,
                         socklen_t length,
                         char *host,
                         socklen_t host_size,
                         char *service,
                         socklen_t service_size,
                         int flags);

// As gai_strerror(3).
const char *peersock_gai_strerror(int error);

// Checks the network of this machine, and returns the result as JSON, in the form that `peersock netcheck
// --json` prints. docs/use/NETCHECK.md explains the fields. Free the text with `peersock_string_free()`. No
// node is needed.
//
// The check takes up to six seconds. Lists of roots take extra time first: up to four seconds for
// `dns:DOMAIN`, and six for `lan`.
//
// The interfaces, roots, TURN servers and discovery port come from `config`, whose other settings are
// ignored; NULL means the default settings. `stun` has the STUN servers, `HOST:PORT` separated by white
// space. An empty text means no servers, and NULL uses the variable `PEERSOCK_STUN`. Only named servers are
// asked.
//
// PEERSOCK_E_NOT_FOUND means that no usable interface is up. A network that blocks everything is no failure.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`; `stun` is NULL or a C string; `json` is NULL or
// has room for a pointer.
peersock_result peersock_netcheck(const struct peersock_config *config, const char *stun, char **json);

// Starts a node with settings from a JSON object, such as `{"network": "ff00500050000000"}`, and joins the
// network that they name. All are optional:
//
// - `network`: the ID of an ad-hoc or managed network, 16 hexadecimal digits; an invite to a managed
//   network, as `peersock network invite` prints it; or the path of a static network's TOML file, which
//   `peersock network new` makes and docs/use/NETWORKS.md describes field by field;
// - `secret`: the passphrase of the ad-hoc network in `network`;
// - the settings of the node in docs/reference/SETTINGS.md. Without `seed` and `state`, the identity is new
//   and never written anywhere.
//
// With NULL for `node`, it is the default node of the process; otherwise `*node` becomes the handle of
// another node. If this function fails, no new node runs. An unknown setting, or one of another type, is
// `PEERSOCK_E_INVALID`. So is a text with U+FFFD, because JSON writers put it in place of invalid UTF-8.
//
// Pointers:
// `settings` is NULL or a C string; `node` is NULL or has room for a handle.
peersock_result peersock_open(const char *settings, peersock_node *node);

// Tells who is at the other end of a connection, as of when it was established, also after its end. On a
// datagram socket it is about the address to which the socket is connected. `size` is
// `sizeof(peersock_identity)`; members that this library does not know are zeros.
//
// Returns 0, or -1 and `errno`: ENOTCONN if the socket has never been connected, EOPNOTSUPP or ENOPROTOOPT
// on a socket of the system, EINVAL for a wrong size.
//
// Pointers:
// `identity` is NULL or has room for `size` bytes.
int peersock_identify(int fd, struct peersock_identity *identity, size_t size);

// Copies the peers known in a network, or in all networks if `network` is 0, up to `capacity`. `*count`
// becomes the number of known peers. `size` is `sizeof(peersock_peer)`, which tells the library the version
// that the program was built with. Members that this library does not know are zeros.
//
// Pointers:
// `peers` is NULL or has room for `capacity` peers; `count` is NULL or has room for a number.
peersock_result peersock_peers(peersock_node node,
                               uint64_t network,
                               struct peersock_peer *peers,
                               size_t size,
                               size_t capacity,
                               size_t *count);

// Copies the addresses of a peer in a network, up to `capacity`. `*count` becomes the number of addresses.
//
// Pointers:
// `id` is NULL or a C string; `addresses` is NULL or has room for `capacity` addresses; `count` is NULL or
// has room for a number.
peersock_result peersock_peer_addresses(peersock_node node,
                                        uint64_t network,
                                        const char *id,
                                        struct sockaddr_storage *addresses,
                                        size_t capacity,
                                        size_t *count);

// Copies the name of a peer with a final zero, as the file of its static network gives it.
// PEERSOCK_E_NOT_FOUND means that the peer has no name.
//
// Pointers:
// `id` is NULL or a C string; `name` is NULL or has room for `size` bytes.
peersock_result peersock_peer_name(peersock_node node,
                                   uint64_t network,
                                   const char *id,
                                   char *name,
                                   size_t size);

// Copies the addresses of the paths to a peer, up to `capacity`: the current path first, if one exists, then
// other possible addresses. `*count` becomes the number of paths.
//
// Pointers:
// `id` is NULL or a C string; `paths` is NULL or has room for `capacity` addresses; `count` is NULL or has
// room for a number.
peersock_result peersock_paths(peersock_node node,
                               uint64_t network,
                               const char *id,
                               struct sockaddr_storage *paths,
                               size_t capacity,
                               size_t *count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PEERSOCK_H */
