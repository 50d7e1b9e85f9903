/*
 * peersock: encrypted peer-to-peer sockets.
 *
 * Two families of functions:
 *
 *  - node calls return a peersock_result, 0 for success, and give values through pointers;
 *    peersock_last_error() has the text of the calling thread's last failure;
 *  - socket calls (peersock_socket, peersock_connect, ...) are POSIX's: -1 and errno. What they open are
 *    descriptors of the process: read, write, poll, select, epoll, fcntl, dup, fork and sendfile work on them.
 *
 * All functions may be called by several threads at the same time. A forked child may go on using sockets, and open
 * new ones, with its parent's node; node calls fail there. It may execute other programs, and so may posix_spawn,
 * system and popen. A process that has a node and executes another program in its own place, without fork, loses what
 * is not delivered yet: it closes its sockets and calls peersock_stop() before.
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

// Bytes of a node ID as text, with the final zero.
#define PEERSOCK_ID_SIZE 65

// Bytes of a public key as text, with the final zero.
#define PEERSOCK_KEY_SIZE 87

// A member of a network was found.
#define PEERSOCK_PEER_FOUND 1

// There is an encrypted session with the peer: packets flow.
#define PEERSOCK_PEER_REACHABLE 2

// The peer now has another address, the path another size, or a root or a TURN server relays that did not
// before, or not any more.
#define PEERSOCK_PATH_CHANGED 3

// The session has ended: the peer left, or has not been heard of for minutes.
#define PEERSOCK_PEER_LOST 4

// The peer does not answer. The node goes on trying while sockets have something to send.
#define PEERSOCK_PEER_UNREACHABLE 5

// The node was stopped. The last event of a callback; a descriptor is at its end instead.
#define PEERSOCK_NODE_STOPPED 6

// Bytes of a secret seed.
#define PEERSOCK_SEED_SIZE 32

// Nothing is logged.
#define PEERSOCK_LOG_OFF 0

// Failures.
#define PEERSOCK_LOG_ERROR 1

// What should be looked at.
#define PEERSOCK_LOG_WARN 2

// Paths and memberships that change.
#define PEERSOCK_LOG_INFO 3

// Decisions. Addresses and names appear from here on.
#define PEERSOCK_LOG_DEBUG 4

// Packets.
#define PEERSOCK_LOG_TRACE 5

// There is a session with the peer.
#define PEERSOCK_PEER_CONNECTED 1

// There is no session with the peer; one is made when something is sent.
#define PEERSOCK_PEER_KNOWN 2

// The peer has said goodbye; or, in an ad-hoc network, nothing was heard of it for two minutes.
#define PEERSOCK_PEER_GONE 3

// Two nodes run with the peer's identity, and connections reach the one or the other.
#define PEERSOCK_PEER_CONFLICT 1

// A root relays what goes to the peer and comes from it.
#define PEERSOCK_PEER_RELAYED 2

// A TURN server relays: this node's, or the peer's as far as it has said so.
#define PEERSOCK_PEER_TURN 4

// Settings of a node. One thread at a time may use it; a started node has its own copy.
typedef struct peersock_config peersock_config;

// How a node call has ended: 0, or one of the `PEERSOCK_E_` constants.
//
// What was wrong in particular says `peersock_last_error()`.
typedef int peersock_result;

// A node: 0 is the process's default node, others are given by `peersock_start()`. Numbers are not used
// again.
typedef uint32_t peersock_node;

// Something that happened. New kinds may come; ignore those that you do not know. Later versions may add
// members at the end.
typedef struct peersock_event {
    // The size of the event as this library has it, bytes: a program that was built with a newer header
    // finds here which members there are.
    uint32_t size;
    // `PEERSOCK_PEER_FOUND` and so on.
    uint32_t kind;
    // The node ID of the peer; empty for events of the node.
    char peer[PEERSOCK_ID_SIZE];
    // Of `PEERSOCK_PEER_REACHABLE` and `PEERSOCK_PATH_CHANGED`: 1 if a root relays now, otherwise 0.
    uint8_t relayed;
    // Of the same: 1 if a TURN server relays now, this node's or, as far as it has said so, the peer's;
    // otherwise 0.
    uint8_t turn;
    // Zeros.
    uint8_t reserved[21];
} peersock_event;

// What is called with events. It runs on a thread of the library's that sees the process's descriptors, one
// event after the other, and may call every function of the library but `peersock_stop()` of the same node.
// `event` is valid during the call.
typedef void (*peersock_event_callback)(const struct peersock_event *event, void *context);

// What is called with each record: its level and its text. It runs on a thread of the library's that sees
// the process's descriptors, one record after the other. `text` is valid during the call.
typedef void (*peersock_log_callback)(int level, const char *text, void *context);

// A peer in one network. Later versions may add members at the end.
typedef struct peersock_peer {
    // The network.
    uint64_t network;
    // Its node ID.
    char id[PEERSOCK_ID_SIZE];
    // Whether there is a session with it: packets flow.
    bool connected;
    // Its first address in the network.
    struct sockaddr_storage address;
    // Where its packets are sent now, which is a root's address if one relays; `ss_family` is AF_UNSPEC if
    // that is not known.
    struct sockaddr_storage path;
    // How many addresses it has in the network.
    uint32_t addresses;
    // Where else it may be: how many, see `peersock_paths()`.
    uint32_t candidates;
    // The largest UDP payload known to pass on the path, bytes; 0 if unknown.
    uint32_t datagram_size;
    // The path's smoothed round-trip time, microseconds; 0 if unknown.
    uint32_t rtt_us;
    // The session's age, milliseconds.
    uint64_t session_age_ms;
    // Packets sent in the session.
    uint64_t sent_packets;
    // Bytes sent in the session.
    uint64_t sent_bytes;
    // Packets received in the session.
    uint64_t received_packets;
    // Bytes received in the session.
    uint64_t received_bytes;
    // Whether it is there: one of the `PEERSOCK_PEER_` constants; later versions may add some.
    uint32_t state;
    // Bits: `PEERSOCK_PEER_CONFLICT`, `PEERSOCK_PEER_RELAYED`, `PEERSOCK_PEER_TURN`; later versions may add
    // some.
    uint32_t flags;
    // How long ago it last proved to be there, by an authentic packet or handshake, milliseconds; UINT64_MAX
    // if never.
    uint64_t last_seen_ms;
    // How long ago local discovery last heard of it, which proves nothing, milliseconds; UINT64_MAX if
    // never.
    uint64_t last_heard_ms;
    // Packets sent in all sessions with it since the node learned of it.
    uint64_t total_sent_packets;
    // Bytes sent in all of them.
    uint64_t total_sent_bytes;
    // Packets received in all of them.
    uint64_t total_received_packets;
    // Bytes received in all of them.
    uint64_t total_received_bytes;
    // Packets of the peer that have not come though later ones have: lost on the way, or late.
    uint64_t total_lost_packets;
} peersock_peer;

// It is done.
#define PEERSOCK_OK 0

// A pointer is null, or a number, a length or a text is not what it should be.
#define PEERSOCK_E_INVALID 1

// There is no such node, it was stopped, or this is a forked child of the process that has it.
#define PEERSOCK_E_DOWN 2

// There is a default node already, or the network is joined already, with the same secret and
// members. With others it is PEERSOCK_E_INVALID.
#define PEERSOCK_E_EXISTS 3

// The network is not joined, there is no such peer, or no member can have the address.
#define PEERSOCK_E_NOT_FOUND 4

// The time was over.
#define PEERSOCK_E_TIMEOUT 5

// The buffer is too small.
#define PEERSOCK_E_SPACE 6

// The state directory, the identity file or the network's file cannot be used.
#define PEERSOCK_E_FILE 7

// The UDP port is taken.
#define PEERSOCK_E_PORT 8

// The system refused something; `errno` has its reason.
#define PEERSOCK_E_SYSTEM 9

// A mistake in the library. Please report it.
#define PEERSOCK_E_BUG 10

// The process's default node. The first call that needs it starts it with the default configuration, unless
// `peersock_start()` did before.
#define PEERSOCK_DEFAULT 0

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Settings as they are by default: the identity in the default state directory, all interfaces, a UDP port
// of the system's choice, discovery on. NULL if there is no memory. Give it to `peersock_config_free()` at
// last.
struct peersock_config *peersock_config_new(void);

// Frees settings. NULL is allowed.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()` and was not freed.
void peersock_config_free(struct peersock_config *config);

// Keeps the identity in this directory, which is made if it is missing and used by one process at a time.
// NULL: the default directory, `peersock` under `$XDG_STATE_HOME` or `~/.local/state`.
//
// Pointers:
// `path` is NULL or a C string.
peersock_result peersock_config_state_dir(struct peersock_config *config, const char *path);

// Takes a fresh identity that is never written anywhere.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_ephemeral(struct peersock_config *config);

// Takes the identity of this secret seed, which is `PEERSOCK_SEED_SIZE` bytes long.
//
// Pointers:
// `seed` is NULL or points to `size` bytes.
peersock_result peersock_config_seed(struct peersock_config *config, const uint8_t *seed, size_t size);

// The network interfaces that the node may use, for everything: `"all"` (the default), `"loopback"`, or
// names with commas between them, as `"eth0,wlan0"`.
//
// Pointers:
// `interfaces` is NULL or a C string.
peersock_result peersock_config_interfaces(struct peersock_config *config, const char *interfaces);

// The UDP port of the node; 0, the default, lets the system choose.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_port(struct peersock_config *config, uint16_t port);

// Whether to find, and be found by, peers on this machine and on the local networks. By default it is so.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_discovery(struct peersock_config *config, bool on);

// The UDP port of discovery, the same on all nodes that should find each other. 7473 by default.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_discovery_port(struct peersock_config *config, uint16_t port);

// The roots at which the node can be found, and which relay for it, as `PEERSOCK_ROOTS` has them: texts with
// white space between them, each one that `peersock root` prints (with `?token=TEXT` behind it, if the root
// wants one), `dns:DOMAIN` for those that the DNS lists, or `lan` for those that announce themselves on the
// local network; or `@` and the path of a file with such texts. An empty text: none. NULL, the default: what
// the variable `PEERSOCK_ROOTS` has.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`; `roots` is NULL or a C string.
peersock_result peersock_config_roots(struct peersock_config *config, const char *roots);

// The TURN servers that relay to the node where no direct path opens, as `PEERSOCK_TURN` has them: texts
// with white space between them, each one `turn:USER:PASSWORD@HOST:PORT`, with `?transport=tcp` behind it
// for TCP, or `turns:USER:PASSWORD@HOST:PORT` for TLS; or `@` and the path of a file of mode 0600 with such
// texts. An empty text: none. NULL, the default: what the variable `PEERSOCK_TURN` has. docs/use/TURN.md says
// more; `peersock_status()` tells what came of it. At most four are asked.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`; `servers` is NULL or a C string.
peersock_result peersock_config_turn(struct peersock_config *config, const char *servers);

// The most that the send and the receive buffer of each TCP socket may hold, bytes. 64 MiB each by default.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`.
peersock_result peersock_config_tcp_buffers(struct peersock_config *config, size_t send, size_t receive);

// The library's version, as `"0.1.0"`.
const char *peersock_version(void);

// Starts a node. With NULL for `node` it is the process's default node, `PEERSOCK_DEFAULT`; otherwise one
// more, and `*node` becomes its handle. NULL for `config` means the default settings. A node that was
// stopped can be started again.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`; `node` is NULL or has room for a handle.
peersock_result peersock_start(const struct peersock_config *config, peersock_node *node);

// Stops a node: what was written until now is taken, and up to `linger_ms` milliseconds pass until
// everything is delivered; `PEERSOCK_E_TIMEOUT` says that something was not. Connections that are still open
// are reset after that. Open descriptors stay open until they are closed, but lead nowhere: what waits on
// them, and later calls, fail with ENETDOWN, those on connections once. The handle is not valid any more; the
// default node can be started again, but does not start by itself.
//
// A process that returns from `main`, or calls exit(3) or quick_exit(3), delivers for as long as peers take
// what was written. One that takes nothing has 30 seconds, one that answers nothing ten and a round trip,
// and all together have ten minutes. What it has not closed ends in order, as the kernel does it. What is
// lost is a line on stderr; the exit status stays. A process that is killed or calls _exit(2) delivers
// nothing more.
//
// Nor does one that executes another program in its own place, because exec(3) ends all its threads, and
// the node with them: peers see a reset, and sockets that the new program has inherited lead nowhere. Close
// the sockets and call this function before exec(3), unless in a child after fork(2), which leaves the
// parent's node alone, as vfork(2), posix_spawn(3), system(3) and popen(3) do.
peersock_result peersock_stop(peersock_node node, int linger_ms);

// Whether a node runs in this process. It starts none.
bool peersock_is_running(peersock_node node);

// The node's ID: `PEERSOCK_ID_SIZE` bytes with the final zero.
//
// Pointers:
// `id` is NULL or has room for `size` bytes.
peersock_result peersock_id(peersock_node node, char *id, size_t size);

// The node's public key, as the file of a static network lists it: `PEERSOCK_KEY_SIZE` bytes with the final
// zero.
//
// Pointers:
// `key` is NULL or has room for `size` bytes.
peersock_result peersock_key(peersock_node node, char *key, size_t size);

// The UDP port at which the node is reached.
//
// Pointers:
// `port` is NULL or has room for it.
peersock_result peersock_udp_port(peersock_node node, uint16_t *port);

// Everything about the node as JSON, in the form that `peersock status --json` prints. Give the text to
// `peersock_string_free()`.
//
// Pointers:
// `json` is NULL or has room for a pointer.
peersock_result peersock_status(peersock_node node, char **json);

// Frees a text of the library's. NULL is allowed.
//
// Pointers:
// `text` is NULL, or comes from a function that says that it is to be freed so, and was not freed.
void peersock_string_free(char *text);

// One of the node's counters, by the name that `peersock_status()` shows. Counters only grow.
//
// Pointers:
// `name` is NULL or a C string; `value` is NULL or has room for it.
peersock_result peersock_counter(peersock_node node, const char *name, uint64_t *value);

// What the environment variable `PEERSOCK_NODE` has to be for child processes that shall use this node, such
// as those of `peersock run`. It is a secret. It needs 64 bytes.
//
// Pointers:
// `text` is NULL or has room for `size` bytes.
peersock_result peersock_environment(peersock_node node, char *text, size_t size);

// The ID of the ad-hoc network that allows TCP and UDP ports `first` to `last`; 0 if `first` is greater.
uint64_t peersock_ad_hoc(uint16_t first, uint16_t last);

// Joins the ad-hoc network that has this ID. Sockets can be opened at once; peers are found meanwhile. With
// a passphrase, which may be NULL but not empty, only those who know it too are in it; it takes some tens of
// milliseconds to stretch. Under `peersock run`, a network of the launcher's that has a secret there has one
// here, too, and none where it has none: otherwise `PEERSOCK_E_INVALID`.
//
// Pointers:
// `passphrase` is NULL or a C string.
peersock_result peersock_join(peersock_node node, uint64_t network, const char *passphrase);

// As `peersock_join()`, with a random key of 32 bytes in the place of a passphrase.
//
// Pointers:
// `key` is NULL or points to `size` bytes.
peersock_result peersock_join_key(peersock_node node, uint64_t network, const uint8_t *key, size_t size);

// Joins the static network that a TOML file describes, which `peersock network new` makes and
// docs/use/NETWORKS.md describes field by field. If `network` is not NULL, it gets the network's ID.
//
// Pointers:
// `path` is NULL or a C string; `network` is NULL or has room for an ID.
peersock_result peersock_join_file(peersock_node node, const char *path, uint64_t *network);

// Joins the network that `peersock_open()` names with the settings `network` and `secret`: an ad-hoc one by
// its ID as a text of 16 hexadecimal digits, with a passphrase unless it is NULL; or the static one that a
// file describes, by its path and without a passphrase. If `network` is not NULL, it gets the network's ID.
//
// Pointers:
// `name` is NULL or a C string, `passphrase` as well; `network` is NULL or has room for an ID.
peersock_result peersock_join_named(peersock_node node,
                                    const char *name,
                                    const char *passphrase,
                                    uint64_t *network);

// Leaves a network: its connections are reset, and its sockets fail with ENETDOWN.
peersock_result peersock_leave(peersock_node node, uint64_t network);

// The IDs of the joined networks in the order of joining: as many as fit, and in `*count` how many there
// are.
//
// Pointers:
// `networks` is NULL or has room for `capacity` IDs; `count` is NULL or has room for a number.
peersock_result peersock_networks(peersock_node node, uint64_t *networks, size_t capacity, size_t *count);

// Waits until the node has its addresses in the network, up to `timeout_ms` milliseconds (negative: for
// ever).
peersock_result peersock_wait_ready(peersock_node node, uint64_t network, int timeout_ms);

// Waits until there is a session with the member that has this address, up to `timeout_ms` milliseconds
// (negative: for ever). The port does not matter.
//
// Pointers:
// `address` is NULL or points to `length` bytes.
peersock_result peersock_wait_peer(peersock_node node,
                                   uint64_t network,
                                   const struct sockaddr *address,
                                   socklen_t length,
                                   int timeout_ms);

// The node's own IPv6 address in a network, which follows from its key.
//
// Pointers:
// `address` is NULL or has room for it.
peersock_result peersock_address(peersock_node node, uint64_t network, struct in6_addr *address);

// All addresses of the node in a network: as many as fit, and in `*count` how many there are.
//
// Pointers:
// `addresses` is NULL or has room for `capacity` addresses; `count` is NULL or has room for a number.
peersock_result peersock_addresses(peersock_node node,
                                   uint64_t network,
                                   struct sockaddr_storage *addresses,
                                   size_t capacity,
                                   size_t *count);

// As socket(2), on the default node: AF_INET or AF_INET6; SOCK_STREAM, SOCK_DGRAM or SOCK_RAW, with
// SOCK_NONBLOCK and SOCK_CLOEXEC. The result is a descriptor of the process: read(2), write(2), poll(2),
// epoll(7), dup(2), fork(2) and passing it to others work.
//
// ENETDOWN if the default node cannot be started; `peersock_last_error()` says why.
int peersock_socket(int domain, int kind, int protocol);

// As `peersock_socket()`, on any node.
int peersock_node_socket(peersock_node node, int domain, int kind, int protocol);

// As bind(2).
//
// EACCES if the network does not allow the port to a stream socket; `peersock_last_error()` names those
// that it allows. A UDP socket may be a client's: it is bound, and members cannot send to it.
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_bind(int fd, const struct sockaddr *address, socklen_t length);

// As connect(2).
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_connect(int fd, const struct sockaddr *address, socklen_t length);

// What has come of a non-blocking stream's connect(2): 0 if it is connected. Otherwise -1, and in `errno`
// EINPROGRESS as long as it goes on (poll(2) says that it is writable when it has ended), or why it has
// failed. Of a connection whose read(2) or write(2) has failed it says why in particular, as ENETDOWN, if the
// node knows. As SO_ERROR it says a reason once.
int peersock_connected(int fd);

// Why a connection has ended: the `errno` of a read(2) or write(2) that has failed, or what the node knows
// instead, as ENETDOWN where the kernel says ECONNRESET or EPIPE. As SO_ERROR it says a reason once.
//
// `if (read(fd, buf, size) < 0) errno = peersock_reason(fd, errno);`
int peersock_reason(int fd, int error);

// As listen(2).
//
// EACCES if no network allows the port; `peersock_last_error()` names those that they allow.
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

// As close(2), which may be used as well. Only this one waits as SO_LINGER with a time says, and fails then
// if not everything was delivered (ECONNRESET, EPIPE, or ETIMEDOUT if the time was over): the descriptor is
// closed all the same.
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

// The text of the last failure of a node call on this thread, of `peersock_dial()` or
// `peersock_listen_at()`, or of a `peersock_bind()` or `peersock_listen()` whose port no network allows
// (EACCES); an empty text if there was none. It stays until the next such failure on this thread.
const char *peersock_last_error(void);

// The addresses that a text stands for, in the order in which to try them, as texts with spaces between
// them: an address stands for itself, a name for the member that has it in one of the node's networks, NULL
// or an empty text for the node itself, which has none before it has joined a network. Nobody but the node
// is asked, so that this does not wait. Give the text to `peersock_string_free()`.
//
// PEERSOCK_E_NOT_FOUND if no member has this name.
//
// Pointers:
// `host` is NULL or a C string; `addresses` is NULL or has room for a pointer.
peersock_result peersock_lookup(peersock_node node, const char *host, char **addresses);

// Opens a socket and connects it to a host and port. `kind` is SOCK_STREAM or SOCK_DGRAM, with SOCK_NONBLOCK
// and SOCK_CLOEXEC. `host` is what `peersock_lookup()` takes; `family` is AF_UNSPEC, or AF_INET or AF_INET6
// for its addresses of that family alone. They are tried in turn, and the first failure counts if all fail.
// With SOCK_NONBLOCK a stream is given while it connects to the first: wait until it is writable, then
// `peersock_connected()` says what has come of it.
//
// The socket is one of AF_INET6, where addresses of IPv4 are mapped. A stream has TCP_NODELAY.
//
// -1 and `errno` on failure, with a text in `peersock_last_error()`: EHOSTUNREACH if there is no such
// address, and those of socket(2) and connect(2).
//
// Pointers:
// `host` is NULL or a C string.
int peersock_dial(peersock_node node, int family, int kind, const char *host, uint16_t port);

// Opens a socket that is bound to a host and port of the node's own; a stream listens, with a queue of
// `backlog` connections. `kind` is as for `peersock_dial()`. `host` is an address, the name of a member, or
// NULL or an empty text for all addresses; `family` is AF_UNSPEC, or AF_INET or AF_INET6 if what comes shall
// be of that family alone, as far as the address says no more. Port 0 is one that the networks allow:
// `peersock_getsockname()` tells which.
//
// The socket is one of AF_INET6, where addresses of IPv4 are mapped; with AF_INET6 it has IPV6_V6ONLY. A
// stream has SO_REUSEADDR, and what it accepts has TCP_NODELAY.
//
// -1 and `errno` on failure, with a text in `peersock_last_error()`: EACCES if no network allows the port,
// EADDRNOTAVAIL if there is no such address, and those of socket(2), bind(2) and listen(2).
//
// Pointers:
// `host` is NULL or a C string.
int peersock_listen_at(peersock_node node,
                       int family,
                       int kind,
                       const char *host,
                       uint16_t port,
                       int backlog);

// Has `callback` called with the node's events from now on, in place of an earlier callback; NULL: none any
// more. When this returns an earlier callback is not running, unless this is called from it.
//
// A callback that is more than 1024 events behind misses the oldest.
//
// Pointers:
// `callback` may be called with `context` from another thread until this is called again, or the node is
// stopped.
peersock_result peersock_on_event(peersock_node node, peersock_event_callback callback, void *context);

// Opens a descriptor that becomes readable (poll(2), epoll(7)) when something happens: one read(2) of
// `sizeof(peersock_event)` bytes gives one event, of which it drops what has no room. It is non-blocking,
// closed on exec, and the caller's to close. At its end, a read of nothing, the node was stopped. -1 and
// `errno` on failure.
int peersock_event_fd(peersock_node node);

// Makes a new secret seed from the operating system's randomness. `size` must be `PEERSOCK_SEED_SIZE`.
//
// Pointers:
// `seed` is NULL or has room for `size` bytes.
peersock_result peersock_identity_generate(uint8_t *seed, size_t size);

// Reads a seed from a file that `peersock_identity_store()` or a node has written. Other users must not have
// access to it.
//
// Pointers:
// `path` is NULL or a C string; `seed` is NULL or has room for `size` bytes.
peersock_result peersock_identity_load(const char *path, uint8_t *seed, size_t size);

// Writes a seed to a new file that only its owner may read. A file that exists is not overwritten.
//
// Pointers:
// `path` is NULL or a C string; `seed` is NULL or points to `size` bytes.
peersock_result peersock_identity_store(const char *path, const uint8_t *seed, size_t size);

// The node ID that belongs to a seed, as text: `PEERSOCK_ID_SIZE` bytes with the final zero.
//
// Pointers:
// `seed` is NULL or points to `seed_size` bytes; `id` is NULL or has room for `size` bytes.
peersock_result peersock_identity_id(const uint8_t *seed, size_t seed_size, char *id, size_t size);

// The public key that belongs to a seed, as the file of a static network lists it: `PEERSOCK_KEY_SIZE` bytes
// with the final zero.
//
// Pointers:
// `seed` is NULL or points to `seed_size` bytes; `key` is NULL or has room for `size` bytes.
peersock_result peersock_identity_key(const uint8_t *seed, size_t seed_size, char *key, size_t size);

// As if_nametoindex(3), for the networks of the default node, whose names are `ps1`, `ps2` and so on. 0 and
// ENODEV if there is none of this name.
//
// Pointers:
// `name` is NULL or a C string.
unsigned int peersock_if_nametoindex(const char *name);

// As if_indextoname(3), for the networks of the default node: `name` has room for IF_NAMESIZE bytes. NULL
// and ENXIO if there is none of this index.
//
// Pointers:
// `name` is NULL or has room for IF_NAMESIZE bytes.
char *peersock_if_indextoname(unsigned int index, char *name);

// As if_nameindex(3), for the networks of the default node. Give the array to `peersock_if_freenameindex()`.
struct if_nameindex *peersock_if_nameindex(void);

// Frees what `peersock_if_nameindex()` has made. NULL is allowed.
//
// Pointers:
// `list` is NULL or comes from `peersock_if_nameindex()` and was not freed.
void peersock_if_freenameindex(struct if_nameindex *list);

// Has `callback` called with what the library logs, up to `level` (`PEERSOCK_LOG_ERROR` to
// `PEERSOCK_LOG_TRACE`), for all nodes of the process; NULL: nothing is logged any more. When this returns
// an earlier callback is not running, unless this is called from it.
//
// Pointers:
// `callback` may be called with `context` from another thread until this is called again.
peersock_result peersock_on_log(int level, peersock_log_callback callback, void *context);

// As getaddrinfo(3). Names of members of the default node's networks come first, then what the system knows.
// Give the list to `peersock_freeaddrinfo()`.
//
// Pointers:
// Pointers must be what the call of the same name in POSIX asks for.
int peersock_getaddrinfo(const char *node,
                         const char *service,
                         const struct addrinfo *hints,
                         struct addrinfo **result);

// Frees what `peersock_getaddrinfo()` has made. NULL is allowed.
//
// Pointers:
// `list` is NULL or comes from `peersock_getaddrinfo()` and was not freed.
void peersock_freeaddrinfo(struct addrinfo *list);

// As getnameinfo(3). Members of the default node's networks are known by their names there.
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

// Looks what network this machine is in, and gives it as JSON, in the form that `peersock netcheck --json`
// prints; docs/use/NETCHECK.md explains the fields. Give the text to `peersock_string_free()`. It needs no node.
//
// It takes up to six seconds, and before that up to four where `dns:DOMAIN` is among the roots, up to six
// with `lan`.
//
// `config` has the interfaces, roots, TURN servers and discovery port to use, and nothing else of it counts;
// NULL means the default settings. `stun` has the STUN servers, `HOST:PORT` with white space between them;
// an empty text: none; NULL: what the variable `PEERSOCK_STUN` has. Servers that nobody named are not asked.
//
// PEERSOCK_E_NOT_FOUND says that no interface that may be used is up. A network in which everything is
// blocked is no failure.
//
// Pointers:
// `config` is NULL or comes from `peersock_config_new()`; `stun` is NULL or a C string; `json` is NULL or
// has room for a pointer.
peersock_result peersock_netcheck(const struct peersock_config *config, const char *stun, char **json);

// Starts a node with settings that are a JSON object, as `{"network": "ff00500050000000"}`, and joins the
// network that they name. All of them may be left out:
//
// - `network`: the ID of an ad-hoc network, 16 hexadecimal digits; or the path of a static network's TOML
//   file, which `peersock network new` makes and docs/use/NETWORKS.md describes field by field;
// - `secret`: the passphrase of an ad-hoc network, which `network` names;
// - `state`: the directory that keeps the identity, see `peersock_config_state_dir()`;
// - `seed`: 64 hexadecimal digits that the identity is made of; without it and `state`, the identity is a
//   fresh one that is never written anywhere;
// - `stun`: STUN servers, `HOST:PORT` with white space between them, as `PEERSOCK_STUN` has them;
// - `dht`: `off`, `public`, or nodes of another DHT, `IPV4:PORT` with commas between them, as `PEERSOCK_DHT` has
//   it;
// - `interfaces`, `roots`, `turn`: as `peersock_config_interfaces()` and so on have them;
// - `port`, `discovery_port`: numbers, as `peersock_config_port()` and so on have them, 0 is the default;
// - `discovery`, `port_mapping`, `birthday`, `tcp_punch`: true or false, whether it is found on the local network,
//   asks routers to forward a port to it, and looks for direct paths by many ports and by TCP.
//
// With NULL for `node` it is the process's default node; otherwise one more, and `*node` becomes its handle.
// No node is left running if this fails. A setting that there is not, or of another type, is
// `PEERSOCK_E_INVALID`, and so is a text with U+FFFD, which JSON's writers put in the place of what is no
// UTF-8.
//
// Pointers:
// `settings` is NULL or a C string; `node` is NULL or has room for a handle.
peersock_result peersock_open(const char *settings,
                              peersock_node *node);

// The peers known now in a network, or with 0 in all: as many as fit, and in `*count` how many there are.
// `size` is `sizeof(peersock_peer)`, which tells the library with which version of it the program was built:
// members that this library does not know are zeros.
//
// Pointers:
// `peers` is NULL or has room for `capacity` peers; `count` is NULL or has room for a number.
peersock_result peersock_peers(peersock_node node,
                               uint64_t network,
                               struct peersock_peer *peers,
                               size_t size,
                               size_t capacity,
                               size_t *count);

// The addresses of a peer in a network: as many as fit, and in `*count` how many there are.
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

// The name of a peer, as the file of its static network gives it, with a final zero. PEERSOCK_E_NOT_FOUND if
// it has none.
//
// Pointers:
// `id` is NULL or a C string; `name` is NULL or has room for `size` bytes.
peersock_result peersock_peer_name(peersock_node node,
                                   uint64_t network,
                                   const char *id,
                                   char *name,
                                   size_t size);

// The ways to a peer: the one that packets take now, if there is one, then where else it may be. As many as
// fit, and in `*count` how many there are.
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
