#!/usr/bin/env bash
# Checks everything that docker-compose.yml puts together, without starting it: the compose file and what it
# mounts, Prometheus configuration and rules with their tests, Alertmanager, Grafana's dashboards, the scripts.
#
# A check whose tool is absent is SKIPPED aloud; with CI=true its tool is installed (Debian), or the check fails.
# Exit: 0 all that ran passed, 1 otherwise.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

passed=0 failed=0 skipped=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# need TOOL PACKAGE: is it there, perhaps now?
need() {
    command -v "$1" >/dev/null && return 0
    [[ ${CI:-} == true ]] || return 1
    echo "installing $2"
    [[ -e $scratch/updated ]] || apt-get update -qq && : >"$scratch/updated"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >"$scratch/apt.log" 2>&1 || tail -n 5 "$scratch/apt.log"
    command -v "$1" >/dev/null
}

# check NAME COMMAND…: its output is shown only when it fails.
check() {
    local name=$1
    shift
    if "$@" >"$scratch/out" 2>&1; then
        echo "ok       $name"
        passed=$((passed + 1))
    else
        echo "FAILED   $name"
        sed 's/^/         /' "$scratch/out"
        failed=$((failed + 1))
    fi
}

# with TOOL PACKAGE NAME COMMAND…
with() {
    local tool=$1 package=$2
    shift 2
    if need "$tool" "$package"; then
        check "$@"
    elif [[ ${CI:-} == true ]]; then
        check "$1" false
    else
        echo "SKIPPED  $1: no $tool (Debian package $package)"
        skipped=$((skipped + 1))
    fi
}

# Docker makes an empty folder of a missing mount, and the container fails in a way that nobody understands.
mounts_exist() {
    local path missing=0
    while read -r path; do
        [[ -e $path ]] || { echo "docker-compose.yml mounts $path, which does not exist"; missing=1; }
    done < <(grep -oE '(^|[" ])\./[^:"]+:/' docker-compose.yml | sed 's/^[" ]*//; s/:\/$//')
    return $missing
}

pinned() {
    if grep -nE '^ *image: [^ ]+:latest|^ *image: [^: ]+$' docker-compose.yml || grep -nE '^FROM [^ ]+:latest|^FROM [^: ]+( |$)' Dockerfile; then
        echo "an image without a version is another one tomorrow"
        return 1
    fi
}

loopback_only() {
    if grep -nE '^ *ports: *\[' docker-compose.yml | grep -v '"127\.0\.0\.1:'; then
        echo "a port open to other machines"
        return 1
    fi
}

runs_as_user() { grep -qE '^USER [1-9]' Dockerfile; }

# Dashboards: shape, unique ids, panels on the grid; and each query, made a rule, must please promtool.
dashboards() {
    python3 - "$scratch/dashboards.yml" deploy/grafana/dashboards/*.json <<'PY'
import json, re, sys
out, paths = sys.argv[1], sys.argv[2:]
assert paths, "no dashboards"
uids, rules = set(), []
for path in paths:
    board = json.load(open(path, encoding="utf-8"))
    assert board["uid"] not in uids, f"{path}: uid {board['uid']} is used twice"
    uids.add(board["uid"])
    assert board["title"] and board["panels"], f"{path}: empty"
    names = {v["name"] for v in board["templating"]["list"]}
    ids, taken = set(), {}
    for panel in board["panels"]:
        where = f"{path}: {panel['title']}"
        assert panel["id"] not in ids, f"{where}: id {panel['id']} is used twice"
        ids.add(panel["id"])
        g = panel["gridPos"]
        assert g["x"] + g["w"] <= 24, f"{where}: beyond the grid"
        for cell in ((x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])):
            assert cell not in taken, f"{where}: lies over {taken[cell]}"
            taken[cell] = panel["title"]
        assert panel["type"] == "row" or panel["targets"], f"{where}: no query"
        for target in panel.get("targets", []):
            used = set(re.findall(r"\$\{?([A-Za-z_]\w*)", target["expr"])) - {"__rate_interval"}
            assert used <= names, f"{where}: unknown variable {used - names}"
            rules.append(re.sub(r"\$\{?\w+\}?", ".*", target["expr"].replace("$__rate_interval", "5m")))
with open(out, "w", encoding="utf-8") as f:
    f.write("groups:\n- name: dashboards\n  rules:\n")
    for n, expr in enumerate(rules):
        f.write(f"  - record: dashboard_query_{n}\n    expr: {json.dumps(expr)}\n")
PY
}

# A metric that the engine does not have draws an empty panel and never alerts.
metrics_known() {
    local name base unknown=0
    while read -r name; do
        base=$name
        [[ $name =~ ^(.*)_(bucket|sum|count)$ ]] && base=${BASH_REMATCH[1]}
        grep -qE "\b($name|$base)\b" docs/metrics.md || { echo "$name is not in docs/metrics.md"; unknown=1; }
    done < <({
        python3 -c 'import json, sys
for path in sys.argv[1:]:
    for panel in json.load(open(path, encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []): print(target["expr"])' deploy/grafana/dashboards/*.json
        sed -n '/^ *expr: |/,/^ *\(for\|labels\|- \)/p; /expr:/p' deploy/prometheus/rules.yml
    } | grep -oE '(^|[^:a-z_])viaflux_[a-z_]+' | grep -oE 'viaflux_[a-z_]+' | sort -u)
    return $unknown
}

check "mounted files exist" mounts_exist
check "images have versions" pinned
check "ports are for this machine only" loopback_only
check "the image runs as a plain user" runs_as_user
if docker compose version >/dev/null 2>&1; then
    check "docker compose config" docker compose -f docker-compose.yml config -q
else
    with docker-compose docker-compose "docker-compose config" docker-compose -f docker-compose.yml config -q
fi
with promtool prometheus "Prometheus configuration" promtool check config deploy/prometheus/prometheus.yml
with promtool prometheus "Prometheus rules" promtool check rules deploy/prometheus/rules.yml
with promtool prometheus "tests of the rules" promtool test rules deploy/prometheus/rules_test.yml
with amtool prometheus-alertmanager "Alertmanager configuration" amtool check-config deploy/alertmanager/alertmanager.yml
with python3 python3 "dashboards" dashboards
if [[ -s $scratch/dashboards.yml ]]; then
    with promtool prometheus "queries of the dashboards" promtool check rules "$scratch/dashboards.yml"
fi
if [[ -e docs/metrics.md ]]; then
    with python3 python3 "metrics are the engine's" metrics_known
else
    check "docs/metrics.md exists" false
fi
with shellcheck shellcheck "scripts" shellcheck deploy/kafka/*.sh tests/deploy/check.sh tests/broker/kafka.sh

echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
