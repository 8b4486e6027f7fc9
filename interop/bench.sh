#!/usr/bin/env bash
# HTTP servers on package async beside the same on package net, under wrk, which
# is installed from Debian if it is missing.
#
#   ./bench.sh [flags of ./bench]
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh
wants wrk wrk
install
go build -o "$dir/bench" ./bench
"$dir/bench" "$@"
