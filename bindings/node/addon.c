// The native part: calls of the node on libuv's threads, socket calls, which never wait, and waiting for
// descriptors. Those that fail give a negative errno. index.js checks what it is given.
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#define NAPI_VERSION 8
#include <node_api.h>
#include <peersock.h>

#define FUNCTION(name) static napi_value name(napi_env env, napi_callback_info info)
#define ARGUMENTS(count)                                                                                     \
    napi_value a[count];                                                                                     \
    napi_get_cb_info(env, info, &(size_t){count}, a, NULL, NULL)

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

static napi_value array(napi_env env, napi_value first, napi_value second, napi_value third) {
    napi_value values;
    napi_create_array(env, &values);
    napi_set_element(env, values, 0, first);
    napi_set_element(env, values, 1, second);
    napi_set_element(env, values, 2, third);
    return values;
}

static int integer(napi_env env, napi_value value) {
    int32_t number = 0;
    napi_get_value_int32(env, value, &number);
    return number;
}

// A node that is started with settings, or stopped if there are none.
struct job {
    napi_async_work work;
    napi_deferred deferred;
    char *settings, error[512];
    peersock_node node;
    peersock_result result;
};

static void perform(napi_env env, void *data) {
    struct job *job = data;
    (void)env;
    job->result = job->settings ? peersock_open(job->settings, &job->node) : peersock_stop(job->node, 5000);
    // The text is the thread's.
    if (job->result) snprintf(job->error, sizeof job->error, "%s", peersock_last_error());
}

// Gives what has come of it: [result, node, text].
static void finish(napi_env env, napi_status status, void *data) {
    struct job *job = data;
    (void)status;
    napi_value result = number(env, job->result), node = number(env, job->node);
    napi_resolve_deferred(env, job->deferred, array(env, result, node, string(env, job->error)));
    napi_delete_async_work(env, job->work);
    free(job->settings);
    free(job);
}

// run(settings) starts a node, run(node) stops it.
FUNCTION(run) {
    ARGUMENTS(1);
    struct job *job = calloc(1, sizeof *job);
    napi_value promise;
    size_t size;
    if (napi_get_value_string_utf8(env, a[0], NULL, 0, &size) == napi_ok) {
        job->settings = malloc(size + 1);
        napi_get_value_string_utf8(env, a[0], job->settings, size + 1, NULL);
    }
    job->node = (peersock_node)integer(env, a[0]);
    napi_create_promise(env, &job->deferred, &promise);
    napi_create_async_work(env, NULL, string(env, "peersock"), perform, finish, job, &job->work);
    napi_queue_async_work(env, job->work);
    return promise;
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

// What a socket call was given: its numbers in their order, bytes, and the address that a text and the second
// number are, of IPv6, or of IPv4 and mapped. Calls that find an address put it there.
struct call {
    int n[5];
    void *data;
    size_t size;
    struct sockaddr_in6 address;
    socklen_t length;
};

#define CALL(name, value) static ssize_t name(struct call *c) { return value; }
#define TO (struct sockaddr *)&c->address, c->length
#define FROM (struct sockaddr *)&c->address, &c->length
#define FLAGS (SOCK_NONBLOCK | SOCK_CLOEXEC)
CALL(open_socket, peersock_node_socket((peersock_node)c->n[0], AF_INET6, c->n[1] | FLAGS, 0))
CALL(set_option, peersock_setsockopt(c->n[0], c->n[1], c->n[2], &c->n[3], sizeof c->n[3]))
CALL(bind_socket, peersock_bind(c->n[0], TO))
CALL(listen_socket, peersock_listen(c->n[0], c->n[1]))
CALL(accept_socket, peersock_accept4(c->n[0], NULL, NULL, FLAGS))
CALL(connect_socket, peersock_connect(c->n[0], TO))
CALL(connected, peersock_connected(c->n[0]))
CALL(own_name, peersock_getsockname(c->n[0], FROM))
CALL(peer_name, peersock_getpeername(c->n[0], FROM))
CALL(receive, peersock_recvfrom(c->n[0], c->data, c->size, 0, FROM))
CALL(send_to, peersock_sendto(c->n[0], c->data, c->size, 0, TO))
// Who connects to a listener is refused from now on, and not after the node has looked.
CALL(unlisten, peersock_connect(c->n[0], &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)))
CALL(close_socket, close(c->n[0]))

// Makes a call: gives its result, or [result, address, port] if it has found an address.
FUNCTION(make_call) {
    napi_value a[5];
    struct call c = {.length = sizeof c.address};
    size_t count = 5, numbers = 0;
    void *function;
    bool has_host = false;
    char host[INET6_ADDRSTRLEN];
    napi_get_cb_info(env, info, &count, a, NULL, &function);
    for (size_t i = 0; i < count; i++) {
        if (napi_get_value_int32(env, a[i], &c.n[numbers]) == napi_ok) {
            numbers++;
        } else if (napi_get_value_string_utf8(env, a[i], host, sizeof host, NULL) == napi_ok) {
            has_host = true;
            // Sockets refuse the family of what is no address.
            bool is_address = inet_pton(AF_INET6, host, &c.address.sin6_addr) == 1;
            c.address.sin6_family = is_address ? AF_INET6 : AF_MAX;
        } else {
            napi_get_buffer_info(env, a[i], &c.data, &c.size);
        }
    }
    c.address.sin6_port = htons((uint16_t)c.n[1]);
    ssize_t result = ((ssize_t(*)(struct call *))function)(&c);
    if (result < 0) return number(env, -errno);
    if (has_host || c.address.sin6_family != AF_INET6) return number(env, result);
    inet_ntop(AF_INET6, &c.address.sin6_addr, host, sizeof host);
    return array(env, number(env, result), string(env, host), number(env, ntohs(c.address.sin6_port)));
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
    if (error) return free(watch), number(env, error);
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
    static const struct { const char *name; napi_callback function; } functions[] = {
        {"run", run}, {"status", status}, {"lastError", last_error}, {"watch", watch},
        {"unwatch", unwatch}, {"awaitEvents", await_events}, {"hold", hold}};
    static const struct { const char *name; ssize_t (*call)(struct call *); } calls[] = {
        {"socket", open_socket}, {"option", set_option}, {"bind", bind_socket}, {"listen", listen_socket},
        {"accept", accept_socket}, {"connect", connect_socket}, {"connected", connected}, {"name", own_name},
        {"peer", peer_name}, {"receive", receive}, {"send", send_to}, {"unlisten", unlisten},
        {"close", close_socket}};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        export(env, exports, functions[i].name, functions[i].function, NULL);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        export(env, exports, calls[i].name, make_call, (void *)calls[i].call);
    return exports;
}
