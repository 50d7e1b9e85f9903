// What the programs in libzt's manner share.
#ifndef LIBZT_COMMON_H
#define LIBZT_COMMON_H

#include <ZeroTierSockets.h>

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: %s (zts_errno %d)\n", __FILE__, __LINE__, #condition, zts_errno);                  \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

// Leaves only this machine's own interface.
static inline void use_loopback(void) {
    struct if_nameindex *list = if_nameindex(), *one;
    for (one = list; one->if_name != NULL; one++) {
        if (strcmp(one->if_name, "lo") == 0) continue;
        CHECK(zts_init_blacklist_if(one->if_name, (unsigned int)strlen(one->if_name)) == ZTS_ERR_OK);
    }
    if_freenameindex(list);
}

#endif
