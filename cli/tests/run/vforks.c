/* Children of vfork(2) that ask the node run in this program's memory, with descriptors of their own: vforks
 * ADDRESS PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

static int fd;

/* Asks the node. */
static int has_peer(void) {
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    return getpeername(fd, (void *)&peer, &length) == 0 && peer.sin_family == AF_INET;
}

static int descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder != NULL);
    int count = 0;
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

int main(int count, char **words) {
    CHECK(count == 3);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
    CHECK(inet_pton(AF_INET, words[1], &server.sin_addr) == 1);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (void *)&server, sizeof server) == 0 && has_peer());
    int before = descriptors();
    for (int round = 0; round < 5; round++) {
        int status;
        pid_t pid = vfork();
        if (pid == 0)
            _exit(has_peer() ? 0 : 1);
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
        CHECK(has_peer());
    }
    CHECK(descriptors() == before);
    puts("all well");
    return 0;
}
