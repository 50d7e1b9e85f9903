/*
 * The socket, network, address and node calls of libzt, on top of libpeersock.
 *
 * A program that was written for libzt is compiled with this header instead of libzt's, and linked with
 * -lpeersock. Names, argument orders, error values and structures are those of libzt's C API; everything
 * behind them is peersock's. What it does not have, and where it differs, is in docs/use/LIBZT.md. The
 * networks are peersock's: no node of ZeroTier is reached.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */

#ifndef ZTS_SOCKETS_H
#define ZTS_SOCKETS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <peersock.h>

#define ZTS_INLINE static inline __attribute__((unused))

/* ---- Constants. Those of sockets are the platform's: programs use them by name. ---- */

typedef enum {
    ZTS_ERR_OK = 0,
    ZTS_ERR_SOCKET = -1,
    ZTS_ERR_SERVICE = -2,
    ZTS_ERR_ARG = -3,
    ZTS_ERR_NO_RESULT = -4,
    ZTS_ERR_GENERAL = -5
} zts_error_t;

/* Of the calling thread. Its numbers are the platform's. */
#define zts_errno errno

typedef enum {
    ZTS_EPERM = EPERM,
    ZTS_ENOENT = ENOENT,
    ZTS_ESRCH = ESRCH,
    ZTS_EINTR = EINTR,
    ZTS_EIO = EIO,
    ZTS_ENXIO = ENXIO,
    ZTS_EBADF = EBADF,
    ZTS_EAGAIN = EAGAIN,
    ZTS_EWOULDBLOCK = EWOULDBLOCK,
    ZTS_ENOMEM = ENOMEM,
    ZTS_EACCES = EACCES,
    ZTS_EFAULT = EFAULT,
    ZTS_EBUSY = EBUSY,
    ZTS_EEXIST = EEXIST,
    ZTS_ENODEV = ENODEV,
    ZTS_EINVAL = EINVAL,
    ZTS_ENFILE = ENFILE,
    ZTS_EMFILE = EMFILE,
    ZTS_ENOSYS = ENOSYS,
    ZTS_ENOTSOCK = ENOTSOCK,
    ZTS_EDESTADDRREQ = EDESTADDRREQ,
    ZTS_EMSGSIZE = EMSGSIZE,
    ZTS_EPROTOTYPE = EPROTOTYPE,
    ZTS_ENOPROTOOPT = ENOPROTOOPT,
    ZTS_EPROTONOSUPPORT = EPROTONOSUPPORT,
    ZTS_ESOCKTNOSUPPORT = ESOCKTNOSUPPORT,
    ZTS_EOPNOTSUPP = EOPNOTSUPP,
    ZTS_EPFNOSUPPORT = EPFNOSUPPORT,
    ZTS_EAFNOSUPPORT = EAFNOSUPPORT,
    ZTS_EADDRINUSE = EADDRINUSE,
    ZTS_EADDRNOTAVAIL = EADDRNOTAVAIL,
    ZTS_ENETDOWN = ENETDOWN,
    ZTS_ENETUNREACH = ENETUNREACH,
    ZTS_ECONNABORTED = ECONNABORTED,
    ZTS_ECONNRESET = ECONNRESET,
    ZTS_ENOBUFS = ENOBUFS,
    ZTS_EISCONN = EISCONN,
    ZTS_ENOTCONN = ENOTCONN,
    ZTS_ETIMEDOUT = ETIMEDOUT,
    ZTS_ECONNREFUSED = ECONNREFUSED,
    ZTS_EHOSTUNREACH = EHOSTUNREACH,
    ZTS_EALREADY = EALREADY,
    ZTS_EINPROGRESS = EINPROGRESS
} zts_errno_t;

typedef enum {
    ZTS_EVENT_NODE_UP = 200,
    ZTS_EVENT_NODE_ONLINE = 201,
    ZTS_EVENT_NODE_OFFLINE = 202,
    ZTS_EVENT_NODE_DOWN = 203,
    ZTS_EVENT_NODE_FATAL_ERROR = 204,
    ZTS_EVENT_NETWORK_NOT_FOUND = 210,
    ZTS_EVENT_NETWORK_CLIENT_TOO_OLD = 211,
    ZTS_EVENT_NETWORK_REQ_CONFIG = 212,
    ZTS_EVENT_NETWORK_OK = 213,
    ZTS_EVENT_NETWORK_ACCESS_DENIED = 214,
    ZTS_EVENT_NETWORK_READY_IP4 = 215,
    ZTS_EVENT_NETWORK_READY_IP6 = 216,
    ZTS_EVENT_NETWORK_READY_IP4_IP6 = 217,
    ZTS_EVENT_NETWORK_DOWN = 218,
    ZTS_EVENT_NETWORK_UPDATE = 219,
    ZTS_EVENT_STACK_UP = 220,
    ZTS_EVENT_STACK_DOWN = 221,
    ZTS_EVENT_NETIF_UP = 230,
    ZTS_EVENT_NETIF_DOWN = 231,
    ZTS_EVENT_NETIF_REMOVED = 232,
    ZTS_EVENT_NETIF_LINK_UP = 233,
    ZTS_EVENT_NETIF_LINK_DOWN = 234,
    ZTS_EVENT_PEER_DIRECT = 240,
    ZTS_EVENT_PEER_RELAY = 241,
    ZTS_EVENT_PEER_UNREACHABLE = 242,
    ZTS_EVENT_PEER_PATH_DISCOVERED = 243,
    ZTS_EVENT_PEER_PATH_DEAD = 244,
    ZTS_EVENT_ROUTE_ADDED = 250,
    ZTS_EVENT_ROUTE_REMOVED = 251,
    ZTS_EVENT_ADDR_ADDED_IP4 = 260,
    ZTS_EVENT_ADDR_REMOVED_IP4 = 261,
    ZTS_EVENT_ADDR_ADDED_IP6 = 262,
    ZTS_EVENT_ADDR_REMOVED_IP6 = 263,
    ZTS_EVENT_STORE_IDENTITY_SECRET = 270,
    ZTS_EVENT_STORE_IDENTITY_PUBLIC = 271,
    ZTS_EVENT_STORE_PLANET = 272,
    ZTS_EVENT_STORE_PEER = 273,
    ZTS_EVENT_STORE_NETWORK = 274
} zts_event_t;

typedef enum {
    ZTS_NETWORK_STATUS_REQUESTING_CONFIGURATION = 0,
    ZTS_NETWORK_STATUS_OK = 1,
    ZTS_NETWORK_STATUS_ACCESS_DENIED = 2,
    ZTS_NETWORK_STATUS_NOT_FOUND = 3,
    ZTS_NETWORK_STATUS_PORT_ERROR = 4,
    ZTS_NETWORK_STATUS_CLIENT_TOO_OLD = 5
} zts_network_status_t;

typedef enum { ZTS_NETWORK_TYPE_PRIVATE = 0, ZTS_NETWORK_TYPE_PUBLIC = 1 } zts_net_info_type_t;

typedef enum { ZTS_PEER_ROLE_LEAF = 0, ZTS_PEER_ROLE_MOON = 1, ZTS_PEER_ROLE_PLANET = 2 } zts_peer_role_t;

#define ZTS_MAC_ADDRSTRLEN 18
#define ZTS_INET_ADDRSTRLEN 16
#define ZTS_INET6_ADDRSTRLEN 46
#define ZTS_IP_MAX_STR_LEN ZTS_INET6_ADDRSTRLEN
#define ZTS_ID_STR_BUF_LEN 384
#define ZTS_MAX_ENDPOINT_STR_LEN (ZTS_INET6_ADDRSTRLEN + 6)
#define ZTS_MAX_NETWORK_SHORT_NAME_LENGTH 127
#define ZTS_MAX_NETWORK_ROUTES 32
#define ZTS_MAX_ASSIGNED_ADDRESSES 16
#define ZTS_MAX_PEER_NETWORK_PATHS 64
#define ZTS_MAX_MULTICAST_SUBSCRIPTIONS 1024

#define ZTS_AF_UNSPEC AF_UNSPEC
#define ZTS_AF_INET AF_INET
#define ZTS_AF_INET6 AF_INET6
#define ZTS_PF_UNSPEC PF_UNSPEC
#define ZTS_PF_INET PF_INET
#define ZTS_PF_INET6 PF_INET6
#define ZTS_SOCK_STREAM SOCK_STREAM
#define ZTS_SOCK_DGRAM SOCK_DGRAM
#define ZTS_SOCK_RAW SOCK_RAW
#define ZTS_IPPROTO_IP IPPROTO_IP
#define ZTS_IPPROTO_ICMP IPPROTO_ICMP
#define ZTS_IPPROTO_TCP IPPROTO_TCP
#define ZTS_IPPROTO_UDP IPPROTO_UDP
#define ZTS_IPPROTO_IPV6 IPPROTO_IPV6
#define ZTS_IPPROTO_ICMPV6 IPPROTO_ICMPV6
#define ZTS_IPPROTO_UDPLITE IPPROTO_UDPLITE
#define ZTS_IPPROTO_RAW IPPROTO_RAW
#define ZTS_MSG_PEEK MSG_PEEK
#define ZTS_MSG_WAITALL MSG_WAITALL
#define ZTS_MSG_OOB MSG_OOB
#define ZTS_MSG_DONTWAIT MSG_DONTWAIT
#define ZTS_MSG_MORE MSG_MORE
#define ZTS_MSG_TRUNC MSG_TRUNC
#define ZTS_MSG_CTRUNC MSG_CTRUNC
#define ZTS_SHUT_RD SHUT_RD
#define ZTS_SHUT_WR SHUT_WR
#define ZTS_SHUT_RDWR SHUT_RDWR
#define ZTS_SOL_SOCKET SOL_SOCKET
#define ZTS_SO_DEBUG SO_DEBUG
#define ZTS_SO_ACCEPTCONN SO_ACCEPTCONN
#define ZTS_SO_REUSEADDR SO_REUSEADDR
#define ZTS_SO_KEEPALIVE SO_KEEPALIVE
#define ZTS_SO_DONTROUTE SO_DONTROUTE
#define ZTS_SO_BROADCAST SO_BROADCAST
#define ZTS_SO_LINGER SO_LINGER
#define ZTS_SO_OOBINLINE SO_OOBINLINE
#define ZTS_SO_REUSEPORT SO_REUSEPORT
#define ZTS_SO_SNDBUF SO_SNDBUF
#define ZTS_SO_RCVBUF SO_RCVBUF
#define ZTS_SO_SNDLOWAT SO_SNDLOWAT
#define ZTS_SO_RCVLOWAT SO_RCVLOWAT
#define ZTS_SO_SNDTIMEO SO_SNDTIMEO
#define ZTS_SO_RCVTIMEO SO_RCVTIMEO
#define ZTS_SO_ERROR SO_ERROR
#define ZTS_SO_TYPE SO_TYPE
#define ZTS_SO_NO_CHECK SO_NO_CHECK
#define ZTS_SO_BINDTODEVICE SO_BINDTODEVICE
/* libzt has these and takes none of them, either: no platform's option has these numbers. */
#define ZTS_SO_USELOOPBACK 0x10040
#define ZTS_SO_DONTLINGER ((int)(~ZTS_SO_LINGER))
#define ZTS_SO_CONTIMEO 0x1009
#define ZTS_IP_TOS IP_TOS
#define ZTS_IP_TTL IP_TTL
#define ZTS_IP_PKTINFO IP_PKTINFO
#define ZTS_IP_MULTICAST_TTL IP_MULTICAST_TTL
#define ZTS_IP_MULTICAST_IF IP_MULTICAST_IF
#define ZTS_IP_MULTICAST_LOOP IP_MULTICAST_LOOP
#define ZTS_IP_ADD_MEMBERSHIP IP_ADD_MEMBERSHIP
#define ZTS_IP_DROP_MEMBERSHIP IP_DROP_MEMBERSHIP
#define ZTS_IPV6_CHECKSUM IPV6_CHECKSUM
#define ZTS_IPV6_V6ONLY IPV6_V6ONLY
#define ZTS_IPV6_JOIN_GROUP IPV6_JOIN_GROUP
#define ZTS_IPV6_LEAVE_GROUP IPV6_LEAVE_GROUP
#define ZTS_IPV6_ADD_MEMBERSHIP ZTS_IPV6_JOIN_GROUP
#define ZTS_IPV6_DROP_MEMBERSHIP ZTS_IPV6_LEAVE_GROUP
/* The platform's numbers, which no header of POSIX has. */
#define ZTS_UDPLITE_SEND_CSCOV 10
#define ZTS_UDPLITE_RECV_CSCOV 11
/* RFC 1349, RFC 791. */
#define ZTS_IPTOS_TOS_MASK 0x1E
#define ZTS_IPTOS_TOS(tos) ((tos) & ZTS_IPTOS_TOS_MASK)
#define ZTS_IPTOS_LOWDELAY 0x10
#define ZTS_IPTOS_THROUGHPUT 0x08
#define ZTS_IPTOS_RELIABILITY 0x04
#define ZTS_IPTOS_LOWCOST 0x02
#define ZTS_IPTOS_MINCOST ZTS_IPTOS_LOWCOST
#define ZTS_IPTOS_PREC_MASK 0xe0
#define ZTS_IPTOS_PREC(tos) ((tos) & ZTS_IPTOS_PREC_MASK)
#define ZTS_IPTOS_PREC_NETCONTROL 0xe0
#define ZTS_IPTOS_PREC_INTERNETCONTROL 0xc0
#define ZTS_IPTOS_PREC_CRITIC_ECP 0xa0
#define ZTS_IPTOS_PREC_FLASHOVERRIDE 0x80
#define ZTS_IPTOS_PREC_FLASH 0x60
#define ZTS_IPTOS_PREC_IMMEDIATE 0x40
#define ZTS_IPTOS_PREC_PRIORITY 0x20
#define ZTS_IPTOS_PREC_ROUTINE 0x00
#define ZTS_TCP_NODELAY TCP_NODELAY
#define ZTS_TCP_KEEPALIVE TCP_KEEPIDLE
#define ZTS_TCP_KEEPIDLE TCP_KEEPIDLE
#define ZTS_TCP_KEEPINTVL TCP_KEEPINTVL
#define ZTS_TCP_KEEPCNT TCP_KEEPCNT
#define ZTS_F_GETFL F_GETFL
#define ZTS_F_SETFL F_SETFL
#define ZTS_O_NONBLOCK O_NONBLOCK
#define ZTS_O_NDELAY O_NDELAY
#define ZTS_O_RDONLY O_RDONLY
#define ZTS_O_WRONLY O_WRONLY
#define ZTS_O_RDWR O_RDWR
/* Requests of ioctl as the platform makes them. */
#define ZTS_IOCPARM_MASK ((unsigned int)_IOC_SIZEMASK)
#define ZTS_IOC_VOID ((unsigned long)_IOC_NONE << _IOC_DIRSHIFT)
#define ZTS_IOC_OUT ((unsigned long)_IOC_READ << _IOC_DIRSHIFT)
#define ZTS_IOC_IN ((unsigned long)_IOC_WRITE << _IOC_DIRSHIFT)
#define ZTS_IOC_INOUT (ZTS_IOC_IN | ZTS_IOC_OUT)
#define ZTS_IO(x, y) _IO(x, y)
#define ZTS_IOR(x, y, t) _IOR(x, y, t)
#define ZTS_IOW(x, y, t) _IOW(x, y, t)
#define ZTS_FIONREAD FIONREAD
#define ZTS_FIONBIO FIONBIO
#define ZTS_POLLIN POLLIN
#define ZTS_POLLOUT POLLOUT
#define ZTS_POLLERR POLLERR
#define ZTS_POLLNVAL POLLNVAL
#define ZTS_POLLRDNORM POLLRDNORM
#define ZTS_POLLRDBAND POLLRDBAND
#define ZTS_POLLPRI POLLPRI
#define ZTS_POLLWRNORM POLLWRNORM
#define ZTS_POLLWRBAND POLLWRBAND
#define ZTS_POLLHUP POLLHUP
#define ZTS_FD_SETSIZE FD_SETSIZE
#define ZTS_FD_SET(fd, set) FD_SET(fd, &(set)->native)
#define ZTS_FD_CLR(fd, set) FD_CLR(fd, &(set)->native)
#define ZTS_FD_ISSET(fd, set) FD_ISSET(fd, &(set)->native)
#define ZTS_FD_ZERO(set) memset((set), 0, sizeof *(set))
#define ZTS_IPADDR_NONE ((uint32_t)0xffffffffUL)
#define ZTS_IPADDR_LOOPBACK ((uint32_t)0x7f000001UL)
#define ZTS_IPADDR_ANY ((uint32_t)0x00000000UL)
#define ZTS_IPADDR_BROADCAST ((uint32_t)0xffffffffUL)
#define ZTS_INADDR_NONE ZTS_IPADDR_NONE
#define ZTS_INADDR_LOOPBACK ZTS_IPADDR_LOOPBACK
#define ZTS_INADDR_ANY ZTS_IPADDR_ANY
#define ZTS_INADDR_BROADCAST ZTS_IPADDR_BROADCAST
#define ZTS_IN6ADDR_ANY_INIT {{{0, 0, 0, 0}}}

/* ---- Structures. Those that are laid out as the platform's are the platform's. ---- */

#define zts_pollfd pollfd
#define zts_iovec iovec
#define zts_linger linger
typedef unsigned int zts_nfds_t;
typedef uint32_t zts_socklen_t;
typedef uint32_t zts_in_addr_t;
typedef uint16_t zts_in_port_t;
typedef uint8_t zts_sa_family_t;

struct zts_in_addr {
    zts_in_addr_t s_addr;
};

struct zts_in6_addr {
    union un {
        uint32_t u32_addr[4];
        uint8_t u8_addr[16];
    } un;
};

static const struct zts_in6_addr zts_in6addr_any __attribute__((unused)) = ZTS_IN6ADDR_ANY_INIT;

/* What there can be a set of is the platform's matter, so its members are too. */
typedef struct zts_fd_set {
    fd_set native;
} zts_fd_set;

typedef struct zts_timeval {
    long tv_sec;
    long tv_usec;
} zts_timeval;

/* These two are laid out as the platform's: they go to zts_bsd_setsockopt() as they are. */
typedef struct zts_ip_mreq {
    struct zts_in_addr imr_multiaddr;
    struct zts_in_addr imr_interface;
} zts_ip_mreq;

typedef struct zts_ipv6_mreq {
    struct zts_in6_addr ipv6mr_multiaddr;
    unsigned int ipv6mr_interface;
} zts_ipv6_mreq;

/* The beginning of the platform's: of a datagram that has come, ipi_addr is the address that it came to. */
struct zts_in_pktinfo {
    unsigned int ipi_ifindex;
    struct zts_in_addr ipi_addr;
};

struct zts_ip4_addr {
    uint32_t addr;
};

struct zts_ip6_addr {
    uint32_t addr[4];
};

typedef struct zts_ip_addr {
    union {
        struct zts_ip6_addr ip6;
        struct zts_ip4_addr ip4;
    } u_addr;
    /* 0 for IPv4, 6 for IPv6, as lwIP has it. */
    uint8_t type;
} zts_ip_addr;

struct zts_sockaddr {
    uint8_t sa_len;
    zts_sa_family_t sa_family;
    char sa_data[14];
};

struct zts_sockaddr_in {
    uint8_t sin_len;
    zts_sa_family_t sin_family;
    zts_in_port_t sin_port;
    struct zts_in_addr sin_addr;
    char sin_zero[8];
};

struct zts_sockaddr_in6 {
    uint8_t sin6_len;
    zts_sa_family_t sin6_family;
    zts_in_port_t sin6_port;
    uint32_t sin6_flowinfo;
    struct zts_in6_addr sin6_addr;
    uint32_t sin6_scope_id;
};

struct zts_sockaddr_storage {
    uint8_t s2_len;
    zts_sa_family_t ss_family;
    char s2_data1[2];
    uint32_t s2_data2[3];
    uint32_t s2_data3[3];
};

struct zts_msghdr {
    void *msg_name;
    zts_socklen_t msg_namelen;
    struct zts_iovec *msg_iov;
    int msg_iovlen;
    void *msg_control;
    zts_socklen_t msg_controllen;
    int msg_flags;
};

typedef struct {
    uint64_t node_id;
    uint16_t port_primary, port_secondary, port_tertiary;
    uint8_t ver_major, ver_minor, ver_rev;
} zts_node_info_t;

typedef struct {
    uint64_t net_id;
    struct zts_sockaddr_storage addr;
} zts_addr_info_t;

typedef struct {
    struct zts_sockaddr_storage target, via;
    uint16_t flags, metric;
} zts_route_info_t;

typedef struct {
    uint64_t mac;
    unsigned long adi;
} zts_multicast_group_t;

typedef struct {
    uint64_t net_id, mac;
    char name[ZTS_MAX_NETWORK_SHORT_NAME_LENGTH + 1];
    zts_network_status_t status;
    zts_net_info_type_t type;
    unsigned int mtu;
    int dhcp, bridge, broadcast_enabled, port_error;
    unsigned long netconf_rev;
    unsigned int assigned_addr_count;
    struct zts_sockaddr_storage assigned_addrs[ZTS_MAX_ASSIGNED_ADDRESSES];
    unsigned int route_count;
    zts_route_info_t routes[ZTS_MAX_NETWORK_ROUTES];
    unsigned int multicast_sub_count;
    struct {
        uint64_t mac;
        uint32_t adi;
    } multicast_subs[ZTS_MAX_MULTICAST_SUBSCRIPTIONS];
} zts_net_info_t;

typedef struct {
    struct zts_sockaddr_storage address;
    uint64_t last_tx, last_rx, trusted_path_id;
    float latency, unused_0, unused_1, unused_2, unused_3, unused_4;
    uint64_t unused_5, unused_6;
    float unused_7;
    char *ifname;
    int expired, preferred;
} zts_path_t;

typedef struct {
    uint64_t peer_id;
    int ver_major, ver_minor, ver_rev, latency;
    zts_peer_role_t role;
    unsigned int path_count;
    int unused_0;
    zts_path_t paths[ZTS_MAX_PEER_NETWORK_PATHS];
} zts_peer_info_t;

typedef struct {
    uint64_t net_id, mac;
    int mtu;
} zts_netif_info_t;

typedef struct {
    int16_t event_code;
    zts_node_info_t *node;
    zts_net_info_t *network;
    zts_netif_info_t *netif;
    zts_route_info_t *route;
    zts_peer_info_t *peer;
    zts_addr_info_t *addr;
    void *cache;
    int len;
} zts_event_msg_t;

#include "zts/state.h"

#include "zts/network.h"
#include "zts/sockets.h"
#include "zts/other.h"

#endif
