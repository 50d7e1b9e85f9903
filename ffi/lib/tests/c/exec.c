// Programs that a process starts beside itself leave its node alone.
#include "common.h"
#include <spawn.h>

extern char **environ;

static char *const words[] = {"sh", "-c", "sleep 0.2; exit 7", NULL};

static int end_of(pid_t child) {
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

// After fork(2) only.
static pid_t forked(void) {
    pid_t child = fork();
    if (child == 0) {
        execv("/bin/sh", words);
        _exit(1);
    }
    return child;
}

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif
static pid_t forked_without_a_copy(void) {
    pid_t child = vfork();
    if (child == 0) {
        execv("/bin/sh", words);
        _exit(1);
    }
    return child;
}
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

static pid_t spawned(void) {
    pid_t child;
    CHECK(posix_spawn(&child, "/bin/sh", NULL, NULL, words, environ) == 0);
    return child;
}

static int by_fork(void) { return end_of(forked()); }
static int by_vfork(void) { return end_of(forked_without_a_copy()); }
static int by_spawn(void) { return end_of(spawned()); }
static int by_system(void) { return system(words[2]); }
static int by_popen(void) {
    FILE *output = popen(words[2], "r");
    CHECK(output != NULL && fgetc(output) == EOF);
    return pclose(output);
}

// What fails leaves everything as it was, too.
static int by_nothing(void) {
    CHECK(execl("/nonexistent", "nonexistent", (char *)NULL) == -1 && errno == ENOENT);
    return 7 << 8;
}

static int accepted;

// Gives back what comes, until the end.
static void *echo(void *unused) {
    char byte;
    while (read(accepted, &byte, 1) == 1) write_all(accepted, &byte, 1);
    return unused;
}

int main(void) {
    int (*const ways[])(void) = {by_fork, by_vfork, by_spawn, by_system, by_popen, by_nothing};
    peersock_node other = start_pair();
    int listener = listen_on(other, 7000);
    int fd = connect_to(address_of(other, 7000));
    char byte = 'x';
    pthread_t thread;
    accepted = peersock_accept(listener, NULL, NULL);
    CHECK(accepted >= 0 && pthread_create(&thread, NULL, echo, NULL) == 0);
    for (size_t at = 0; at < sizeof ways / sizeof ways[0]; at++) {
        // It is under way while the program is started, and what follows is delivered as before.
        write_all(fd, &byte, 1);
        CHECK(ways[at]() == 7 << 8);
        read_all(fd, &byte, 1);
        write_all(fd, &byte, 1);
        read_all(fd, &byte, 1);
        CHECK(close(connect_to(address_of(other, 7000))) == 0);
        int next = peersock_accept(listener, NULL, NULL);
        CHECK(next >= 0 && close(next) == 0);
    }
    CHECK(close(fd) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(close(accepted) == 0 && close(listener) == 0);
    puts("ok");
    return 0;
}
