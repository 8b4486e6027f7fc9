#!/usr/bin/env bash
# HTTP servers on package async beside the same on package net, under wrk, or
# h2load, which are installed from Debian if they are missing.
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
