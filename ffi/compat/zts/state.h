/* What a program has set before its node starts; identities, the node, and events. Part of
 * ZeroTierSockets.h. */

struct zts_state {
    char storage[4096];
    char blacklist[16][IF_NAMESIZE];
    unsigned int blacklisted;
    uint8_t seed[PEERSOCK_SEED_SIZE];
    int has_seed;
    uint16_t port;
    void (*handler)(void *);
    pthread_mutex_t handling;
    char roots[4097];
    int has_roots;
};

/* One in a program, though several of its files include this. */
__attribute__((weak)) struct zts_state zts_state = {{0}, {{0}}, 0, {0}, 0, 0, NULL, PTHREAD_MUTEX_INITIALIZER, {0}, 0};

/* The first 40 bits of a node's ID. */
ZTS_INLINE uint64_t zts_short_id(const char *id) {
    char digits[11] = {0};
    memcpy(digits, id, 10);
    return strtoull(digits, NULL, 16);
}

ZTS_INLINE int zts_is_up(void) { return peersock_is_running(PEERSOCK_DEFAULT); }

/* The error of libzt for one of a node call. */
ZTS_INLINE int zts_error_of(peersock_result result) {
    switch (result) {
    case PEERSOCK_OK: return ZTS_ERR_OK;
    case PEERSOCK_E_DOWN: return ZTS_ERR_SERVICE;
    case PEERSOCK_E_INVALID:
    case PEERSOCK_E_SPACE: return ZTS_ERR_ARG;
    case PEERSOCK_E_NOT_FOUND: return ZTS_ERR_NO_RESULT;
    default: return ZTS_ERR_GENERAL;
    }
}

/* ---- Addresses, in libzt's form and the platform's ---- */

ZTS_INLINE void zts_from_native(const struct sockaddr_storage *from, struct zts_sockaddr_storage *to) {
    memset(to, 0, sizeof *to);
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)from;
        struct zts_sockaddr_in *out = (struct zts_sockaddr_in *)to;
        out->sin_len = sizeof *out;
        out->sin_family = ZTS_AF_INET;
        out->sin_port = in->sin_port;
        out->sin_addr.s_addr = in->sin_addr.s_addr;
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)from;
        struct zts_sockaddr_in6 *out = (struct zts_sockaddr_in6 *)to;
        out->sin6_len = sizeof *out;
        out->sin6_family = ZTS_AF_INET6;
        out->sin6_port = in->sin6_port;
        memcpy(&out->sin6_addr, &in->sin6_addr, sizeof in->sin6_addr);
    }
}

/* Its length, or 0 if it is no address. */
ZTS_INLINE socklen_t zts_to_native(const struct zts_sockaddr *from, zts_socklen_t length, struct sockaddr_storage *to) {
    memset(to, 0, sizeof *to);
    if (from == NULL || length < 2) return 0;
    if (from->sa_family == ZTS_AF_INET && length >= sizeof(struct zts_sockaddr_in)) {
        struct zts_sockaddr_in in;
        struct sockaddr_in *out = (struct sockaddr_in *)to;
        memcpy(&in, from, sizeof in);
        out->sin_family = AF_INET;
        out->sin_port = in.sin_port;
        out->sin_addr.s_addr = in.sin_addr.s_addr;
        return sizeof *out;
    }
    if (from->sa_family == ZTS_AF_INET6 && length >= sizeof(struct zts_sockaddr_in6)) {
        struct zts_sockaddr_in6 in;
        struct sockaddr_in6 *out = (struct sockaddr_in6 *)to;
        memcpy(&in, from, sizeof in);
        out->sin6_family = AF_INET6;
        out->sin6_port = in.sin6_port;
        memcpy(&out->sin6_addr, &in.sin6_addr, sizeof out->sin6_addr);
        return sizeof *out;
    }
    return 0;
}

/* Reads an address as text. */
ZTS_INLINE socklen_t zts_parse(const char *text, unsigned short port, struct sockaddr_storage *to) {
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    memset(to, 0, sizeof *to);
    if (text == NULL) return 0;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return sizeof *v4;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return sizeof *v6;
    }
    return 0;
}

ZTS_INLINE int zts_print(const struct sockaddr_storage *from, char *text, size_t length, unsigned short *port) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
    const void *ip = from->ss_family == AF_INET ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr;
    if (text == NULL || inet_ntop(from->ss_family, ip, text, (socklen_t)length) == NULL) return ZTS_ERR_ARG;
    if (port != NULL) *port = ntohs(from->ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
    return ZTS_ERR_OK;
}

/* ---- Events ---- */

/* One call at a time. */
ZTS_INLINE void zts_tell(zts_event_msg_t *message) {
    pthread_mutex_lock(&zts_state.handling);
    if (zts_state.handler != NULL) zts_state.handler(message);
    pthread_mutex_unlock(&zts_state.handling);
}

ZTS_INLINE uint64_t zts_node_get_id(void) {
    char id[PEERSOCK_ID_SIZE];
    return peersock_id(PEERSOCK_DEFAULT, id, sizeof id) == PEERSOCK_OK ? zts_short_id(id) : 0;
}

ZTS_INLINE int zts_node_get_port(void) {
    uint16_t port;
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    return peersock_udp_port(PEERSOCK_DEFAULT, &port) == PEERSOCK_OK ? port : (int)ZTS_ERR_GENERAL;
}

ZTS_INLINE void zts_tell_node(int16_t code) {
    zts_node_info_t node;
    zts_event_msg_t message;
    memset(&node, 0, sizeof node);
    memset(&message, 0, sizeof message);
    if (zts_is_up()) {
        node.node_id = zts_node_get_id();
        node.port_primary = (uint16_t)zts_node_get_port();
    }
    message.event_code = code;
    message.node = &node;
    message.len = sizeof node;
    zts_tell(&message);
}

ZTS_INLINE void zts_tell_network(int16_t code, uint64_t net_id) {
    zts_event_msg_t message;
    zts_addr_info_t address;
    struct sockaddr_storage native[ZTS_MAX_ASSIGNED_ADDRESSES];
    size_t count = 0, i;
    int wanted = code == ZTS_EVENT_ADDR_ADDED_IP4 ? AF_INET : AF_INET6;
    zts_net_info_t *network = (zts_net_info_t *)calloc(1, sizeof *network);
    if (network == NULL) return;
    memset(&message, 0, sizeof message);
    memset(&address, 0, sizeof address);
    network->net_id = address.net_id = net_id;
    network->status = code == ZTS_EVENT_NETWORK_REQ_CONFIG      ? ZTS_NETWORK_STATUS_REQUESTING_CONFIGURATION
                      : code == ZTS_EVENT_NETWORK_ACCESS_DENIED ? ZTS_NETWORK_STATUS_ACCESS_DENIED
                                                                : ZTS_NETWORK_STATUS_OK;
    if (peersock_addresses(PEERSOCK_DEFAULT, net_id, native, ZTS_MAX_ASSIGNED_ADDRESSES, &count) == PEERSOCK_OK) {
        if (count > ZTS_MAX_ASSIGNED_ADDRESSES) count = ZTS_MAX_ASSIGNED_ADDRESSES;
        network->assigned_addr_count = (unsigned int)count;
        for (i = 0; i < count; i++) {
            zts_from_native(&native[i], &network->assigned_addrs[i]);
            if (native[i].ss_family == wanted) zts_from_native(&native[i], &address.addr);
        }
    }
    message.event_code = code;
    message.network = network;
    message.addr = code >= ZTS_EVENT_ADDR_ADDED_IP4 && code <= ZTS_EVENT_ADDR_REMOVED_IP6 ? &address : NULL;
    zts_tell(&message);
    free(network);
}

ZTS_INLINE void zts_on_event(const peersock_event *event, void *context) {
    zts_event_msg_t message;
    zts_peer_info_t *peer;
    (void)context;
    if (event->kind == PEERSOCK_NODE_STOPPED) {
        zts_tell_node(ZTS_EVENT_NODE_DOWN);
        return;
    }
    peer = (zts_peer_info_t *)calloc(1, sizeof *peer);
    if (peer == NULL) return;
    memset(&message, 0, sizeof message);
    peer->peer_id = zts_short_id(event->peer);
    message.peer = peer;
    message.len = sizeof *peer;
    switch (event->kind) {
    case PEERSOCK_PEER_REACHABLE:
        message.event_code = event->relayed ? ZTS_EVENT_PEER_RELAY : ZTS_EVENT_PEER_DIRECT;
        break;
    case PEERSOCK_PATH_CHANGED:
        message.event_code = event->relayed ? ZTS_EVENT_PEER_RELAY : ZTS_EVENT_PEER_PATH_DISCOVERED;
        break;
    case PEERSOCK_PEER_LOST: message.event_code = ZTS_EVENT_PEER_PATH_DEAD; break;
    case PEERSOCK_PEER_UNREACHABLE: message.event_code = ZTS_EVENT_PEER_UNREACHABLE; break;
    default: break;
    }
    if (message.event_code != 0) zts_tell(&message);
    free(peer);
}

/* ---- Before the node starts ---- */

ZTS_INLINE int zts_init_from_storage(const char *path) {
    if (zts_is_up()) return ZTS_ERR_SERVICE;
    if (path == NULL || path[0] == '\0' || strlen(path) >= sizeof zts_state.storage) return ZTS_ERR_ARG;
    strcpy(zts_state.storage, path);
    return ZTS_ERR_OK;
}

/* Reads what zts_id_new() has written. */
ZTS_INLINE int zts_read_key(const char *key, unsigned int len, uint8_t *seed) {
    static const char begin[] = "peersock-identity 1 ";
    unsigned int at = sizeof begin - 1, i;
    if (key == NULL || len < at + 64 || memcmp(key, begin, at) != 0) return ZTS_ERR_ARG;
    for (i = 0; i < 32; i++) {
        unsigned int octet;
        if (sscanf(key + at + 2 * i, "%2x", &octet) != 1) return ZTS_ERR_ARG;
        seed[i] = (uint8_t)octet;
    }
    return ZTS_ERR_OK;
}

ZTS_INLINE int zts_write_key(const uint8_t *seed, char *key, unsigned int *len) {
    int written = snprintf(key, ZTS_ID_STR_BUF_LEN, "peersock-identity 1 "), i;
    for (i = 0; i < 32; i++) written += snprintf(key + written, 3, "%02x", seed[i]);
    *len = (unsigned int)written;
    return ZTS_ERR_OK;
}

ZTS_INLINE int zts_id_new(char *key, unsigned int *key_buf_len) {
    uint8_t seed[PEERSOCK_SEED_SIZE];
    if (key == NULL || key_buf_len == NULL || *key_buf_len != ZTS_ID_STR_BUF_LEN) return ZTS_ERR_ARG;
    if (peersock_identity_generate(seed, sizeof seed) != PEERSOCK_OK) return ZTS_ERR_GENERAL;
    return zts_write_key(seed, key, key_buf_len);
}

/* 1 if it is one. */
ZTS_INLINE int zts_id_pair_is_valid(const char *key, unsigned int len) {
    uint8_t seed[PEERSOCK_SEED_SIZE];
    return zts_read_key(key, len, seed) == ZTS_ERR_OK;
}

ZTS_INLINE int zts_init_from_memory(const char *key, unsigned int len) {
    if (zts_is_up()) return ZTS_ERR_SERVICE;
    if (zts_read_key(key, len, zts_state.seed) != ZTS_ERR_OK) return ZTS_ERR_ARG;
    zts_state.has_seed = 1;
    return ZTS_ERR_OK;
}

ZTS_INLINE int zts_init_set_event_handler(void (*callback)(void *)) {
    if (zts_is_up()) return ZTS_ERR_SERVICE;
    if (callback == NULL) return ZTS_ERR_ARG;
    zts_state.handler = callback;
    return ZTS_ERR_OK;
}

ZTS_INLINE int zts_init_set_port(unsigned short port) {
    if (zts_is_up()) return ZTS_ERR_SERVICE;
    zts_state.port = port;
    return ZTS_ERR_OK;
}

ZTS_INLINE int zts_init_blacklist_if(const char *prefix, unsigned int len) {
    if (zts_is_up()) return ZTS_ERR_SERVICE;
    if (prefix == NULL || len == 0 || len >= IF_NAMESIZE || zts_state.blacklisted == 16) return ZTS_ERR_ARG;
    memcpy(zts_state.blacklist[zts_state.blacklisted], prefix, len);
    zts_state.blacklist[zts_state.blacklisted++][len] = '\0';
    return ZTS_ERR_OK;
}

/* Settings that peersock decides by itself, or has nothing of. */
ZTS_INLINE int zts_init_has_no_effect(void) { return zts_is_up() ? ZTS_ERR_SERVICE : ZTS_ERR_OK; }
ZTS_INLINE int zts_init_set_random_port_range(unsigned short start_port, unsigned short end_port) {
    return (void)start_port, (void)end_port, zts_init_has_no_effect();
}
ZTS_INLINE int zts_init_allow_secondary_port(unsigned int allowed) { return (void)allowed, zts_init_has_no_effect(); }
ZTS_INLINE int zts_init_allow_port_mapping(unsigned int allowed) { return (void)allowed, zts_init_has_no_effect(); }
ZTS_INLINE int zts_init_allow_net_cache(unsigned int allowed) { return (void)allowed, zts_init_has_no_effect(); }
ZTS_INLINE int zts_init_allow_peer_cache(unsigned int allowed) { return (void)allowed, zts_init_has_no_effect(); }
ZTS_INLINE int zts_init_allow_roots_cache(unsigned int allowed) { return (void)allowed, zts_init_has_no_effect(); }
ZTS_INLINE int zts_init_allow_id_cache(unsigned int allowed) { return (void)allowed, zts_init_has_no_effect(); }
ZTS_INLINE int zts_init_set_low_bandwidth_mode(int enabled) { return (void)enabled, zts_init_has_no_effect(); }

/* ---- The node ---- */

/* The interfaces without those that were refused, as names with commas between them. */
ZTS_INLINE peersock_result zts_choose_interfaces(peersock_config *config) {
    char names[1024] = "";
    struct if_nameindex *list = if_nameindex(), *one;
    if (list == NULL) return PEERSOCK_E_SYSTEM;
    for (one = list; one->if_name != NULL; one++) {
        unsigned int i, refused = 0;
        for (i = 0; i < zts_state.blacklisted; i++) {
            refused |= strncmp(one->if_name, zts_state.blacklist[i], strlen(zts_state.blacklist[i])) == 0;
        }
        if (refused || strlen(names) + strlen(one->if_name) + 2 > sizeof names) continue;
        if (names[0] != '\0') strcat(names, ",");
        strcat(names, one->if_name);
    }
    if_freenameindex(list);
    return peersock_config_interfaces(config, names);
}

ZTS_INLINE int zts_node_start(void) {
    peersock_result result;
    peersock_config *config;
    if (zts_is_up()) return ZTS_ERR_SERVICE;
    config = peersock_config_new();
    if (config == NULL) return ZTS_ERR_GENERAL;
    if (zts_state.has_seed) {
        result = peersock_config_seed(config, zts_state.seed, sizeof zts_state.seed);
    } else if (zts_state.storage[0] != '\0') {
        result = peersock_config_state_dir(config, zts_state.storage);
    } else {
        /* Kept nowhere, but zts_node_get_id_pair() has it. */
        result = peersock_identity_generate(zts_state.seed, sizeof zts_state.seed);
        zts_state.has_seed = result == PEERSOCK_OK;
        if (result == PEERSOCK_OK) result = peersock_config_seed(config, zts_state.seed, sizeof zts_state.seed);
    }
    if (result == PEERSOCK_OK) result = peersock_config_port(config, zts_state.port);
    if (result == PEERSOCK_OK && zts_state.has_roots) result = peersock_config_roots(config, zts_state.roots);
    if (result == PEERSOCK_OK && zts_state.blacklisted > 0) result = zts_choose_interfaces(config);
    if (result == PEERSOCK_OK) result = peersock_start(config, NULL);
    peersock_config_free(config);
    if (result == PEERSOCK_OK && zts_state.handler != NULL) {
        result = peersock_on_event(PEERSOCK_DEFAULT, zts_on_event, NULL);
        zts_tell_node(ZTS_EVENT_NODE_UP);
        zts_tell_node(ZTS_EVENT_NODE_ONLINE);
    }
    return result == PEERSOCK_OK ? ZTS_ERR_OK : ZTS_ERR_GENERAL;
}

ZTS_INLINE int zts_node_is_online(void) { return zts_is_up(); }

ZTS_INLINE int zts_node_get_id_pair(char *key, unsigned int *key_dst_len) {
    char path[sizeof zts_state.storage + 16];
    uint8_t seed[PEERSOCK_SEED_SIZE];
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    if (key == NULL || key_dst_len == NULL || *key_dst_len != ZTS_ID_STR_BUF_LEN) return ZTS_ERR_ARG;
    if (zts_state.has_seed) return zts_write_key(zts_state.seed, key, key_dst_len);
    snprintf(path, sizeof path, "%s/identity.key", zts_state.storage);
    if (peersock_identity_load(path, seed, sizeof seed) != PEERSOCK_OK) {
        return ZTS_ERR_NO_RESULT;
    }
    return zts_write_key(seed, key, key_dst_len);
}

ZTS_INLINE int zts_node_stop(void) {
    if (!zts_is_up()) return ZTS_ERR_SERVICE;
    peersock_stop(PEERSOCK_DEFAULT, 5000);
    return ZTS_ERR_OK;
}

/* Unlike libzt's, a node can be started again after this. */
ZTS_INLINE int zts_node_free(void) { return zts_node_stop(); }
