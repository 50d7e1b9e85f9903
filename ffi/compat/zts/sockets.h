/* Sockets: libzt's BSD calls, and its simpler ones. Part of ZeroTierSockets.h. */

/* An error before there is a node, else what the call gives: never less than -1. */
#define ZTS_CALL(call) (zts_is_up() ? (call) : (int)ZTS_ERR_SERVICE)

/* ---- As BSD has them ---- */

ZTS_INLINE int zts_bsd_socket(int family, int type, int protocol) {
    return ZTS_CALL(peersock_socket(family, type, protocol));
}

ZTS_INLINE int zts_bsd_connect(int fd, const struct zts_sockaddr *addr, zts_socklen_t addrlen) {
    struct sockaddr_storage native;
    socklen_t length = zts_to_native(addr, addrlen, &native);
    if (length == 0) return ZTS_ERR_ARG;
    return ZTS_CALL(peersock_connect(fd, (struct sockaddr *)&native, length));
}

ZTS_INLINE int zts_bsd_bind(int fd, const struct zts_sockaddr *addr, zts_socklen_t addrlen) {
    struct sockaddr_storage native;
    socklen_t length = zts_to_native(addr, addrlen, &native);
    if (length == 0) return ZTS_ERR_ARG;
    return ZTS_CALL(peersock_bind(fd, (struct sockaddr *)&native, length));
}

ZTS_INLINE int zts_bsd_listen(int fd, int backlog) { return ZTS_CALL(peersock_listen(fd, backlog)); }

/* Gives an address back as libzt lays it out, as much of it as there is room for. */
ZTS_INLINE void zts_give(const struct sockaddr_storage *native, void *addr, zts_socklen_t *addrlen) {
    struct zts_sockaddr_storage own;
    zts_socklen_t whole =
        native->ss_family == AF_INET ? sizeof(struct zts_sockaddr_in) : sizeof(struct zts_sockaddr_in6);
    if (addr == NULL || addrlen == NULL) return;
    zts_from_native(native, &own);
    memcpy(addr, &own, *addrlen < whole ? *addrlen : whole);
    *addrlen = whole;
}

ZTS_INLINE int zts_bsd_accept(int fd, struct zts_sockaddr *addr, zts_socklen_t *addrlen) {
    struct sockaddr_storage native;
    socklen_t length = sizeof native;
    int accepted = ZTS_CALL(peersock_accept(fd, (struct sockaddr *)&native, &length));
    if (accepted >= 0) zts_give(&native, addr, addrlen);
    return accepted;
}

ZTS_INLINE int zts_bsd_setsockopt(int fd, int level, int optname, const void *optval, zts_socklen_t optlen) {
    return ZTS_CALL(peersock_setsockopt(fd, level, optname, optval, optlen));
}

ZTS_INLINE int zts_bsd_getsockopt(int fd, int level, int optname, void *optval, zts_socklen_t *optlen) {
    return ZTS_CALL(peersock_getsockopt(fd, level, optname, optval, optlen));
}

ZTS_INLINE int zts_bsd_getsockname(int fd, struct zts_sockaddr *addr, zts_socklen_t *addrlen) {
    struct sockaddr_storage native;
    socklen_t length = sizeof native;
    int result = ZTS_CALL(peersock_getsockname(fd, (struct sockaddr *)&native, &length));
    if (addr == NULL || addrlen == NULL) return ZTS_ERR_ARG;
    if (result == 0) zts_give(&native, addr, addrlen);
    return result;
}

ZTS_INLINE int zts_bsd_getpeername(int fd, struct zts_sockaddr *addr, zts_socklen_t *addrlen) {
    struct sockaddr_storage native;
    socklen_t length = sizeof native;
    int result = ZTS_CALL(peersock_getpeername(fd, (struct sockaddr *)&native, &length));
    if (addr == NULL || addrlen == NULL) return ZTS_ERR_ARG;
    if (result == 0) zts_give(&native, addr, addrlen);
    return result;
}

ZTS_INLINE int zts_bsd_close(int fd) { return ZTS_CALL(peersock_close(fd)); }

ZTS_INLINE int zts_bsd_select(int nfds, zts_fd_set *readfds, zts_fd_set *writefds, zts_fd_set *exceptfds,
                              struct zts_timeval *timeout) {
    struct timeval left, *limit = NULL;
    fd_set *sets[3] = {NULL, NULL, NULL};
    int ready;
    if (readfds != NULL) sets[0] = &readfds->native;
    if (writefds != NULL) sets[1] = &writefds->native;
    if (exceptfds != NULL) sets[2] = &exceptfds->native;
    if (timeout != NULL) {
        left.tv_sec = timeout->tv_sec;
        left.tv_usec = timeout->tv_usec;
        limit = &left;
    }
    ready = ZTS_CALL(select(nfds, sets[0], sets[1], sets[2], limit));
    if (timeout != NULL) {
        timeout->tv_sec = left.tv_sec;
        timeout->tv_usec = left.tv_usec;
    }
    return ready;
}

ZTS_INLINE int zts_bsd_fcntl(int fd, int cmd, int flags) { return ZTS_CALL(fcntl(fd, cmd, flags)); }

ZTS_INLINE int zts_bsd_poll(struct zts_pollfd *fds, zts_nfds_t nfds, int timeout) {
    return ZTS_CALL(poll(fds, nfds, timeout));
}

ZTS_INLINE int zts_bsd_ioctl(int fd, unsigned long request, void *argp) {
    if (argp == NULL) return ZTS_ERR_ARG;
    return ZTS_CALL(ioctl(fd, request, argp));
}

ZTS_INLINE ssize_t zts_bsd_send(int fd, const void *buf, size_t len, int flags) {
    return ZTS_CALL(peersock_send(fd, buf, len, flags | MSG_NOSIGNAL));
}

ZTS_INLINE ssize_t zts_bsd_sendto(int fd, const void *buf, size_t len, int flags, const struct zts_sockaddr *addr,
                                  zts_socklen_t addrlen) {
    struct sockaddr_storage native;
    socklen_t length = zts_to_native(addr, addrlen, &native);
    if (length == 0) return ZTS_ERR_ARG;
    return ZTS_CALL(peersock_sendto(fd, buf, len, flags | MSG_NOSIGNAL, (struct sockaddr *)&native, length));
}

/* The message as the platform has it; its address goes to native. */
ZTS_INLINE void zts_message(const struct zts_msghdr *msg, struct msghdr *out, struct sockaddr_storage *native) {
    memset(out, 0, sizeof *out);
    out->msg_iov = msg->msg_iov;
    out->msg_iovlen = (size_t)msg->msg_iovlen;
    out->msg_control = msg->msg_control;
    out->msg_controllen = msg->msg_controllen;
    if (msg->msg_name != NULL) {
        out->msg_name = native;
        out->msg_namelen = sizeof *native;
    }
}

ZTS_INLINE ssize_t zts_bsd_sendmsg(int fd, const struct zts_msghdr *msg, int flags) {
    struct msghdr out;
    struct sockaddr_storage native;
    if (msg == NULL || msg->msg_iovlen < 0) return ZTS_ERR_ARG;
    zts_message(msg, &out, &native);
    if (msg->msg_name != NULL) {
        out.msg_namelen = zts_to_native((const struct zts_sockaddr *)msg->msg_name, msg->msg_namelen, &native);
        if (out.msg_namelen == 0) return ZTS_ERR_ARG;
    }
    return ZTS_CALL(peersock_sendmsg(fd, &out, flags | MSG_NOSIGNAL));
}

ZTS_INLINE ssize_t zts_bsd_recv(int fd, void *buf, size_t len, int flags) {
    return ZTS_CALL(peersock_recv(fd, buf, len, flags));
}

ZTS_INLINE ssize_t zts_bsd_recvfrom(int fd, void *buf, size_t len, int flags, struct zts_sockaddr *addr,
                                    zts_socklen_t *addrlen) {
    struct sockaddr_storage native;
    socklen_t length = sizeof native;
    ssize_t received = ZTS_CALL(peersock_recvfrom(fd, buf, len, flags, (struct sockaddr *)&native, &length));
    if (received >= 0 && length > 0) zts_give(&native, addr, addrlen);
    return received;
}

ZTS_INLINE ssize_t zts_bsd_recvmsg(int fd, struct zts_msghdr *msg, int flags) {
    struct msghdr out;
    struct sockaddr_storage native;
    ssize_t received;
    if (msg == NULL || msg->msg_iovlen < 0) return ZTS_ERR_ARG;
    zts_message(msg, &out, &native);
    received = ZTS_CALL(peersock_recvmsg(fd, &out, flags));
    if (received >= 0) {
        msg->msg_flags = out.msg_flags;
        msg->msg_controllen = (zts_socklen_t)out.msg_controllen;
        if (out.msg_namelen > 0) {
            zts_give(&native, msg->msg_name, &msg->msg_namelen);
        } else {
            msg->msg_namelen = 0;
        }
    }
    return received;
}

ZTS_INLINE ssize_t zts_bsd_read(int fd, void *buf, size_t len) { return zts_bsd_recv(fd, buf, len, 0); }

ZTS_INLINE ssize_t zts_bsd_readv(int fd, const struct zts_iovec *iov, int iovcnt) {
    return ZTS_CALL(readv(fd, iov, iovcnt));
}

ZTS_INLINE ssize_t zts_bsd_write(int fd, const void *buf, size_t len) { return zts_bsd_send(fd, buf, len, 0); }

ZTS_INLINE ssize_t zts_bsd_writev(int fd, const struct zts_iovec *iov, int iovcnt) {
    struct zts_msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = (struct zts_iovec *)iov;
    message.msg_iovlen = iovcnt;
    return zts_bsd_sendmsg(fd, &message, 0);
}

ZTS_INLINE int zts_bsd_shutdown(int fd, int how) { return ZTS_CALL(peersock_shutdown(fd, how)); }

/* ---- Simpler ones: addresses as text ---- */

ZTS_INLINE int zts_socket(int family, int type, int protocol) { return zts_bsd_socket(family, type, protocol); }

/* timeout_ms: how long a socket that blocks may wait; 0 for as long as connections wait anyhow. */
ZTS_INLINE int zts_connect(int fd, const char *ipstr, unsigned short port, int timeout_ms) {
    struct sockaddr_storage to;
    socklen_t length = zts_parse(ipstr, port, &to), size = sizeof(struct timeval);
    struct timeval before, wanted;
    int result, error;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (length == 0 || timeout_ms < 0) return ZTS_ERR_ARG;
    memset(&before, 0, sizeof before);
    wanted.tv_sec = timeout_ms / 1000;
    wanted.tv_usec = timeout_ms % 1000 * 1000;
    if (timeout_ms > 0) {
        peersock_getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &before, &size);
        peersock_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wanted, sizeof wanted);
    }
    result = peersock_connect(fd, (struct sockaddr *)&to, length);
    error = errno;
    if (timeout_ms > 0) peersock_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &before, sizeof before);
    errno = error;
    return result;
}

ZTS_INLINE int zts_bind(int fd, const char *ipstr, unsigned short port) {
    struct sockaddr_storage local;
    socklen_t length = zts_parse(ipstr, port, &local);
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (length == 0) return ZTS_ERR_ARG;
    return peersock_bind(fd, (struct sockaddr *)&local, length);
}

ZTS_INLINE int zts_listen(int fd, int backlog) { return zts_bsd_listen(fd, backlog); }

ZTS_INLINE int zts_accept(int fd, char *remote_addr, int len, unsigned short *port) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (len < 0 || (remote_addr != NULL && len < ZTS_INET6_ADDRSTRLEN)) return ZTS_ERR_ARG;
    accepted = peersock_accept(fd, (struct sockaddr *)&peer, &length);
    if (accepted >= 0 && remote_addr != NULL) zts_print(&peer, remote_addr, (size_t)len, port);
    return accepted;
}

ZTS_INLINE ssize_t zts_send(int fd, const void *buf, size_t len, int flags) { return zts_bsd_send(fd, buf, len, flags); }
ZTS_INLINE ssize_t zts_recv(int fd, void *buf, size_t len, int flags) { return zts_bsd_recv(fd, buf, len, flags); }
ZTS_INLINE ssize_t zts_read(int fd, void *buf, size_t len) { return zts_bsd_read(fd, buf, len); }
ZTS_INLINE ssize_t zts_write(int fd, const void *buf, size_t len) { return zts_bsd_write(fd, buf, len); }
ZTS_INLINE int zts_shutdown_rd(int fd) { return zts_bsd_shutdown(fd, SHUT_RD); }
ZTS_INLINE int zts_shutdown_wr(int fd) { return zts_bsd_shutdown(fd, SHUT_WR); }
ZTS_INLINE int zts_shutdown_rdwr(int fd) { return zts_bsd_shutdown(fd, SHUT_RDWR); }
ZTS_INLINE int zts_close(int fd) { return zts_bsd_close(fd); }

ZTS_INLINE int zts_getpeername(int fd, char *remote_addr_str, int len, unsigned short *port) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int result = ZTS_CALL(peersock_getpeername(fd, (struct sockaddr *)&peer, &length));
    if (len < 0) return ZTS_ERR_ARG;
    return result == 0 ? zts_print(&peer, remote_addr_str, (size_t)len, port) : result;
}

ZTS_INLINE int zts_getsockname(int fd, char *local_addr_str, int len, unsigned short *port) {
    struct sockaddr_storage own;
    socklen_t length = sizeof own;
    int result = ZTS_CALL(peersock_getsockname(fd, (struct sockaddr *)&own, &length));
    if (len < 0) return ZTS_ERR_ARG;
    return result == 0 ? zts_print(&own, local_addr_str, (size_t)len, port) : result;
}

/* Closes a descriptor and keeps errno. */
ZTS_INLINE int zts_give_up(int fd, int result) {
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

ZTS_INLINE int zts_tcp_client(const char *remote_ipstr, unsigned short remote_port) {
    int family = zts_util_get_ip_family(remote_ipstr), fd, result;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (family < 0) return ZTS_ERR_ARG;
    fd = zts_socket(family, SOCK_STREAM, 0);
    if (fd < 0) return fd;
    result = zts_connect(fd, remote_ipstr, remote_port, 0);
    return result == 0 ? fd : zts_give_up(fd, result);
}

ZTS_INLINE int zts_tcp_server(const char *local_ipstr, unsigned short local_port, char *remote_ipstr, int len,
                              unsigned short *remote_port) {
    int family = zts_util_get_ip_family(local_ipstr), fd, result;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (family < 0) return ZTS_ERR_ARG;
    fd = zts_socket(family, SOCK_STREAM, 0);
    if (fd < 0) return fd;
    result = zts_bind(fd, local_ipstr, local_port);
    if (result == 0) result = zts_listen(fd, 1);
    if (result == 0) result = zts_accept(fd, remote_ipstr, len, remote_port);
    return zts_give_up(fd, result);
}

ZTS_INLINE int zts_udp_server(const char *local_ipstr, unsigned short local_port) {
    int family = zts_util_get_ip_family(local_ipstr), fd, result;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (family < 0) return ZTS_ERR_ARG;
    fd = zts_socket(family, SOCK_DGRAM, 0);
    if (fd < 0) return fd;
    result = zts_bind(fd, local_ipstr, local_port);
    return result == 0 ? fd : zts_give_up(fd, result);
}

ZTS_INLINE int zts_udp_client(const char *remote_ipstr) {
    int family = zts_util_get_ip_family(remote_ipstr);
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    return family < 0 ? ZTS_ERR_ARG : zts_socket(family, SOCK_DGRAM, 0);
}

/* ---- Options ---- */

ZTS_INLINE int zts_set_int(int fd, int level, int name, int value) {
    return zts_bsd_setsockopt(fd, level, name, &value, sizeof value);
}

ZTS_INLINE int zts_get_int(int fd, int level, int name) {
    int value = 0, result;
    zts_socklen_t length = sizeof value;
    result = zts_bsd_getsockopt(fd, level, name, &value, &length);
    return result < 0 ? result : value;
}

ZTS_INLINE int zts_set_switch(int fd, int level, int name, int enabled) {
    return enabled == 0 || enabled == 1 ? zts_set_int(fd, level, name, enabled) : ZTS_ERR_ARG;
}

ZTS_INLINE int zts_set_time(int fd, int name, int seconds, int microseconds) {
    struct timeval time;
    if (seconds < 0 || microseconds < 0) return ZTS_ERR_ARG;
    time.tv_sec = seconds;
    time.tv_usec = microseconds;
    return zts_bsd_setsockopt(fd, SOL_SOCKET, name, &time, sizeof time);
}

ZTS_INLINE int zts_get_time(int fd, int name) {
    struct timeval time = {0, 0};
    zts_socklen_t length = sizeof time;
    int result = zts_bsd_getsockopt(fd, SOL_SOCKET, name, &time, &length);
    return result < 0 ? result : (int)time.tv_sec;
}

ZTS_INLINE int zts_get_linger(int fd, struct linger *linger) {
    zts_socklen_t length = sizeof *linger;
    return zts_bsd_getsockopt(fd, SOL_SOCKET, SO_LINGER, linger, &length);
}

ZTS_INLINE int zts_set_no_delay(int fd, int enabled) { return zts_set_switch(fd, IPPROTO_TCP, TCP_NODELAY, enabled); }
ZTS_INLINE int zts_get_no_delay(int fd) { return zts_get_int(fd, IPPROTO_TCP, TCP_NODELAY); }
ZTS_INLINE int zts_set_reuse_addr(int fd, int enabled) { return zts_set_switch(fd, SOL_SOCKET, SO_REUSEADDR, enabled); }
ZTS_INLINE int zts_get_reuse_addr(int fd) { return zts_get_int(fd, SOL_SOCKET, SO_REUSEADDR); }
ZTS_INLINE int zts_set_keepalive(int fd, int enabled) { return zts_set_switch(fd, SOL_SOCKET, SO_KEEPALIVE, enabled); }
ZTS_INLINE int zts_get_keepalive(int fd) { return zts_get_int(fd, SOL_SOCKET, SO_KEEPALIVE); }
ZTS_INLINE int zts_set_recv_timeout(int fd, int seconds, int microseconds) {
    return zts_set_time(fd, SO_RCVTIMEO, seconds, microseconds);
}
ZTS_INLINE int zts_get_recv_timeout(int fd) { return zts_get_time(fd, SO_RCVTIMEO); }
ZTS_INLINE int zts_set_send_timeout(int fd, int seconds, int microseconds) {
    return zts_set_time(fd, SO_SNDTIMEO, seconds, microseconds);
}
ZTS_INLINE int zts_get_send_timeout(int fd) { return zts_get_time(fd, SO_SNDTIMEO); }
ZTS_INLINE int zts_set_send_buf_size(int fd, int size) {
    return size < 0 ? ZTS_ERR_ARG : zts_set_int(fd, SOL_SOCKET, SO_SNDBUF, size);
}
ZTS_INLINE int zts_get_send_buf_size(int fd) { return zts_get_int(fd, SOL_SOCKET, SO_SNDBUF); }
ZTS_INLINE int zts_set_recv_buf_size(int fd, int size) {
    return size < 0 ? ZTS_ERR_ARG : zts_set_int(fd, SOL_SOCKET, SO_RCVBUF, size);
}
ZTS_INLINE int zts_get_recv_buf_size(int fd) { return zts_get_int(fd, SOL_SOCKET, SO_RCVBUF); }

ZTS_INLINE int zts_is_v6(int fd) {
    struct sockaddr_storage local;
    socklen_t length = sizeof local;
    return ZTS_CALL(peersock_getsockname(fd, (struct sockaddr *)&local, &length)) == 0 &&
           local.ss_family == AF_INET6;
}
ZTS_INLINE int zts_set_ttl(int fd, int ttl) {
    if (ttl < 0 || ttl > 255) return ZTS_ERR_ARG;
    return zts_is_v6(fd) ? zts_set_int(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl)
                         : zts_set_int(fd, IPPROTO_IP, IP_TTL, ttl);
}
ZTS_INLINE int zts_get_ttl(int fd) {
    return zts_is_v6(fd) ? zts_get_int(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS) : zts_get_int(fd, IPPROTO_IP, IP_TTL);
}

ZTS_INLINE int zts_set_linger(int fd, int enabled, int value) {
    struct linger linger = {enabled, value};
    if ((enabled != 0 && enabled != 1) || value < 0) return ZTS_ERR_ARG;
    return zts_bsd_setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}
ZTS_INLINE int zts_get_linger_enabled(int fd) {
    struct linger linger = {0, 0};
    int result = zts_get_linger(fd, &linger);
    return result < 0 ? result : linger.l_onoff;
}
ZTS_INLINE int zts_get_linger_value(int fd) {
    struct linger linger = {0, 0};
    int result = zts_get_linger(fd, &linger);
    return result < 0 ? result : linger.l_linger;
}

ZTS_INLINE int zts_set_blocking(int fd, int enabled) {
    int flags = ZTS_CALL(fcntl(fd, F_GETFL));
    if (enabled != 0 && enabled != 1) return ZTS_ERR_ARG;
    if (flags < 0) return flags;
    return fcntl(fd, F_SETFL, enabled ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}
ZTS_INLINE int zts_get_blocking(int fd) {
    int flags = ZTS_CALL(fcntl(fd, F_GETFL));
    return flags < 0 ? flags : !(flags & O_NONBLOCK);
}

ZTS_INLINE int zts_get_last_socket_error(int fd) { return zts_get_int(fd, SOL_SOCKET, SO_ERROR); }
ZTS_INLINE int zts_get_pending_data_size(int fd) {
    int available = 0, result = ZTS_CALL(ioctl(fd, FIONREAD, &available));
    return result < 0 ? result : available;
}
ZTS_INLINE size_t zts_get_data_available(int fd) {
    int available = zts_get_pending_data_size(fd);
    return available < 0 ? 0 : (size_t)available;
}
