#!/bin/sh
# Traffic without end for the compose demo: simulates one round of the built-in city that begins now, sends it
# at the pace at which it happens, and begins again. Always the same seed: another would build another city.
# BROKERS: bootstrap servers · SEED, VEHICLES, ROUND: see `viaflux simulate --help` · DIR: scratch folder
set -eu
brokers=${BROKERS:?BROKERS is not set: name the bootstrap servers, e.g. kafka:9092}
dir=${DIR:-/var/lib/viaflux/round}
child=
# A shell hears a signal only between two commands, so the long ones run beside it and are waited for.
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; exit 143' TERM INT
run() {
    "$@" &
    child=$!
    wait "$child"
    child=
}

while :; do
    rm -rf "$dir"
    # The next round begins when the last one has ended: before, all of its records would be late.
    run viaflux simulate --seed "${SEED:-7}" --vehicles "${VEHICLES:-600}" --duration "${ROUND:-1h}" \
        --begin "$(date -u +%Y-%m-%dT%H:%M:%SZ)" -o "$dir"
    run viaflux produce --probes "$dir/gps.ndjson" --sensors "$dir/sensor.ndjson" --brokers "$brokers" --speed 1
done
