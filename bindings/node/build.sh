#!/bin/sh
# Builds the native part for the node that is in the search path, with the C library that pkg-config finds.
set -eu
cd "$(dirname "$0")"
headers=${NODE_INCLUDE:-$(dirname "$(node -p 'fs.realpathSync(process.execPath)')")/../include/node}
if [ ! -e "$headers/node_api.h" ]; then
  echo "node_api.h is not in $headers (install libnode-dev, or set NODE_INCLUDE)" >&2
  exit 1
fi
mkdir -p build
# shellcheck disable=SC2046 # flags
${CC:-cc} -shared -fPIC -O2 -Wall -Wextra -std=gnu11 ${CFLAGS:-} -I"$headers" \
  $(pkg-config --cflags peersock) addon.c -o build/peersock.node $(pkg-config --libs peersock)
