/* Starts itself with an environment that has nothing of the launcher's, by each call that starts programs:
 * starts WAY ADDRESS PORT. What it starts connects to a server and says what that says. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 10000

extern char **environ;

static char *self;
/* More than any machine passes in registers, and than one of them passes without reading on. */
#define MORE "4", "5", "6", "7", "8", "9", "10", "11", "12"
#define COUNT 13

static int fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

/* What is started: says what the server says, and what the environment is. */
static int child(int count, char **words) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(words[3]))};
    struct timeval patience = {20, 0};
    char said[100] = "";
    if (count != COUNT || strcmp(words[count - 1], "12") != 0) return printf("%d arguments\n", count), 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    inet_pton(AF_INET, words[2], &server.sin_addr);
    if (connect(fd, (void *)&server, sizeof server) != 0) fail("connect");
    if (read(fd, said, sizeof said - 1) <= 0) fail("read");
    int size = 0;
    while (environ[size] != NULL) size++;
    /* What begins with a path is this library's. */
    const char *preloaded = getenv("LD_PRELOAD"), *others = preloaded ? strchr(preloaded, ':') : NULL;
    printf("%.*s, %d variables, others: %s\n", (int)strcspn(said, "\n"), said, size, others ? others + 1 : "none");
    return 0;
}

static void end(pid_t process) {
    int status;
    if (process < 0 || waitpid(process, &status, 0) != process || status != 0) exit(1);
}

/* Prints what a shell that popen(3) has started prints. */
static void copy(FILE *pipe) {
    char line[1000];
    if (pipe == NULL) fail("popen");
    while (fgets(line, sizeof line, pipe)) fputs(line, stdout);
    if (pclose(pipe) != 0) exit(1);
}

int main(int count, char **words) {
    self = words[0];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 4) return 2;
    if (strcmp(words[1], "child") == 0) return child(count, words);
    const char *way = words[1], *address = words[2], *port = words[3];
    char *arguments[] = {self, "child", words[2], words[3], MORE, NULL};
    char *none[] = {NULL}, *other[] = {"A=1", "LD_PRELOAD=libc.so.6", "B=2", NULL}, *empty[] = {"LD_PRELOAD=", NULL};
    char *many[MANY + 1], line[1000];
    pid_t process = 0;
    for (int i = 0; i < MANY; i++) many[i] = "X=a variable of a length that is usual";
    many[MANY] = NULL;
    snprintf(line, sizeof line, "exec %s child %s %s 4 5 6 7 8 9 10 11 12", self, address, port);
#define IS(name) (strcmp(way, name) == 0)
    /* Those that start a program beside this one. */
    if (IS("posix_spawn")) return errno = posix_spawn(&process, self, NULL, NULL, arguments, none), end(process), 0;
    if (IS("posix_spawnp")) return errno = posix_spawnp(&process, self, NULL, NULL, arguments, none), end(process), 0;
    if (IS("posix_spawn without")) return posix_spawn(&process, self, NULL, NULL, arguments, NULL), end(process), 0;
    if (IS("system")) return clearenv(), system(line);
    if (IS("popen")) return clearenv(), copy(popen(line, "r")), 0;
    if (IS("vfork")) {
        if ((process = vfork()) == 0) execve(self, arguments, none), _exit(9);
        return end(process), 0;
    }
    /* Those that put it in this one's place. */
    if ((process = fork()) != 0) return end(process), 0;
    if (IS("execve")) execve(self, arguments, none);
    if (IS("execve without")) execve(self, arguments, NULL);
    if (IS("execve with another library")) execve(self, arguments, other);
    if (IS("execve with no library")) execve(self, arguments, empty);
    if (IS("execve with many")) execve(self, arguments, many);
    if (IS("execveat")) execveat(AT_FDCWD, self, arguments, none, 0);
    if (IS("fexecve")) fexecve(open(self, O_RDONLY | O_CLOEXEC), arguments, none);
    if (IS("execvpe")) execvpe(self, arguments, none);
    if (IS("execle")) execle(self, self, "child", address, port, MORE, NULL, none);
    clearenv();
    if (IS("execv")) execv(self, arguments);
    if (IS("execvp")) execvp(self, arguments);
    if (IS("execl")) execl(self, self, "child", address, port, MORE, NULL);
    if (IS("execlp")) execlp(self, self, "child", address, port, MORE, NULL);
    return printf("%s: %s\n", way, strerror(errno)), 9;
}
