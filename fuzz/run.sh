#!/bin/sh
# Runs fuzz targets one after the other: fuzz/run.sh SECONDS [TARGET…]  (all targets if none is named).
# A run fails on a crash, on an input that takes longer than 10 s, and on one allocation of more than 64 MiB.
# Needs cargo-fuzz. FUZZ_TARGET_DIR is where the targets are built and run from (default: fuzz/target).
set -eu
cd "$(dirname "$0")/.."
seconds=${1:?how many seconds for each target?}
shift
# The sanitizers are unstable flags; this lets a stable compiler take them.
export RUSTC_BOOTSTRAP=1
target_dir=${FUZZ_TARGET_DIR:-fuzz/target}
[ $# -gt 0 ] || set -- $(cargo fuzz list | grep -v '^seeds$')
cargo fuzz run --target-dir "$target_dir" seeds
for target; do
  max_len=4096
  malloc_limit_mb=64
  case $target in map_file | osm_pbf | checkpoint) max_len=16384 ;; esac
  # The protobuf decoder takes room for ten million numbers, 80 MB, before it finds that they are not there.
  [ "$target" != osm_pbf ] || malloc_limit_mb=128
  echo "== $target, $seconds s"
  cargo fuzz run --target-dir "$target_dir" "$target" -- \
    -max_total_time="$seconds" -timeout=10 -malloc_limit_mb="$malloc_limit_mb" -rss_limit_mb=2048 -max_len="$max_len" -print_final_stats=1
done
