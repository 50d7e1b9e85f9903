/* Networks and addresses. Part of ZeroTierSockets.h. */

ZTS_INLINE uint64_t zts_net_compute_adhoc_id(uint16_t start_port, uint16_t end_port) {
    return peersock_ad_hoc(start_port, end_port);
}

/* A static network, fe..., is joined by its file: networks.d/ID.toml in the storage folder.
 * `peersock network new` makes such a file, and docs/use/NETWORKS.md describes it. */
ZTS_INLINE peersock_result zts_join(uint64_t net_id) {
    char path[sizeof zts_state.storage + 64];
    if (net_id >> 56 != 0xfe) return peersock_join(PEERSOCK_DEFAULT, net_id, NULL);
    snprintf(path, sizeof path, "%s/networks.d/%016llx.toml", zts_state.storage, (unsigned long long)net_id);
    return peersock_join_file(PEERSOCK_DEFAULT, path, NULL);
}

ZTS_INLINE int zts_addr_is_assigned(uint64_t net_id, unsigned int family);

/* The status of a network, from a wait for it. */
ZTS_INLINE int zts_status_of(peersock_result waited) {
    if (waited == PEERSOCK_OK) return ZTS_NETWORK_STATUS_OK;
    if (waited == PEERSOCK_E_TIMEOUT) return ZTS_NETWORK_STATUS_REQUESTING_CONFIGURATION;
    return waited == PEERSOCK_E_SYSTEM ? ZTS_NETWORK_STATUS_ACCESS_DENIED : zts_error_of(waited);
}

ZTS_INLINE void zts_tell_ready(uint64_t net_id) {
    zts_tell_network(ZTS_EVENT_NETWORK_OK, net_id);
    if (zts_addr_is_assigned(net_id, ZTS_AF_INET)) {
        zts_tell_network(ZTS_EVENT_ADDR_ADDED_IP4, net_id);
        zts_tell_network(ZTS_EVENT_NETWORK_READY_IP4, net_id);
    }
    zts_tell_network(ZTS_EVENT_ADDR_ADDED_IP6, net_id);
    zts_tell_network(ZTS_EVENT_NETWORK_READY_IP6, net_id);
}

/* Tells what a controller decides, which can take as long as a person takes. */
ZTS_INLINE void *zts_await_admission(void *waited_for) {
    uint64_t net_id = *(uint64_t *)waited_for;
    int status;
    free(waited_for);
    do {
        status = zts_status_of(peersock_wait_ready(PEERSOCK_DEFAULT, net_id, 500));
    } while (status == ZTS_NETWORK_STATUS_REQUESTING_CONFIGURATION);
    if (status == ZTS_NETWORK_STATUS_OK) zts_tell_ready(net_id);
    if (status == ZTS_NETWORK_STATUS_ACCESS_DENIED) zts_tell_network(ZTS_EVENT_NETWORK_ACCESS_DENIED, net_id);
    return NULL;
}

/* Tells of a network that was just joined: at once, or when a controller has decided. */
ZTS_INLINE void zts_tell_joined(uint64_t net_id) {
    pthread_t thread;
    uint64_t *waited_for;
    if (peersock_wait_ready(PEERSOCK_DEFAULT, net_id, 0) == PEERSOCK_OK) {
        zts_tell_ready(net_id);
        return;
    }
    zts_tell_network(ZTS_EVENT_NETWORK_REQ_CONFIG, net_id);
    waited_for = (uint64_t *)malloc(sizeof *waited_for);
    if (waited_for == NULL) return;
    *waited_for = net_id;
    if (pthread_create(&thread, NULL, zts_await_admission, waited_for) == 0) {
        pthread_detach(thread);
    } else {
        free(waited_for);
    }
}

/* A managed network is joined once its controller has admitted the node: zts_net_get_status() says when, and
 * zts_net_transport_is_ready(). */
ZTS_INLINE int zts_net_join(uint64_t net_id) {
    peersock_result result;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    result = zts_join(net_id);
    if (result == PEERSOCK_OK && zts_state.handler != NULL) zts_tell_joined(net_id);
    return result == PEERSOCK_E_EXISTS ? ZTS_ERR_OK : zts_error_of(result);
}

ZTS_INLINE int zts_net_leave(uint64_t net_id) {
    peersock_result result;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    result = peersock_leave(PEERSOCK_DEFAULT, net_id);
    if (result == PEERSOCK_OK && zts_state.handler != NULL) zts_tell_network(ZTS_EVENT_NETWORK_DOWN, net_id);
    return zts_error_of(result);
}

/* As many of a network's addresses as there are, or an error. */
ZTS_INLINE int zts_addresses(uint64_t net_id, struct sockaddr_storage *found, size_t capacity, size_t *count) {
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    return zts_error_of(peersock_addresses(PEERSOCK_DEFAULT, net_id, found, capacity, count));
}

ZTS_INLINE int zts_net_get_status(uint64_t net_id) {
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    return zts_status_of(peersock_wait_ready(PEERSOCK_DEFAULT, net_id, 0));
}

ZTS_INLINE int zts_net_transport_is_ready(const uint64_t net_id) {
    return zts_net_get_status(net_id) == ZTS_NETWORK_STATUS_OK;
}

ZTS_INLINE int zts_net_get_type(uint64_t net_id) {
    size_t count = 0;
    int error = zts_addresses(net_id, NULL, 0, &count);
    if (error != ZTS_ERR_OK) return error;
    /* Anybody may enter an ad-hoc network. */
    return net_id >> 56 == 0xff ? ZTS_NETWORK_TYPE_PUBLIC : ZTS_NETWORK_TYPE_PRIVATE;
}

/* Networks have no names of their own here: it is the ID. */
ZTS_INLINE int zts_net_get_name(uint64_t net_id, char *dst, unsigned int len) {
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (dst == NULL || len < 17) return ZTS_ERR_ARG;
    snprintf(dst, len, "%016llx", (unsigned long long)net_id);
    return ZTS_ERR_OK;
}

ZTS_INLINE int zts_net_get_mtu(uint64_t net_id) {
    size_t count = 0;
    int error = zts_addresses(net_id, NULL, 0, &count);
    /* What every path carries; most carry more. */
    return error == ZTS_ERR_OK ? 1280 : error;
}

ZTS_INLINE int zts_net_get_broadcast(uint64_t net_id) {
    size_t count = 0;
    return zts_addresses(net_id, NULL, 0, &count);
}

/* The network's first address of a family. */
ZTS_INLINE int zts_find_address(uint64_t net_id, unsigned int family, struct sockaddr_storage *found) {
    struct sockaddr_storage all[ZTS_MAX_ASSIGNED_ADDRESSES];
    size_t count = 0, i;
    int error = zts_addresses(net_id, all, ZTS_MAX_ASSIGNED_ADDRESSES, &count);
    if (error != ZTS_ERR_OK) return error;
    for (i = 0; i < count && i < ZTS_MAX_ASSIGNED_ADDRESSES; i++) {
        if (all[i].ss_family == family) {
            *found = all[i];
            return ZTS_ERR_OK;
        }
    }
    return ZTS_ERR_NO_RESULT;
}

ZTS_INLINE int zts_addr_is_assigned(uint64_t net_id, unsigned int family) {
    struct sockaddr_storage found;
    return zts_find_address(net_id, family, &found) == ZTS_ERR_OK;
}

ZTS_INLINE int zts_addr_get(uint64_t net_id, unsigned int family, struct zts_sockaddr_storage *addr) {
    struct sockaddr_storage found;
    int error;
    if (addr == NULL) return ZTS_ERR_ARG;
    error = zts_find_address(net_id, family, &found);
    if (error == ZTS_ERR_OK) zts_from_native(&found, addr);
    return error;
}

ZTS_INLINE int zts_addr_get_str(uint64_t net_id, unsigned int family, char *dst, unsigned int len) {
    struct sockaddr_storage found;
    int error;
    if (dst == NULL || len < ZTS_INET6_ADDRSTRLEN) return ZTS_ERR_ARG;
    error = zts_find_address(net_id, family, &found);
    return error == ZTS_ERR_OK ? zts_print(&found, dst, len, NULL) : error;
}

/* addr has room for ZTS_MAX_ASSIGNED_ADDRESSES. */
ZTS_INLINE int zts_addr_get_all(uint64_t net_id, struct zts_sockaddr_storage *addr, unsigned int *count) {
    struct sockaddr_storage all[ZTS_MAX_ASSIGNED_ADDRESSES];
    size_t found = 0, i;
    int error;
    if (addr == NULL || count == NULL || *count != ZTS_MAX_ASSIGNED_ADDRESSES) return ZTS_ERR_ARG;
    error = zts_addresses(net_id, all, ZTS_MAX_ASSIGNED_ADDRESSES, &found);
    if (error != ZTS_ERR_OK) return error;
    if (found > ZTS_MAX_ASSIGNED_ADDRESSES) found = ZTS_MAX_ASSIGNED_ADDRESSES;
    for (i = 0; i < found; i++) zts_from_native(&all[i], &addr[i]);
    *count = (unsigned int)found;
    return ZTS_ERR_OK;
}

ZTS_INLINE int zts_route_is_assigned(uint64_t net_id, unsigned int family) {
    return zts_addr_is_assigned(net_id, family);
}

/* The paths to a peer, by the first 40 bits of its ID: how many, or one of them as text. */
ZTS_INLINE int zts_find_paths(uint64_t peer_id, struct sockaddr_storage *paths, size_t capacity, size_t *count) {
    size_t known = 0, i;
    int error = ZTS_ERR_NO_RESULT;
    peersock_peer *peers;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (peersock_peers(PEERSOCK_DEFAULT, 0, NULL, sizeof(peersock_peer), 0, &known) != PEERSOCK_OK) return ZTS_ERR_GENERAL;
    peers = (peersock_peer *)calloc(known + 1, sizeof *peers);
    if (peers == NULL) return ZTS_ERR_GENERAL;
    i = known;
    if (peersock_peers(PEERSOCK_DEFAULT, 0, peers, sizeof(peersock_peer), known, &i) == PEERSOCK_OK && i < known) known = i;
    for (i = 0; i < known && error != ZTS_ERR_OK; i++) {
        if (zts_short_id(peers[i].id) != peer_id) continue;
        error = zts_error_of(
            peersock_paths(PEERSOCK_DEFAULT, peers[i].network, peers[i].id, paths, capacity, count));
    }
    free(peers);
    return error;
}

ZTS_INLINE int zts_core_lock_obtain(void) { return zts_is_up() ? ZTS_ERR_OK : ZTS_ERR_SERVICE; }
ZTS_INLINE int zts_core_lock_release(void) { return zts_is_up() ? ZTS_ERR_OK : ZTS_ERR_SERVICE; }

ZTS_INLINE int zts_core_query_addr_count(uint64_t net_id) {
    size_t count = 0;
    int error = zts_addresses(net_id, NULL, 0, &count);
    return error == ZTS_ERR_OK ? (int)count : error;
}

ZTS_INLINE int zts_core_query_addr(uint64_t net_id, unsigned int idx, char *addr, unsigned int len) {
    struct sockaddr_storage all[ZTS_MAX_ASSIGNED_ADDRESSES];
    size_t count = 0;
    int error = zts_addresses(net_id, all, ZTS_MAX_ASSIGNED_ADDRESSES, &count);
    if (error != ZTS_ERR_OK) return error;
    if (idx >= count || idx >= ZTS_MAX_ASSIGNED_ADDRESSES) return ZTS_ERR_ARG;
    return zts_print(&all[idx], addr, len, NULL);
}

ZTS_INLINE int zts_core_query_path_count(uint64_t peer_id) {
    size_t count = 0;
    int error = zts_find_paths(peer_id, NULL, 0, &count);
    return error == ZTS_ERR_OK ? (int)count : error;
}

ZTS_INLINE int zts_core_query_path(uint64_t peer_id, unsigned int idx, char *dst, unsigned int len) {
    struct sockaddr_storage paths[ZTS_MAX_PEER_NETWORK_PATHS];
    size_t count = 0;
    int error = zts_find_paths(peer_id, paths, ZTS_MAX_PEER_NETWORK_PATHS, &count);
    if (error != ZTS_ERR_OK) return error;
    if (idx >= count || idx >= ZTS_MAX_PEER_NETWORK_PATHS) return ZTS_ERR_ARG;
    return zts_print(&paths[idx], dst, len, NULL);
}

/* ---- Tools ---- */

ZTS_INLINE void zts_util_delay(unsigned long milliseconds) { poll(NULL, 0, (int)milliseconds); }

ZTS_INLINE int zts_util_get_ip_family(const char *ipstr) {
    struct sockaddr_storage address;
    return zts_parse(ipstr, 0, &address) > 0 ? address.ss_family : (int)ZTS_ERR_ARG;
}

ZTS_INLINE int zts_util_ipstr_to_saddr(const char *src_ipstr, unsigned short port, struct zts_sockaddr *dstaddr,
                                       zts_socklen_t *addrlen) {
    struct sockaddr_storage native;
    struct zts_sockaddr_storage own;
    zts_socklen_t length;
    if (dstaddr == NULL || addrlen == NULL || zts_parse(src_ipstr, port, &native) == 0) return ZTS_ERR_ARG;
    length = native.ss_family == AF_INET ? sizeof(struct zts_sockaddr_in) : sizeof(struct zts_sockaddr_in6);
    if (*addrlen < length) return ZTS_ERR_ARG;
    zts_from_native(&native, &own);
    memcpy(dstaddr, &own, length);
    *addrlen = length;
    return ZTS_ERR_OK;
}

ZTS_INLINE int zts_util_ntop(struct zts_sockaddr *addr, zts_socklen_t addrlen, char *dst_str, int len,
                             unsigned short *port) {
    struct sockaddr_storage native;
    if (len < 0 || zts_to_native(addr, addrlen, &native) == 0) return ZTS_ERR_ARG;
    return zts_print(&native, dst_str, (size_t)len, port);
}

ZTS_INLINE const char *zts_inet_ntop(int family, const void *src, char *dst, zts_socklen_t size) {
    return inet_ntop(family, src, dst, size);
}

ZTS_INLINE int zts_inet_pton(int family, const char *src, void *dst) { return inet_pton(family, src, dst); }
