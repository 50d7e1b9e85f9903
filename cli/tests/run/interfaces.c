/* What a program finds as the interfaces of its machine: interfaces IPv4 IPV6, two own addresses on the
 * overlay. Then it serves the overlay's IPv4 address only, as servers do that bind to each address of the
 * machine. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

static char network[IF_NAMESIZE];

/* The entry of an address, whose interface's name is kept. */
static struct ifaddrs *entry(struct ifaddrs *list, const char *text) {
    char shown[INET6_ADDRSTRLEN];
    for (; list != NULL; list = list->ifa_next) {
        if (list->ifa_addr == NULL) continue;
        int family = list->ifa_addr->sa_family;
        if (family != AF_INET && family != AF_INET6) continue;
        const void *ip = family == AF_INET ? (void *)&((struct sockaddr_in *)list->ifa_addr)->sin_addr
                                           : (void *)&((struct sockaddr_in6 *)list->ifa_addr)->sin6_addr;
        if (strcmp(inet_ntop(family, ip, shown, sizeof shown), text) == 0) return list;
    }
    printf("no interface has %s\n", text);
    exit(1);
}

static void addresses(const char *v4, const char *v6) {
    struct ifaddrs *list = NULL;
    CHECK(getifaddrs(&list) == 0);
    struct ifaddrs *four = entry(list, v4), *six = entry(list, v6), *loopback = entry(list, "127.0.0.1");
    CHECK(strcmp(loopback->ifa_name, "lo") == 0 && (loopback->ifa_flags & IFF_LOOPBACK));
    CHECK(strcmp(four->ifa_name, six->ifa_name) == 0 && strcmp(four->ifa_name, "lo") != 0);
    unsigned flags = IFF_UP | IFF_RUNNING | IFF_MULTICAST;
    CHECK((four->ifa_flags & flags) == flags && !(four->ifa_flags & (IFF_LOOPBACK | IFF_POINTOPOINT)));
    struct sockaddr_in *mask = (void *)four->ifa_netmask;
    CHECK(mask != NULL && mask->sin_family == AF_INET);
    unsigned others = ~ntohl(mask->sin_addr.s_addr);
    CHECK((others & (others + 1)) == 0);
    CHECK(four->ifa_dstaddr == NULL && four->ifa_data == NULL);
    strcpy(network, four->ifa_name);
    freeifaddrs(list);
    freeifaddrs(NULL);
}

static void names(void) {
    struct if_nameindex *list = if_nameindex();
    unsigned found = 0, loopback = 0;
    CHECK(list != NULL);
    for (struct if_nameindex *one = list; one->if_name != NULL; one++) {
        if (strcmp(one->if_name, network) == 0) found = one->if_index;
        if (strcmp(one->if_name, "lo") == 0) loopback = one->if_index;
    }
    if_freenameindex(list);
    CHECK(found != 0 && loopback != 0 && found != loopback);
    char name[IF_NAMESIZE];
    CHECK(if_nametoindex(network) == found && if_nametoindex("lo") == loopback);
    CHECK(if_indextoname(found, name) == name && strcmp(name, network) == 0);
    CHECK(if_indextoname(loopback, name) == name && strcmp(name, "lo") == 0);
    errno = 0;
    CHECK(if_nametoindex("nothing") == 0 && errno == ENODEV);
    errno = 0;
    CHECK(if_indextoname(found + 77, name) == NULL && errno == ENXIO);

    /* Both ways to name it to a socket make it the overlay's: so it can be bound to its address. */
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, network, strlen(network) + 1) == 0);
    socklen_t length = sizeof name;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &length) == 0 && strcmp(name, network) == 0);
    close(fd);
    fd = socket(AF_INET6, SOCK_DGRAM, 0);
    struct ipv6_mreq group = {.ipv6mr_interface = found};
    CHECK(inet_pton(AF_INET6, "ff15::77", &group.ipv6mr_multiaddr) == 1);
    CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &group, sizeof group) == 0);
    close(fd);
}

int main(int count, char **arguments) {
    CHECK(count == 3);
    addresses(arguments[1], arguments[2]);
    names();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET};
    socklen_t length = sizeof own;
    CHECK(inet_pton(AF_INET, arguments[1], &own.sin_addr) == 1);
    CHECK(bind(fd, (struct sockaddr *)&own, sizeof own) == 0 && listen(fd, 5) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&own, &length) == 0);
    printf("port %d\n", ntohs(own.sin_port));
    fflush(stdout);
    int client = accept(fd, NULL, NULL);
    CHECK(client >= 0 && write(client, "served\n", 7) == 7 && close(client) == 0);
    return 0;
}
