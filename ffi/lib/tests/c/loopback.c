// Linked with hello.c: its default node shall meet only those of the same test.
#include "common.h"

__attribute__((constructor)) static void begin(void) {
    peersock_config *config = settings();
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    peersock_config_free(config);
}
