// The native part: calls of the library, and waiting for descriptors by libuv. index.js checks what it is
// given.
#include <arpa/inet.h>
#include <errno.h>
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

// What a call was given: its numbers in their order, a text, bytes. What it gives: a result, which is a
// negative errno if a socket call has failed, and perhaps a text and a number. `given` is the library's text.
struct call {
    int n[5];
    char *text, *found, *given;
    void *data;
    size_t size;
    struct sockaddr_in6 address;
    uint32_t number;
    int64_t result;
    int64_t (*function)(struct call *);
    napi_async_work work;
    napi_deferred deferred;
};

// Keeps the text that the library has given, or that of a failure, which is the thread's.
static int64_t keep(struct call *c, int64_t result) {
    int error = errno;
    c->found = strdup(c->given ? c->given : peersock_last_error());
    peersock_string_free(c->given);
    errno = error;
    return result;
}

// Keeps the address that was found.
static int64_t keep_address(struct call *c, int64_t result) {
    if (result < 0) return result;
    c->found = malloc(INET6_ADDRSTRLEN);
    inet_ntop(AF_INET6, &c->address.sin6_addr, c->found, INET6_ADDRSTRLEN);
    c->number = ntohs(c->address.sin6_port);
    return result;
}

// Sends to a text and the second number, which are an address of IPv6, or of IPv4 and mapped.
static int64_t send_to(struct call *c) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)c->n[1])};
    // Sockets refuse the family of what is no address.
    if (!c->text || inet_pton(AF_INET6, c->text, &to.sin6_addr) != 1) to.sin6_family = AF_MAX;
    return peersock_sendto(c->n[0], c->data, c->size, 0, (struct sockaddr *)&to, sizeof to);
}

// Keeps the JSON that tells who is at the other end of a connection.
static int64_t identify(struct call *c) {
    char json[1025] = "";
    int result = peersock_getsockopt(c->n[0], 0x7073, 1, json, &(socklen_t){sizeof json - 1});
    if (result == 0) c->found = strdup(json);
    return result;
}

// Nothing that these do waits, but for starting and stopping a node.
#define CALL(name, value) static int64_t name(struct call *c) { return value; }
#define NODE (peersock_node)c->n[0]
#define FROM (struct sockaddr *)&c->address, &(socklen_t){sizeof c->address}
#define KIND (c->n[1] | SOCK_NONBLOCK | SOCK_CLOEXEC)
CALL(start_node, keep(c, peersock_open(c->text, &c->number)))
CALL(stop_node, keep(c, peersock_stop(NODE, 5000)))
CALL(status, keep(c, peersock_status(NODE, &c->given)))
CALL(look_up, keep(c, peersock_lookup(NODE, c->text, &c->given)))
CALL(dial, peersock_dial(NODE, AF_UNSPEC, KIND, c->text, (uint16_t)c->n[2]))
CALL(listen_at, keep(c, peersock_listen_at(NODE, AF_UNSPEC, KIND, c->text, (uint16_t)c->n[2], c->n[3])))
CALL(accept_one, peersock_accept4(c->n[0], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC))
CALL(connected, peersock_connected(c->n[0]))
CALL(reason, peersock_reason(c->n[0], c->n[1]))
CALL(set_option, peersock_setsockopt(c->n[0], c->n[1], c->n[2], &c->n[3], sizeof c->n[3]))
CALL(own_name, keep_address(c, peersock_getsockname(c->n[0], FROM)))
CALL(peer_name, keep_address(c, peersock_getpeername(c->n[0], FROM)))
CALL(receive, keep_address(c, peersock_recvfrom(c->n[0], c->data, c->size, 0, FROM)))
// Who connects to a listener is refused from now on, and not after the node has looked.
CALL(unlisten, peersock_connect(c->n[0], &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)))
CALL(close_socket, close(c->n[0]))

static void perform(napi_env env, void *data) {
    struct call *c = data;
    (void)env;
    c->result = c->function(c);
    if (c->result < 0) c->result = -errno;
}

// Gives a call's result, or [result, text, number], and frees it.
static napi_value give(napi_env env, struct call *c) {
    napi_value values[3], array;
    napi_create_int64(env, c->result, &values[0]);
    if (c->found) {
        napi_create_string_utf8(env, c->found, NAPI_AUTO_LENGTH, &values[1]);
        napi_create_uint32(env, c->number, &values[2]);
        napi_create_array(env, &array);
        for (uint32_t i = 0; i < 3; i++) napi_set_element(env, array, i, values[i]);
    }
    napi_value given = c->found ? array : values[0];
    free(c->text);
    free(c->found);
    free(c);
    return given;
}

static void finish(napi_env env, napi_status status, void *data) {
    struct call *c = data;
    napi_deferred deferred = c->deferred;
    (void)status;
    napi_delete_async_work(env, c->work);
    napi_resolve_deferred(env, deferred, give(env, c));
}

// Makes the call that is behind a function: on one of libuv's threads, with a promise, if it may wait.
FUNCTION(make_call) {
    napi_value a[5], name, promise;
    struct call *c = calloc(1, sizeof *c);
    size_t count = 5, numbers = 0, size;
    napi_get_cb_info(env, info, &count, a, NULL, (void **)&c->function);
    for (size_t i = 0; i < count; i++) {
        if (napi_get_value_int32(env, a[i], &c->n[numbers]) == napi_ok) {
            numbers++;
        } else if (napi_get_value_string_utf8(env, a[i], NULL, 0, &size) == napi_ok) {
            c->text = malloc(size + 1);
            napi_get_value_string_utf8(env, a[i], c->text, size + 1, NULL);
        } else {
            napi_get_buffer_info(env, a[i], &c->data, &c->size);
        }
    }
    if (c->function != start_node && c->function != stop_node) return perform(env, c), give(env, c);
    napi_create_string_utf8(env, "peersock", NAPI_AUTO_LENGTH, &name);
    napi_create_promise(env, &c->deferred, &promise);
    napi_create_async_work(env, NULL, name, perform, finish, c, &c->work);
    napi_queue_async_work(env, c->work);
    return promise;
}

static int integer(napi_env env, napi_value value) {
    int32_t number = 0;
    napi_get_value_int32(env, value, &number);
    return number;
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
    // After an error libuv does not poll any more.
    uv_poll_start(poll, watch->events, tell);
    napi_open_handle_scope(env, &scope);
    napi_get_reference_value(env, watch->callback, &callback);
    napi_get_global(env, &global);
    if (napi_make_callback(env, NULL, global, callback, 0, NULL, NULL) == napi_pending_exception) {
        napi_get_and_clear_last_exception(env, &error);
        napi_fatal_exception(env, error);
    }
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

// watch(fd, events, callback): gives what unwatch() ends, and hold() says whether the process waits for.
FUNCTION(watch) {
    ARGUMENTS(3);
    struct watch *watch = calloc(1, sizeof *watch);
    uv_loop_t *loop;
    napi_value value;
    watch->env = env;
    watch->events = integer(env, a[1]);
    napi_get_uv_event_loop(env, &loop);
    int error = uv_poll_init(loop, &watch->poll, integer(env, a[0]));
    if (error) {
        free(watch);
        napi_create_int32(env, error, &value);
        return value;
    }
    watch->poll.data = watch;
    napi_create_reference(env, a[2], 1, &watch->callback);
    napi_add_async_cleanup_hook(env, end_watch, watch, &watch->hook);
    uv_poll_start(&watch->poll, watch->events, tell);
    napi_create_external(env, watch, NULL, NULL, &value);
    return value;
}

static struct watch *watch_of(napi_env env, napi_value value) {
    void *watch = NULL;
    napi_get_value_external(env, value, &watch);
    return watch;
}

FUNCTION(unwatch) {
    ARGUMENTS(1);
    struct watch *watch = watch_of(env, a[0]);
    if (watch) end_watch(NULL, watch);
    return NULL;
}

FUNCTION(await_events) {
    ARGUMENTS(2);
    struct watch *watch = watch_of(env, a[0]);
    if (watch) uv_poll_start(&watch->poll, watch->events = integer(env, a[1]), tell);
    return NULL;
}

FUNCTION(hold) {
    ARGUMENTS(2);
    struct watch *watch = watch_of(env, a[0]);
    if (watch) (integer(env, a[1]) ? uv_ref : uv_unref)((uv_handle_t *)&watch->poll);
    return NULL;
}

static void export(napi_env env, napi_value exports, const char *name, napi_callback function, void *data) {
    napi_value value;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, function, data, &value);
    napi_set_named_property(env, exports, name, value);
}

NAPI_MODULE_INIT() {
    static const struct { const char *name; int64_t (*call)(struct call *); } calls[] = {
        {"start", start_node}, {"stop", stop_node}, {"status", status}, {"lookup", look_up}, {"dial", dial},
        {"listen", listen_at}, {"accept", accept_one}, {"connected", connected}, {"reason", reason},
        {"option", set_option}, {"name", own_name}, {"peer", peer_name}, {"receive", receive},
        {"identity", identify},
        {"send", send_to}, {"unlisten", unlisten}, {"close", close_socket}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        export(env, exports, calls[i].name, make_call, (void *)calls[i].call);
    export(env, exports, "watch", watch, NULL);
    export(env, exports, "awaitEvents", await_events, NULL);
    export(env, exports, "hold", hold, NULL);
    export(env, exports, "unwatch", unwatch, NULL);
    return exports;
}
