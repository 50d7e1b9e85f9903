// Joins a managed network in libzt's manner, which knows no invites: libzt_managed STORAGE ID. It says when it waits,
// and its IPv4 address once somebody has admitted it.
#include "libzt_common.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int requests, admissions, refusals, addresses;

static void on_event(void *message_pointer) {
    zts_event_msg_t *message = message_pointer;
    pthread_mutex_lock(&lock);
    switch (message->event_code) {
    case ZTS_EVENT_NETWORK_REQ_CONFIG:
        CHECK(message->network->status == ZTS_NETWORK_STATUS_REQUESTING_CONFIGURATION);
        requests++;
        break;
    case ZTS_EVENT_NETWORK_OK: admissions += message->network->status == ZTS_NETWORK_STATUS_OK; break;
    case ZTS_EVENT_NETWORK_ACCESS_DENIED: refusals++; break;
    case ZTS_EVENT_ADDR_ADDED_IP4: addresses += message->addr->addr.ss_family == ZTS_AF_INET; break;
    default: break;
    }
    pthread_mutex_unlock(&lock);
}

static int seen(const int *events) {
    pthread_mutex_lock(&lock);
    int count = *events;
    pthread_mutex_unlock(&lock);
    return count;
}

int main(int count, char **words) {
    char address[ZTS_IP_MAX_STR_LEN];
    CHECK(count == 3 && zts_init_from_storage(words[1]) == ZTS_ERR_OK);
    uint64_t net_id = strtoull(words[2], NULL, 16);
    CHECK(zts_init_set_event_handler(on_event) == ZTS_ERR_OK);
    use_loopback();
    CHECK(zts_net_get_status(net_id) == ZTS_ERR_SERVICE && zts_node_start() == ZTS_ERR_OK);
    CHECK(zts_net_get_status(net_id) < 0 && !zts_net_transport_is_ready(net_id));
    CHECK(zts_net_join(net_id) == ZTS_ERR_OK && zts_net_join(net_id) == ZTS_ERR_OK);
    if (!zts_net_transport_is_ready(net_id)) {
        CHECK(zts_net_get_status(net_id) == ZTS_NETWORK_STATUS_REQUESTING_CONFIGURATION && seen(&requests) == 1);
        printf("waits\n");
        fflush(stdout);
    }
    while (zts_net_get_status(net_id) == ZTS_NETWORK_STATUS_REQUESTING_CONFIGURATION) zts_util_delay(20);
    if (zts_net_get_status(net_id) == ZTS_NETWORK_STATUS_ACCESS_DENIED) {
        while (seen(&refusals) == 0) zts_util_delay(20);
        CHECK(seen(&admissions) == 0);
        printf("denied\n");
        return zts_node_stop() == ZTS_ERR_OK ? 0 : 1;
    }
    CHECK(zts_net_get_status(net_id) == ZTS_NETWORK_STATUS_OK && zts_net_transport_is_ready(net_id));
    CHECK(zts_net_get_type(net_id) == ZTS_NETWORK_TYPE_PRIVATE);
    CHECK(zts_addr_get_str(net_id, ZTS_AF_INET, address, sizeof address) == ZTS_ERR_OK);
    while (seen(&admissions) == 0 || seen(&addresses) == 0) zts_util_delay(20);
    CHECK(seen(&admissions) == 1 && seen(&addresses) == 1 && seen(&refusals) == 0);
    printf("%s\n", address);
    return zts_node_stop() == ZTS_ERR_OK ? 0 : 1;
}
