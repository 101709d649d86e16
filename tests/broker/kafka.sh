#!/usr/bin/env bash
# A real Apache Kafka 4 broker on loopback for the broker tests: its jars come from Maven Central,
# so neither Docker nor an unpacked Kafka archive is needed.
#
#   kafka.sh start [DIR]                   assemble if needed, start empty, wait until it answers
#   kafka.sh topic NAME PARTITIONS [K=V…]  create a topic with these settings (an existing one is left as it is)
#   kafka.sh status [DIR]                  exit 0 if it runs, 1 if not
#   kafka.sh kill [DIR]                    end it without warning, as a crash would
#   kafka.sh restart [DIR]                 end it if it runs, start it again on the same data
#   kafka.sh stop [DIR]                    end it; the data stay for `restart`, the next `start` wipes them
#   kafka.sh clean [DIR]                   end it and remove its data (the jars stay)
#   kafka.sh run CLASS ARG…                one of Kafka's own tools, e.g. org.apache.kafka.tools.GetOffsetShell
#
# `start` and `restart` print lines for `eval` on stdout, everything else goes to stderr:
#   exports=$(tests/broker/kafka.sh start) || exit; eval "$exports"
#
# Environment:
#   VIAFLUX_KAFKA_DIR       jars, data and log; default target/kafka of this clone (DIR wins over it)
#   VIAFLUX_KAFKA_PORT      plain listener, default 19092; controller on PORT+1, SASL/PLAIN on PORT+2
#   VIAFLUX_KAFKA_VERSIONS  versions to try, best first
#
# Exit: 0 done · 1 failed · 2 usage · 3 cannot work on this machine (no Java 17, no Maven, artefacts
# out of reach): the caller then prints `SKIPPED broker lane: …`; the reason is the last line on stderr.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
versions=${VIAFLUX_KAFKA_VERSIONS:-"4.3.1 4.3.0 4.2.1 4.2.0 4.1.1"}
heap=512m
ready_timeout_s=60
stop_timeout_s=30

say() { printf 'kafka.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
cannot() { say "$*"; exit 3; }
usage() {
    sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

# Every path and port, once the folder is known.
place() {
    dir=${1:-${VIAFLUX_KAFKA_DIR:-$repo/target/kafka}}
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    data=$dir/data
    log=$dir/kafka.log
    config=$dir/server.properties
    pid_file=$dir/kafka.pid
    port_file=$dir/kafka.port
    port=${VIAFLUX_KAFKA_PORT:-19092}
    if ! [[ $port =~ ^[0-9]{4,5}$ ]] || ((port < 1024 || port > 65533)); then
        fail "VIAFLUX_KAFKA_PORT=$port: want a port between 1024 and 65533"
    fi
}

# A broker that runs keeps the port it was started with, whatever the environment now says.
recorded_port() { [[ -s $port_file ]] && port=$(<"$port_file"); return 0; }

# One caller at a time may assemble, start or stop in a folder.
lock() {
    command -v flock >/dev/null || return 0
    exec 9>"$dir/lock"
    flock -w 300 9 || fail "another kafka.sh has held $dir/lock for 300 s"
}

find_java() {
    java=java
    [[ -n ${JAVA_HOME:-} && -x $JAVA_HOME/bin/java ]] && java=$JAVA_HOME/bin/java
    command -v "$java" >/dev/null || cannot "no java: install a Java 17 runtime (Debian: openjdk-17-jre-headless)"
    local major
    major=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
    ((${major:-0} >= 17)) || cannot "$java is version ${major:-unknown}, Kafka 4 needs 17 or newer"
}

# Sets `libs` to a folder with all jars of the first version that can be had.
assemble() {
    local version problem=
    for version in $versions; do
        libs=$dir/libs-$version
        [[ -e $libs/complete ]] && return 0
    done
    command -v mvn >/dev/null || cannot "no mvn: install Maven (Debian: maven) or point VIAFLUX_KAFKA_DIR at a folder assembled before"
    for version in $versions; do
        libs=$dir/libs-$version
        say "bringing Apache Kafka $version from Maven Central"
        rm -rf "$libs"
        if mvn -B -q -ntp -f "$here/pom.xml" -Dmaven.repo.local="$dir/m2" -Dkafka.version="$version" \
            dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$libs" </dev/null >"$dir/maven.log" 2>&1; then
            : >"$libs/complete"
            return 0
        fi
        problem=$(sed $'s/\033\\[[0-9;]*m//g' "$dir/maven.log" | grep -m 1 ERROR | cut -c 1-400 || true)
    done
    rm -rf "$libs"
    cannot "no Kafka of [$versions] from Maven Central; log in $dir/maven.log: ${problem:-no error line}"
}

# The tools print their errors themselves; their logger would only add the stack.
kafka() { "$java" -Xmx256m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=off -cp "$libs/*" "$@"; }

write_config() {
    cat >"$config" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1)),SASL_PLAINTEXT://127.0.0.1:$((port + 2))
advertised.listeners=PLAINTEXT://127.0.0.1:$port,SASL_PLAINTEXT://127.0.0.1:$((port + 2))
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="alice-secret";
log.dirs=$data

# One node: every internal topic has one copy, and few partitions so that starting is quick.
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# A mistyped topic must fail, not appear.
auto.create.topics.enable=false
num.partitions=1
# Topics that want append time say message.timestamp.type=LogAppendTime.
log.message.timestamp.type=CreateTime
# Recorded days are years old, simulated ones may lie ahead: neither may be refused or expire under a test.
log.message.timestamp.after.max.ms=9223372036854775807
log.message.timestamp.before.max.ms=9223372036854775807
log.retention.ms=-1

# Short sessions, so that tests of lost members need not wait for the default 6 s.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# A killed broker may come back only when its old session has run out: 9 s by default.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=16777216
P
}

running() {
    [[ -s $pid_file ]] || return 1
    local pid
    pid=$(<"$pid_file")
    kill -0 "$pid" 2>/dev/null || return 1
    # The number may belong to another program by now: it is ours only if it was given our file.
    ps -o args= -p "$pid" 2>/dev/null | grep -qF -- "$config"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

exports() {
    printf 'export VIAFLUX_KAFKA=127.0.0.1:%d\n' "$port"
    printf 'export VIAFLUX_KAFKA_SASL=127.0.0.1:%d\n' $((port + 2))
    printf 'export VIAFLUX_KAFKA_DIR=%q\n' "$dir"
}

launch() {
    local p deadline pid
    for p in "$port" $((port + 1)) $((port + 2)); do
        if listening "$p"; then
            fail "port $p is taken by another program: choose others with VIAFLUX_KAFKA_PORT"
        fi
    done
    printf '%d\n' "$port" >"$port_file"
    # setsid: an interrupt at the caller's terminal must not reach the broker. 9>&-: nor may it keep the lock.
    local detach=()
    command -v setsid >/dev/null && detach=(setsid)
    nohup "${detach[@]}" "$java" "-Xmx$heap" -Xms128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true \
        -Dorg.slf4j.simpleLogger.showDateTime=true "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX" \
        -cp "$libs/*" kafka.Kafka "$config" </dev/null >"$log" 2>&1 9>&- &
    pid=$!
    printf '%d\n' "$pid" >"$pid_file"
    deadline=$((SECONDS + ready_timeout_s))
    # The log line comes after both listeners accept requests; the connection proves that they are ours to reach.
    until grep -q 'Kafka Server started' "$log" && listening "$port" && listening $((port + 2)); do
        if ! kill -0 "$pid" 2>/dev/null; then
            rm -f "$pid_file"
            grep -E 'ERROR|Exception|Error' "$log" | head -n 5 >&2 || tail -n 5 "$log" >&2
            fail "the broker ended while starting: see $log"
        fi
        if ((SECONDS >= deadline)); then
            end_broker KILL
            fail "the broker was not ready after $ready_timeout_s s: see $log"
        fi
        sleep 0.1
    done
    say "Apache Kafka ${libs##*/libs-} is ready on 127.0.0.1:$port (pid $pid, log $log)"
}

end_broker() {
    running || { rm -f "$pid_file"; return 0; }
    local pid deadline
    pid=$(<"$pid_file")
    kill "-$1" "$pid" 2>/dev/null || true
    deadline=$((SECONDS + stop_timeout_s))
    while kill -0 "$pid" 2>/dev/null; do
        if ((SECONDS >= deadline)); then
            say "pid $pid did not end within $stop_timeout_s s: killing it"
            kill -KILL "$pid" 2>/dev/null || true
            deadline=$((SECONDS + stop_timeout_s))
        fi
        sleep 0.1
        # An ended child of this very shell stays visible until it is reaped.
        wait "$pid" 2>/dev/null || true
    done
    rm -f "$pid_file"
}

start() {
    place "${1:-}"
    lock
    if running; then
        recorded_port
        say "already running on 127.0.0.1:$port"
    else
        find_java
        assemble
        rm -rf "$data"
        write_config
        local id
        id=$(kafka kafka.tools.StorageTool random-uuid 2>>"$dir/format.log" | tail -n 1)
        kafka kafka.tools.StorageTool format -t "$id" -c "$config" >"$dir/format.log" 2>&1 \
            || fail "formatting $data failed: see $dir/format.log"
        launch
    fi
    exports
}

restart() {
    place "${1:-}"
    lock
    [[ -s $config && -d $data ]] || fail "nothing to restart in $dir: use start"
    recorded_port
    find_java
    assemble
    end_broker TERM
    launch
    exports
}

# Also names the folder's broker for `topic` and `run`.
need_running() {
    place ""
    recorded_port
    running || fail "no broker runs in $dir: use start (or set VIAFLUX_KAFKA_DIR)"
    find_java
    assemble
}

command=${1:-}
shift || true
case $command in
    start | restart)
        (($# <= 1)) || usage
        "$command" "$@"
        ;;
    stop | kill | clean)
        (($# <= 1)) || usage
        place "${1:-}"
        lock
        if [[ $command == kill ]]; then end_broker KILL; else end_broker TERM; fi
        if [[ $command == clean ]]; then rm -rf "$data" "$config" "$port_file" "$log" "$dir/format.log" "$dir/maven.log"; fi
        ;;
    status)
        (($# <= 1)) || usage
        place "${1:-}"
        if running; then
            recorded_port
            say "running on 127.0.0.1:$port (pid $(<"$pid_file"))"
        else
            say "not running in $dir"
            exit 1
        fi
        ;;
    topic)
        (($# >= 2)) || usage
        name=$1 partitions=$2
        shift 2
        settings=()
        for setting in "$@"; do
            [[ $setting == ?*=* ]] || fail "topic setting '$setting': want key=value"
            settings+=(--config "$setting")
        done
        need_running
        kafka org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$port" --create --if-not-exists \
            --topic "$name" --partitions "$partitions" --replication-factor 1 ${settings[@]+"${settings[@]}"} >&2
        ;;
    run)
        (($# >= 1)) || usage
        need_running
        kafka "$@"
        ;;
    *) usage ;;
esac
