#!/usr/bin/env bash
# Compares HTTP servers on package async with the same servers on package net, under the load of wrk
# or h2load. Installs wrk and h2load from Debian if they are missing.
#
#   ./bench.sh [flags of ./bench]
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh
wants wrk wrk
wants h2load nghttp2-client
install
go build -o "$dir/bench" ./bench
"$dir/bench" "$@"
