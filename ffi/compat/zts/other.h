/* What programs written for libzt call beside sockets and networks, and what peersock has nothing of. Part of
 * ZeroTierSockets.h. */

/* The address of a node in a network, by the first 40 bits of its ID: our own, or that of a peer that is
 * known. Here addresses follow from whole IDs, so they cannot be computed for strangers. */
ZTS_INLINE int zts_address_of(uint64_t net_id, uint64_t node_id, struct sockaddr_storage *found) {
    size_t known = 0, count, i;
    int error = ZTS_ERR_NO_RESULT;
    peersock_peer *peers;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (node_id == zts_node_get_id()) return zts_find_address(net_id, AF_INET6, found);
    if (peersock_peers(PEERSOCK_DEFAULT, net_id, NULL, sizeof(peersock_peer), 0, &known) != PEERSOCK_OK) return ZTS_ERR_ARG;
    peers = (peersock_peer *)calloc(known + 1, sizeof *peers);
    if (peers == NULL) return ZTS_ERR_GENERAL;
    count = 0;
    if (peersock_peers(PEERSOCK_DEFAULT, net_id, peers, sizeof(peersock_peer), known, &count) != PEERSOCK_OK) count = 0;
    for (i = 0; i < count && i < known; i++) {
        if (zts_short_id(peers[i].id) != node_id) continue;
        *found = peers[i].address;
        error = ZTS_ERR_OK;
    }
    free(peers);
    return error;
}

ZTS_INLINE int zts_addr_compute_rfc4193(const uint64_t net_id, const uint64_t node_id,
                                        struct zts_sockaddr_storage *addr) {
    struct sockaddr_storage found;
    int error = addr == NULL ? ZTS_ERR_ARG : zts_address_of(net_id, node_id, &found);
    if (error == ZTS_ERR_OK) zts_from_native(&found, addr);
    return error;
}

ZTS_INLINE int zts_addr_compute_rfc4193_str(uint64_t net_id, uint64_t node_id, char *dst, unsigned int len) {
    struct sockaddr_storage found;
    int error = dst == NULL || len < ZTS_INET6_ADDRSTRLEN ? ZTS_ERR_ARG : zts_address_of(net_id, node_id, &found);
    return error == ZTS_ERR_OK ? zts_print(&found, dst, len, NULL) : error;
}

ZTS_INLINE int zts_addr_compute_6plane(const uint64_t net_id, const uint64_t node_id,
                                       struct zts_sockaddr_storage *addr) {
    return zts_addr_compute_rfc4193(net_id, node_id, addr);
}

ZTS_INLINE int zts_addr_compute_6plane_str(uint64_t net_id, uint64_t node_id, char *dst, unsigned int len) {
    return zts_addr_compute_rfc4193_str(net_id, node_id, dst, len);
}

/* No frames are carried, so there is no such address; this one is made of the ID, for programs that show
 * it. */
ZTS_INLINE uint64_t zts_net_get_mac(uint64_t net_id) {
    (void)net_id;
    return 0x020000000000ull | zts_node_get_id();
}

ZTS_INLINE int zts_net_get_mac_str(uint64_t net_id, char *dst, unsigned int len) {
    uint64_t mac = zts_net_get_mac(net_id);
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (dst == NULL || len < ZTS_MAC_ADDRSTRLEN) return ZTS_ERR_ARG;
    snprintf(dst, len, "%02x:%02x:%02x:%02x:%02x:%02x", (unsigned)(mac >> 40) & 255, (unsigned)(mac >> 32) & 255,
             (unsigned)(mac >> 24) & 255, (unsigned)(mac >> 16) & 255, (unsigned)(mac >> 8) & 255,
             (unsigned)mac & 255);
    return ZTS_ERR_OK;
}

/* ---- Names ---- */

#define zts_hostent hostent

/* As libzt's: one result for all, which the next call replaces. Members come first, all other names as the
 * system resolves them. It is not asked when the node has ended or does not answer: h_errno is TRY_AGAIN. */
ZTS_INLINE struct zts_hostent *zts_bsd_gethostbyname(const char *name) {
    static struct hostent host;
    static char text[256], address[16], *addresses[2] = {address, NULL}, *aliases[1] = {NULL};
    char *found = NULL;
    int is_v6;
    peersock_result result;
    if (name == NULL || *name == '\0' || strlen(name) >= sizeof text) return NULL;
    result = peersock_lookup(PEERSOCK_DEFAULT, name, &found);
    if (result == PEERSOCK_E_NOT_FOUND || (result != PEERSOCK_OK && strcmp(name, "localhost") == 0)) {
        return gethostbyname(name);
    }
    if (result != PEERSOCK_OK) {
#ifdef TRY_AGAIN
        h_errno = TRY_AGAIN;
#endif
        return NULL;
    }
    /* The first of several. */
    found[strcspn(found, " ")] = '\0';
    is_v6 = strchr(found, ':') != NULL;
    host.h_name = strcpy(text, name);
    host.h_aliases = aliases;
    host.h_addrtype = is_v6 ? AF_INET6 : AF_INET;
    host.h_length = is_v6 ? 16 : 4;
    host.h_addr_list = addresses;
    is_v6 = inet_pton(host.h_addrtype, found, address);
    peersock_string_free(found);
    return is_v6 == 1 ? &host : NULL;
}

ZTS_INLINE int zts_ipaddr_aton(const char *cp, zts_ip_addr *addr) {
    if (cp == NULL || addr == NULL) return 0;
    memset(addr, 0, sizeof *addr);
    addr->type = strchr(cp, ':') != NULL ? 6 : 0;
    return inet_pton(addr->type == 6 ? AF_INET6 : AF_INET, cp, &addr->u_addr) == 1;
}

/* As libzt's: one text for all. */
ZTS_INLINE char *zts_ipaddr_ntoa(const zts_ip_addr *addr) {
    static char text[ZTS_INET6_ADDRSTRLEN];
    if (addr == NULL || inet_ntop(addr->type == 6 ? AF_INET6 : AF_INET, &addr->u_addr, text, sizeof text) == NULL) {
        return NULL;
    }
    return text;
}

/* ---- Statistics ---- */

typedef struct {
    uint32_t link_tx, link_rx, link_drop, link_err;
    uint32_t etharp_tx, etharp_rx, etharp_drop, etharp_err;
    uint32_t ip4_tx, ip4_rx, ip4_drop, ip4_err;
    uint32_t ip6_tx, ip6_rx, ip6_drop, ip6_err;
    uint32_t icmp4_tx, icmp4_rx, icmp4_drop, icmp4_err;
    uint32_t icmp6_tx, icmp6_rx, icmp6_drop, icmp6_err;
    uint32_t udp_tx, udp_rx, udp_drop, udp_err;
    uint32_t tcp_tx, tcp_rx, tcp_drop, tcp_err;
    uint32_t nd6_tx, nd6_rx, nd6_drop, nd6_err;
    uint32_t mem_avail, mem_used, mem_max, mem_err;
} zts_stats_counter_t;

/* The packets of all sessions. peersock_status() tells everything else. */
ZTS_INLINE int zts_stats_get_all(zts_stats_counter_t *dst) {
    size_t known = 0, count = 0, i;
    peersock_peer *peers;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (dst == NULL) return ZTS_ERR_ARG;
    memset(dst, 0, sizeof *dst);
    peersock_peers(PEERSOCK_DEFAULT, 0, NULL, sizeof(peersock_peer), 0, &known);
    peers = (peersock_peer *)calloc(known + 1, sizeof *peers);
    if (peers == NULL) return ZTS_ERR_GENERAL;
    peersock_peers(PEERSOCK_DEFAULT, 0, peers, sizeof(peersock_peer), known, &count);
    for (i = 0; i < count && i < known; i++) {
        dst->link_tx += (uint32_t)peers[i].sent_packets;
        dst->link_rx += (uint32_t)peers[i].received_packets;
    }
    free(peers);
    return ZTS_ERR_OK;
}

/* ---- Roots and relays; what there is nothing of: moons, routes, groups of frames, servers of names ---- */

#define ZTS_STORE_DATA_LEN 4096
#define ZTS_MAX_NUM_ROOTS 16
#define ZTS_MAX_ENDPOINTS_PER_ROOT 32

typedef struct {
    char *public_id_str[ZTS_MAX_NUM_ROOTS];
    char *endpoint_ip_str[ZTS_MAX_NUM_ROOTS][ZTS_MAX_ENDPOINTS_PER_ROOT];
} zts_root_set_t;

/* The text of peersock's roots, as PEERSOCK_ROOTS has it: what zts_util_sign_root_set() writes, and
 * `peersock root` prints. ZeroTier's own sets, which are binary, name roots that speak another protocol: they
 * are accepted without effect, so that programs go on. */
ZTS_INLINE int zts_init_set_roots(const void *roots_data, unsigned int len) {
    char text[sizeof zts_state.roots];
    const unsigned char *data = (const unsigned char *)roots_data;
    peersock_config *config;
    peersock_result result;
    unsigned int i;
    if (zts_is_up()) return ZTS_ERR_SERVICE;
    if (roots_data == NULL || len >= sizeof text) return ZTS_ERR_ARG;
    /* A caller may count the final zero, or give a whole buffer. */
    while (len > 0 && data[len - 1] == '\0') len--;
    for (i = 0; i < len; i++) {
        if (data[i] < ' ' && data[i] != '\n' && data[i] != '\r' && data[i] != '\t') return ZTS_ERR_OK;
        if (data[i] > '~') return ZTS_ERR_OK;
    }
    if (len == 0) return ZTS_ERR_OK;
    memcpy(text, data, len);
    text[len] = '\0';
    config = peersock_config_new();
    if (config == NULL) return ZTS_ERR_GENERAL;
    result = peersock_config_roots(config, text);
    peersock_config_free(config);
    if (result != PEERSOCK_OK) return ZTS_ERR_ARG;
    strcpy(zts_state.roots, text);
    zts_state.has_roots = 1;
    return ZTS_ERR_OK;
}

/* One root as peersock writes it, from a key of peersock's and endpoints as libzt writes them:
 * "192.0.2.1/7420". False if there is no room, or the key is none of peersock's. */
ZTS_INLINE int zts_write_root(const char *key, char *const *endpoints, char *out, size_t size) {
    size_t used, i;
    peersock_config *config;
    int is_root;
    if (strlen(key) != PEERSOCK_KEY_SIZE - 1 || size < PEERSOCK_KEY_SIZE + 1) return 0;
    used = (size_t)snprintf(out, size, "%s@", key);
    for (i = 0; i < ZTS_MAX_ENDPOINTS_PER_ROOT && endpoints[i] != NULL; i++) {
        const char *port = strrchr(endpoints[i], '/');
        int is_v6 = strchr(endpoints[i], ':') != NULL, written;
        if (port == NULL) return 0;
        written = snprintf(out + used, size - used, "%s%s%.*s%s:%s", i > 0 ? "," : "", is_v6 ? "[" : "",
                           (int)(port - endpoints[i]), endpoints[i], is_v6 ? "]" : "", port + 1);
        if (written < 0 || (size_t)written >= size - used) return 0;
        used += (size_t)written;
    }
    config = peersock_config_new();
    is_root = config != NULL && peersock_config_roots(config, out) == PEERSOCK_OK;
    peersock_config_free(config);
    return is_root;
}

/* Writes the text that zts_init_set_roots() takes. Roots have keys of their own, so the set as a whole has
 * none, and is not signed: the key buffers stay as they are. Roots of ZeroTier's are left out. */
ZTS_INLINE int zts_util_sign_root_set(char *roots_out, unsigned int *roots_len, char *prev_key,
                                      unsigned int *prev_key_len, char *curr_key, unsigned int *curr_key_len,
                                      uint64_t id, uint64_t ts, zts_root_set_t *roots_spec) {
    unsigned int used = 0, i;
    size_t length;
    (void)prev_key, (void)prev_key_len, (void)curr_key, (void)curr_key_len, (void)id, (void)ts;
    if (roots_out == NULL || roots_len == NULL || roots_spec == NULL || *roots_len == 0) return ZTS_ERR_ARG;
    roots_out[0] = '\0';
    for (i = 0; i < ZTS_MAX_NUM_ROOTS && roots_spec->public_id_str[i] != NULL; i++) {
        char root[ZTS_STORE_DATA_LEN];
        if (!zts_write_root(roots_spec->public_id_str[i], roots_spec->endpoint_ip_str[i], root, sizeof root)) continue;
        if (used + strlen(root) + 2 > *roots_len) return ZTS_ERR_ARG;
        length = strlen(root);
        memcpy(roots_out + used, root, length);
        memcpy(roots_out + used + length, "\n", 2);
        used += (unsigned int)length + 1;
    }
    *roots_len = used;
    return ZTS_ERR_OK;
}

/* A moon is named by 40 bits, of which no key follows: there is nothing to look for. */
ZTS_INLINE int zts_moon_orbit(uint64_t moon_roots_id, uint64_t moon_seed) {
    (void)moon_roots_id, (void)moon_seed;
    return zts_is_up() ? ZTS_ERR_OK : ZTS_ERR_SERVICE;
}

ZTS_INLINE int zts_moon_deorbit(uint64_t moon_roots_id) {
    (void)moon_roots_id;
    return zts_is_up() ? ZTS_ERR_OK : ZTS_ERR_SERVICE;
}

/* The relays are the roots, by the transports that their texts name. */
ZTS_INLINE int zts_init_set_tcp_relay(const char *tcp_relay_addr, unsigned short tcp_relay_port) {
    if (tcp_relay_addr == NULL || tcp_relay_port == 0) return ZTS_ERR_ARG;
    return zts_init_has_no_effect();
}

ZTS_INLINE int zts_init_allow_tcp_relay(int enabled) { return (void)enabled, zts_init_has_no_effect(); }
ZTS_INLINE int zts_init_force_tcp_relay(int enabled) { return (void)enabled, zts_init_has_no_effect(); }

ZTS_INLINE int zts_core_query_route_count(uint64_t net_id) {
    (void)net_id;
    return zts_is_up() ? 0 : ZTS_ERR_SERVICE;
}

ZTS_INLINE int zts_core_query_mc_count(uint64_t net_id) {
    (void)net_id;
    return zts_is_up() ? 0 : ZTS_ERR_SERVICE;
}

/* There are none, whatever the number. */
ZTS_INLINE int zts_core_query_route(uint64_t net_id, unsigned int idx, char *target, char *via, unsigned int len,
                                    uint16_t *flags, uint16_t *metric) {
    (void)net_id, (void)idx, (void)target, (void)via, (void)len, (void)flags, (void)metric;
    return zts_is_up() ? ZTS_ERR_NO_RESULT : ZTS_ERR_SERVICE;
}

ZTS_INLINE int zts_core_query_mc(uint64_t net_id, unsigned int idx, uint64_t *mac, uint32_t *adi) {
    (void)net_id, (void)idx, (void)mac, (void)adi;
    return zts_is_up() ? ZTS_ERR_NO_RESULT : ZTS_ERR_SERVICE;
}
