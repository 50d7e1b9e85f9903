// The native part: calls of the node on libuv's threads, socket calls, which never wait, and waiting for
// descriptors. Those that fail give a negative errno. index.js checks what it is given.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define NAPI_VERSION 8
#include <node_api.h>
#include <peersock.h>

#define FUNCTION(name) static napi_value name(napi_env env, napi_callback_info info)
#define ARGUMENTS(count)                                                                                     \
    napi_value a[count];                                                                                     \
    napi_get_cb_info(env, info, &(size_t){count}, a, NULL, NULL)

static int integer(napi_env env, napi_value value) {
    int32_t number = 0;
    napi_get_value_int32(env, value, &number);
    return number;
}

// A copy of a text, NULL of what is none.
static char *text(napi_env env, napi_value value) {
    size_t length;
    if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) return NULL;
    char *copy = malloc(length + 1);
    if (copy) napi_get_value_string_utf8(env, value, copy, length + 1, &length);
    return copy;
}

static napi_value number(napi_env env, int64_t number) {
    napi_value value;
    napi_create_int64(env, number, &value);
    return value;
}

static napi_value string(napi_env env, const char *text) {
    napi_value value;
    napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
    return value;
}

static napi_value result(napi_env env, int64_t n) { return number(env, n < 0 ? -errno : n); }

// A node that is started, or stopped if there is no configuration.
struct job {
    napi_async_work work;
    napi_deferred deferred;
    peersock_config *config;
    char *network, *secret, error[512];
    peersock_node node;
    peersock_result result;
};

static void perform(napi_env env, void *data) {
    struct job *job = data;
    (void)env;
    if (!job->config) job->result = peersock_stop(job->node, 5000);
    if (job->config && !job->result) job->result = peersock_start(job->config, &job->node);
    if (job->config && !job->result && job->network) {
        char *end;
        uint64_t id = strtoull(job->network, &end, 16);
        bool is_id = strlen(job->network) == 16 && !*end;
        job->result = is_id ? peersock_join(job->node, id, job->secret)
                            : peersock_join_file(job->node, job->network, NULL);
    }
    if (!job->result) return;
    // The text is the thread's.
    if (!job->error[0]) snprintf(job->error, sizeof job->error, "%s", peersock_last_error());
    if (job->config && job->node) peersock_stop(job->node, 0);
}

// Gives what has come of it: [result, node, text].
static void finish(napi_env env, napi_status status, void *data) {
    struct job *job = data;
    napi_value values;
    (void)status;
    napi_create_array(env, &values);
    napi_set_element(env, values, 0, number(env, job->result));
    napi_set_element(env, values, 1, number(env, job->node));
    napi_set_element(env, values, 2, string(env, job->error));
    napi_resolve_deferred(env, job->deferred, values);
    napi_delete_async_work(env, job->work);
    peersock_config_free(job->config);
    free(job->network);
    free(job->secret);
    free(job);
}

static napi_value begin(napi_env env, struct job *job) {
    napi_value promise;
    napi_create_promise(env, &job->deferred, &promise);
    napi_create_async_work(env, NULL, string(env, "peersock"), perform, finish, job, &job->work);
    napi_queue_async_work(env, job->work);
    return promise;
}

// open(network, secret, seed, port, discoveryPort, discovery, state, interfaces, roots, turn)
FUNCTION(open_node) {
    ARGUMENTS(10);
    static peersock_result (*const set[])(peersock_config *, const char *) = {
        peersock_config_state_dir, peersock_config_interfaces, peersock_config_roots, peersock_config_turn};
    struct job *job = calloc(1, sizeof *job);
    void *seed;
    size_t size;
    job->config = peersock_config_new();
    job->network = text(env, a[0]);
    job->secret = text(env, a[1]);
    bool has_seed = napi_get_typedarray_info(env, a[2], NULL, &size, &seed, NULL, NULL) == napi_ok;
    job->result = has_seed ? peersock_config_seed(job->config, seed, size)
                           : peersock_config_ephemeral(job->config);
    if (!job->result) job->result = peersock_config_port(job->config, (uint16_t)integer(env, a[3]));
    if (!job->result && integer(env, a[4]))
        job->result = peersock_config_discovery_port(job->config, (uint16_t)integer(env, a[4]));
    if (!job->result) job->result = peersock_config_discovery(job->config, integer(env, a[5]));
    for (int i = 0; i < 4; i++) {
        char *given = text(env, a[6 + i]);
        if (given && !job->result) job->result = set[i](job->config, given);
        free(given);
    }
    if (job->result) snprintf(job->error, sizeof job->error, "%s", peersock_last_error());
    return begin(env, job);
}

FUNCTION(close_node) {
    ARGUMENTS(1);
    struct job *job = calloc(1, sizeof *job);
    job->node = (peersock_node)integer(env, a[0]);
    return begin(env, job);
}

FUNCTION(status) {
    ARGUMENTS(1);
    char *json = NULL;
    napi_value value = string(env, peersock_status((peersock_node)integer(env, a[0]), &json) ? "{}" : json);
    peersock_string_free(json);
    return value;
}

FUNCTION(last_error) {
    (void)info;
    return string(env, peersock_last_error());
}

// An address of IPv6, or of IPv4 that is mapped. One that is none makes the call fail with EAFNOSUPPORT.
static struct sockaddr_in6 address(napi_env env, napi_value host, napi_value port) {
    struct sockaddr_in6 address = {.sin6_port = htons((uint16_t)integer(env, port))};
    char name[INET6_ADDRSTRLEN] = "";
    napi_get_value_string_utf8(env, host, name, sizeof name, NULL);
    if (inet_pton(AF_INET6, name, &address.sin6_addr) == 1) address.sin6_family = AF_INET6;
    return address;
}

FUNCTION(open_socket) {
    ARGUMENTS(1);
    peersock_node node = (peersock_node)integer(env, a[0]);
    return result(env, peersock_node_socket(node, AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

FUNCTION(set_option) {
    ARGUMENTS(4);
    int level = integer(env, a[1]), option = integer(env, a[2]), value = integer(env, a[3]);
    return result(env, peersock_setsockopt(integer(env, a[0]), level, option, &value, sizeof value));
}

FUNCTION(bind_socket) {
    ARGUMENTS(3);
    struct sockaddr_in6 local = address(env, a[1], a[2]);
    return result(env, peersock_bind(integer(env, a[0]), (struct sockaddr *)&local, sizeof local));
}

FUNCTION(listen_socket) {
    ARGUMENTS(2);
    return result(env, peersock_listen(integer(env, a[0]), integer(env, a[1])));
}

FUNCTION(accept_socket) {
    ARGUMENTS(1);
    return result(env, peersock_accept4(integer(env, a[0]), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

FUNCTION(connect_socket) {
    ARGUMENTS(3);
    struct sockaddr_in6 to = address(env, a[1], a[2]);
    return result(env, peersock_connect(integer(env, a[0]), (struct sockaddr *)&to, sizeof to));
}

// What has come of a connection that was begun: -EINPROGRESS as long as it goes on.
FUNCTION(outcome) {
    ARGUMENTS(1);
    struct pollfd ready = {.fd = integer(env, a[0]), .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof error;
    if (poll(&ready, 1, 0) == 0) return number(env, -EINPROGRESS);
    if (peersock_getsockopt(ready.fd, SOL_SOCKET, SO_ERROR, &error, &size)) error = errno;
    // Without an error it stood, and was reset before anybody looked.
    return number(env, error == 0 && ready.revents & POLLHUP ? -ECONNRESET : -error);
}

// The socket's own address, or that of its peer, as 'ADDRESS PORT'; empty if it has none.
FUNCTION(name) {
    ARGUMENTS(2);
    struct sockaddr_in6 found;
    socklen_t size = sizeof found;
    char host[INET6_ADDRSTRLEN], both[INET6_ADDRSTRLEN + 8];
    int (*call)(int, struct sockaddr *, socklen_t *) = peersock_getsockname;
    if (integer(env, a[1])) call = peersock_getpeername;
    if (call(integer(env, a[0]), (struct sockaddr *)&found, &size)) return string(env, "");
    inet_ntop(AF_INET6, &found.sin6_addr, host, sizeof host);
    snprintf(both, sizeof both, "%s %d", host, ntohs(found.sin6_port));
    return string(env, both);
}

FUNCTION(close_socket) {
    ARGUMENTS(2);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    // Who connects to a listener is refused from now on, and not after the node has looked.
    if (integer(env, a[1])) peersock_connect(integer(env, a[0]), &none, sizeof none);
    return result(env, close(integer(env, a[0])));
}

// A descriptor that libuv polls until unwatch().
struct watch {
    uv_poll_t poll;
    int events;
    napi_env env;
    napi_ref callback;
    napi_async_cleanup_hook_handle hook;
};

static void tell(uv_poll_t *poll, int status, int events) {
    struct watch *watch = poll->data;
    napi_env env = watch->env;
    napi_handle_scope scope;
    napi_value callback, global, error;
    (void)status, (void)events;
    napi_open_handle_scope(env, &scope);
    napi_get_reference_value(env, watch->callback, &callback);
    napi_get_global(env, &global);
    if (napi_make_callback(env, NULL, global, callback, 0, NULL, NULL) == napi_pending_exception) {
        napi_get_and_clear_last_exception(env, &error);
        napi_fatal_exception(env, error);
    }
    // After an error libuv does not poll any more.
    uv_handle_t *handle = (uv_handle_t *)poll;
    if (!uv_is_closing(handle) && !uv_is_active(handle)) uv_poll_start(poll, watch->events, tell);
    napi_close_handle_scope(env, scope);
}

static void closed(uv_handle_t *poll) {
    struct watch *watch = poll->data;
    napi_remove_async_cleanup_hook(watch->hook);
    free(watch);
}

// Also when a worker ends, whose loop must have no handles left.
static void end_watch(napi_async_cleanup_hook_handle hook, void *data) {
    struct watch *watch = data;
    (void)hook;
    if (uv_is_closing((uv_handle_t *)&watch->poll)) return;
    napi_delete_reference(watch->env, watch->callback);
    uv_close((uv_handle_t *)&watch->poll, closed);
}

// watch(fd, writes, callback): gives what unwatch() ends, and hold() says whether the process waits for.
FUNCTION(watch) {
    ARGUMENTS(3);
    struct watch *watch = calloc(1, sizeof *watch);
    uv_loop_t *loop;
    napi_value value;
    watch->env = env;
    watch->events = integer(env, a[1]) ? UV_WRITABLE | UV_DISCONNECT : UV_READABLE;
    napi_get_uv_event_loop(env, &loop);
    int error = uv_poll_init(loop, &watch->poll, integer(env, a[0]));
    if (error) return free(watch), number(env, error);
    watch->poll.data = watch;
    napi_create_reference(env, a[2], 1, &watch->callback);
    napi_add_async_cleanup_hook(env, end_watch, watch, &watch->hook);
    uv_poll_start(&watch->poll, watch->events, tell);
    napi_create_external(env, watch, NULL, NULL, &value);
    return value;
}

FUNCTION(unwatch) {
    ARGUMENTS(1);
    void *watch;
    if (napi_get_value_external(env, a[0], &watch) == napi_ok) end_watch(NULL, watch);
    return NULL;
}

FUNCTION(hold) {
    ARGUMENTS(2);
    void *watch;
    if (napi_get_value_external(env, a[0], &watch) != napi_ok) return NULL;
    (integer(env, a[1]) ? uv_ref : uv_unref)((uv_handle_t *)&((struct watch *)watch)->poll);
    return NULL;
}

NAPI_MODULE_INIT() {
    static const struct { const char *name; napi_callback call; } functions[] = {
        {"open", open_node}, {"stop", close_node}, {"status", status}, {"lastError", last_error},
        {"socket", open_socket}, {"option", set_option}, {"bind", bind_socket}, {"listen", listen_socket},
        {"accept", accept_socket}, {"connect", connect_socket}, {"outcome", outcome}, {"name", name},
        {"close", close_socket}, {"watch", watch}, {"unwatch", unwatch}, {"hold", hold}};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        napi_value function;
        napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL, &function);
        napi_set_named_property(env, exports, functions[i].name, function);
    }
    return exports;
}
