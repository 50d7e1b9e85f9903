/* Threads that put sockets into a set, and children that are forked meanwhile and do the same: no child waits
 * for a thread that it does not have. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, CHILDREN = 400 };

static int set;
static volatile int stop;

static void add_and_remove(int fd) {
  struct epoll_event event = {.events = EPOLLIN};
  epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
  epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL);
}

static void *work(void *unused) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  while (!stop) add_and_remove(fd);
  close(fd);
  return unused;
}

static void on_signal(int signal) {
  (void)signal;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  add_and_remove(fd);
  close(fd);
}

int main(void) {
  set = epoll_create1(0);
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGALRM, &action, NULL);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, NULL);
  int fd = socket(AF_INET, SOCK_STREAM, 0), failed = 0;
  for (int i = 0; i < CHILDREN && !failed; i++) {
    pid_t child = fork();
    if (child == 0) {
      alarm(60); /* its handler is the parent's until here: */
      signal(SIGALRM, SIG_DFL);
      add_and_remove(fd);
      _exit(0);
    }
    pthread_kill(threads[i % THREADS], SIGALRM);
    int status;
    waitpid(child, &status, 0);
    failed = !WIFEXITED(status);
  }
  stop = 1;
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  puts(failed ? "a child waits for ever" : "all children have ended");
  return failed;
}
