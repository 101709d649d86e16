#!/bin/sh
# Creates the topics that viaflux reads and writes; those that exist are left as they are.
# BROKERS: bootstrap servers · PARTITIONS: of the input topics (part of the contract: another number later
# needs a new topic) · REPLICATION: copies, 3 on a real cluster · KAFKA_BIN: folder of Kafka's tools
set -eu
brokers=${BROKERS:?BROKERS is not set: name the bootstrap servers, e.g. kafka:9092}
partitions=${PARTITIONS:-8}
replication=${REPLICATION:-1}
bin=${KAFKA_BIN:-/opt/kafka/bin}

topic() {
    name=$1
    count=$2
    shift 2
    # Without quotes on purpose: nothing but --config words is put together here.
    settings=
    for setting in "$@"; do settings="$settings --config $setting"; done
    # shellcheck disable=SC2086
    "$bin/kafka-topics.sh" --bootstrap-server "$brokers" --create --if-not-exists \
        --topic "$name" --partitions "$count" --replication-factor "$replication" $settings
}

day=86400000
# Append time is the engine's only "now": the broker must stamp the input.
topic traffic.probe.position.v1 "$partitions" message.timestamp.type=LogAppendTime retention.ms=$day
topic traffic.sensor.measurement.v1 "$partitions" message.timestamp.type=LogAppendTime retention.ms=$day
topic traffic.probe.position.v1.dlq 1 retention.ms=$day
topic traffic.sensor.measurement.v1.dlq 1 retention.ms=$day
# The last state of each segment stays; what has not been told again for a day goes.
topic traffic.segment.state.v1 "$partitions" cleanup.policy=compact,delete retention.ms=$day
topic traffic.corridor.travel_time.v1 1 retention.ms=$day
topic traffic.region.index.v1 1 retention.ms=$day
topic traffic.alert.event.v1 1 retention.ms=$((7 * day))
topic traffic.alert.state.v1 1 cleanup.policy=compact
