/* Included before a program's own headers: has it make each call that the library takes by the call's
 * number. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define socket(domain, type, protocol) ((int)syscall(SYS_socket, domain, type, protocol))
#define connect(fd, address, length) ((int)syscall(SYS_connect, fd, address, length))
#define bind(fd, address, length) ((int)syscall(SYS_bind, fd, address, length))
#define listen(fd, backlog) ((int)syscall(SYS_listen, fd, backlog))
#define accept(fd, address, length) ((int)syscall(SYS_accept, fd, address, length))
#define accept4(fd, address, length, flags) ((int)syscall(SYS_accept4, fd, address, length, flags))
#define getsockname(fd, address, length) ((int)syscall(SYS_getsockname, fd, address, length))
#define getpeername(fd, address, length) ((int)syscall(SYS_getpeername, fd, address, length))
#define getsockopt(fd, level, name, value, length) \
    ((int)syscall(SYS_getsockopt, fd, level, name, value, length))
#define setsockopt(fd, level, name, value, length) \
    ((int)syscall(SYS_setsockopt, fd, level, name, value, length))
#define shutdown(fd, how) ((int)syscall(SYS_shutdown, fd, how))
#define close(fd) ((int)syscall(SYS_close, fd))
#define ioctl(fd, request, argument) ((int)syscall(SYS_ioctl, fd, request, argument))
#define epoll_ctl(set, operation, fd, event) ((int)syscall(SYS_epoll_ctl, set, operation, fd, event))
#define send(fd, data, size, flags) ((ssize_t)syscall(SYS_sendto, fd, data, size, flags, NULL, 0))
#define recv(fd, data, size, flags) ((ssize_t)syscall(SYS_recvfrom, fd, data, size, flags, NULL, NULL))
#define sendto(fd, data, size, flags, address, length) \
    ((ssize_t)syscall(SYS_sendto, fd, data, size, flags, address, length))
#define recvfrom(fd, data, size, flags, address, length) \
    ((ssize_t)syscall(SYS_recvfrom, fd, data, size, flags, address, length))
#define sendmsg(fd, message, flags) ((ssize_t)syscall(SYS_sendmsg, fd, message, flags))
#define recvmsg(fd, message, flags) ((ssize_t)syscall(SYS_recvmsg, fd, message, flags))
#define sendmmsg(fd, messages, count, flags) ((int)syscall(SYS_sendmmsg, fd, messages, count, flags))
#define recvmmsg(fd, messages, count, flags, timeout) \
    ((int)syscall(SYS_recvmmsg, fd, messages, count, flags, timeout))
#define read(fd, data, size) ((ssize_t)syscall(SYS_read, fd, data, size))
#define write(fd, data, size) ((ssize_t)syscall(SYS_write, fd, data, size))
#define readv(fd, pieces, count) ((ssize_t)syscall(SYS_readv, fd, pieces, count))
#define writev(fd, pieces, count) ((ssize_t)syscall(SYS_writev, fd, pieces, count))
#define sendfile(fd, file, offset, size) ((ssize_t)syscall(SYS_sendfile, fd, file, offset, size))
#define dup(fd) ((int)syscall(SYS_dup, fd))
#define dup3(fd, to, flags) ((int)syscall(SYS_dup3, fd, to, flags))
#ifdef SYS_dup2
#define dup2(fd, to) ((int)syscall(SYS_dup2, fd, to))
#endif
#define fcntl(fd, ...) ((int)syscall(SYS_fcntl, fd, __VA_ARGS__))
#define execve(path, arguments, environment) ((int)syscall(SYS_execve, path, arguments, environment))
