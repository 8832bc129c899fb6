#!/usr/bin/env bash
# Passes every test that this machine can run, and says what it skips and why.
#
#   tests/run.sh
#
# Installs the Debian packages that the tests on real packets need, when it may (root and apt).
# Those tests make network namespaces of their own and want root; without it they are skipped.
# HYBRIDWG_REQUIRE_HOST=1 turns every skip into a failure: that is what CI sets.
# The last line counts: "N passed, N failed, N skipped". Before it, each failure has a line
# "failed: NAME OF THE TEST OR STEP", and before those stands how each of those tests failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

require_host=${HYBRIDWG_REQUIRE_HOST:-0}
host_threads=${HYBRIDWG_HOST_THREADS:-2}
packages=(chromium curl golang-github-containers-common iperf3 iproute2 iputils-ping mtr-tiny nftables iptables postgresql procps python3-seccomp radvd systemd traceroute valgrind vsftpd wireguard-go wireguard-tools)

passed=0 failed=0 skipped=0
failures=()
output=$(mktemp) reasons=$(mktemp)
trap 'rm -f "$output" "$reasons"' EXIT

say() { printf '\n== %s\n' "$*"; }

skip() {
    skipped=$((skipped + 1))
    echo "skipped: $*"
}

# Counts one step that is not a test binary: fmt, clippy, a build.
step() {
    local name=$1
    shift
    say "$name: $*"
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        failures+=("$name")
    fi
}

# Runs a cargo test command and adds up what its binaries report. A test that lacks something of
# this machine passes, but prints "skipped: why": it is counted as skipped, not as passed.
tests() {
    local name=$1 status ok bad ignored lacking
    shift
    say "$name: $*"
    "$@" 2>&1 | tee "$output"
    status=${PIPESTATUS[0]}
    read -r ok bad ignored < <(awk '
        # criterion, which the benchmarks run under, counts nothing but says this after each.
        /^Success$/ { ok++ }
        /^test result: / {
            for (i = 1; i < NF; i++) {
                if ($(i + 1) ~ /^passed;/) ok += $i
                if ($(i + 1) ~ /^failed;/) bad += $i
                if ($(i + 1) ~ /^ignored;/) ignored += $i
            }
        }
        END { print ok + 0, bad + 0, ignored + 0 }' "$output")
    lacking=$(grep -c '^skipped: ' "$output")
    passed=$((passed + ok - lacking))
    failed=$((failed + bad))
    skipped=$((skipped + ignored + lacking))
    if ((status != 0 && bad == 0)); then
        failed=$((failed + 1))
        failures+=("$name: status $status, and no test of it was counted as failed")
    fi
    local test
    while read -r test; do
        failures+=("$test")
    done < <(failed_tests "$output")
    why_failed "$output" >>"$reasons"
}

# The names of the tests that failed. Each test binary says "failures:" twice, first above what the
# tests printed and then above their names alone, indented by four.
failed_tests() {
    awk '
        /^failures:$/ { count = 0; listed = 1; next }
        listed && /^    [^ ]/ { names[count++] = substr($0, 5) }
        /^test result: / {
            for (i = 0; i < count; i++) print names[i]
            count = listed = 0
        }' "$1"
}

# What those tests printed, up to the stack of calls and to 20 lines: what a reader of the end of a
# long log wants first.
why_failed() {
    awk '
        /^(successes|failures):$/ { failures = /^failures/; lines = 0; next }
        /^---- .* ----$/ { lines = 20 }
        /^(stack backtrace:|note: |    [^ ]*$|test result: )/ { lines = 0 }
        failures && lines > 0 && /./ { lines--; print substr($0, 1, 500) }' "$1"
}

install_packages() {
    local missing=() package
    if ! command -v dpkg-query >/dev/null; then
        skip "no dpkg here: install the programs of these packages yourself: ${packages[*]}"
        return
    fi
    for package in "${packages[@]}"; do
        if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
            missing+=("$package")
        fi
    done
    ((${#missing[@]} == 0)) && return
    if [[ $(id -u) != 0 ]]; then
        skip "the packages ${missing[*]}: only root may install them (apt-get install ${missing[*]})"
        return
    fi
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update -q && apt-get install -qy --no-install-recommends "${missing[@]}"; }; then
        skip "the packages ${missing[*]}: apt-get could not install them"
    fi
}

# A component of the toolchain that somebody's Rust may lack.
component() {
    local name=$1
    shift
    if cargo "$1" --version >/dev/null 2>&1; then
        step "$name" cargo "$@"
    else
        skip "$name: this toolchain has no \`cargo $1\`"
    fi
}

install_packages
component "format" fmt --check
component "lints" clippy --quiet --all-targets -- -D warnings
step "fuzz targets" cargo check --quiet -p hybridwg-fuzz --bins
# --show-output, because a skip is reported on the output of a test that passes.
tests "unit and simulated tests" cargo test --no-fail-fast --lib --bins -- --quiet --show-output
tests "integration tests" cargo test --test it -- --skip host:: --quiet --show-output
tests "examples in the documentation" cargo test --doc
benches=()
for bench in benches/*.rs; do
    benches+=(--bench "$(basename "$bench" .rs)")
done
tests "benchmarks, once and tiny" cargo test --no-fail-fast "${benches[@]}"
# The one benchmark whose number means something on a busy machine. Wants a build in release.
tests "instructions a packet" cargo bench --quiet --bench instructions
tests "tests on real packets" \
    cargo test --test it -- host:: --test-threads="$host_threads" --show-output

if ((require_host && skipped)); then
    echo
    echo "HYBRIDWG_REQUIRE_HOST=$require_host: the $skipped skipped above count as failures"
    failures+=("$skipped skipped tests or steps: search this log for \"skipped: \"")
    failed=$((failed + skipped)) skipped=0
fi
echo
cat "$reasons"
((${#failures[@]} == 0)) || printf 'failed: %s\n' "${failures[@]}"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
((failed == 0))
