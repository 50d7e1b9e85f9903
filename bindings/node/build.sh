#!/bin/sh
# Builds the native part for the node that is in the search path, with the C library that pkg-config finds.
set -eu
cd "$(dirname "$0")"
headers=${NODE_INCLUDE:-$(node -p 'require("node:path").resolve(fs.realpathSync(process.execPath), "../../include/node")')}
[ -e "$headers/node_api.h" ] || { echo "node_api.h is not in $headers (libnode-dev, or NODE_INCLUDE)" >&2; exit 1; }
mkdir -p build
# shellcheck disable=SC2046 # flags
${CC:-cc} -shared -fPIC -O2 -Wall -Wextra -std=gnu11 ${CFLAGS:-} -I"$headers" $(pkg-config --cflags peersock) addon.c \
  -o build/peersock.node $(pkg-config --libs peersock)
