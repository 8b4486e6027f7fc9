#!/usr/bin/env bash
# Installs from Debian the programs that the full run needs in addition to Go: a C compiler, perf,
# and the crates of tokio, async-std and smol. Installs cargo and rustc if there is no cargo.
set -euo pipefail
packages=(
	librust-tokio-dev librust-async-std-dev librust-smol-dev librust-async-channel-dev
	librust-futures-dev librust-libc-dev
)
command -v gcc >/dev/null || packages+=(gcc libc6-dev)
command -v perf >/dev/null || packages+=(linux-perf)
command -v cargo >/dev/null || packages+=(cargo rustc)
missing=()
for p in "${packages[@]}"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0
apt-get update
apt-get install -y --no-install-recommends "${missing[@]}"
