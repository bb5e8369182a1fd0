#!/bin/bash
# Format check, clippy and all tests; ends with "N passed, N failed".
#
#   ./test.sh                  everything
#   ./test.sh --msrv           and that it builds with the oldest Rust promised
#   ./test.sh --arm            and the agent for arm64 and armhf, built and run
#                              under qemu through the whole main job
#   ./test.sh --deb            and the Debian packages: installed, upgraded,
#                              removed and purged in a folder; takes root. With
#                              --arm those of the agent for ARM too
#   ./test.sh --systemd        and the guides' commands, word by word, with the
#                              packages on a Debian that runs its own systemd in
#                              namespaces; takes root
#   ./test.sh --deny           and the libraries against deny.toml: known holes,
#                              licences, origin; builds cargo-deny once, and
#                              takes the list of holes from GitHub
#   ./test.sh --fresh          and the demonstration and the tests in a fresh
#                              clone on a fresh Debian trixie, in a folder, with
#                              its own Rust: scripts/fresh.sh; takes root
#   ./test.sh --containers     and the images, and every service of compose.yaml,
#                              started without a container engine; takes root
#   ./test.sh --pi             and the first boot of a Raspberry Pi and its
#                              read-only root, in a folder; takes root
#   ./test.sh --if-possible    leaves out what --arm, --containers, --deb, --deny,
#                              --fresh, --pi, --snmpsim and --systemd name, and
#                              says so, where what it needs cannot be had
#   ./test.sh --schemathesis   and the API against its own description; takes
#                              schemathesis from PyPI, and some minutes
#   ./test.sh --snmpsim        and the SNMP driver against snmpsim, taken from PyPI
#   ./test.sh --upgrade        and agents and backends of the newest tag with
#                              those of this tree; builds them first
#   ./test.sh --faults         the fault tests of docs/reliability.md as often
#                              as they are described there: with all else 40
#                              minutes; they run a few times in every test
#   ./test.sh --no-install     complains about missing packages instead of
#                              installing them
#   ./test.sh --no-web         without the browser tests of the web interface
#   ./test.sh -- ARGUMENTS     passes them to cargo test, and runs no browser:
#                              ./test.sh -- -p av-proto
#
# On Debian it installs what it lacks, as root or through sudo: PostgreSQL and
# snmpd (neither is started: tests run private ones), python3, a C compiler,
# iproute2, strace, faketime, nginx and Caddy (not started either), for the web
# interface Chromium and npm, and rustfmt and clippy of Rust 1.85: only these
# can fail the test. It works from any folder, and leaves nothing running. It
# tries the PostgreSQL whose initdb and postgres are on PATH, else the newest that
# is installed: PATH=FOLDER:$PATH ./test.sh tries the one of that folder.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$root/test.sh"; }

msrv=no
arm=no
deb=no
systemd=no
deny=no
containers=no
pi=no
if_possible=no
schemathesis=no
snmpsim=no
upgrade=no
faults=no
fresh=no
install=yes
web=yes
test_arguments=(--workspace)
while [ $# -gt 0 ]; do
    case $1 in
    --msrv) msrv=yes ;;
    --arm) arm=yes ;;
    --deb) deb=yes ;;
    --systemd) systemd=yes ;;
    --deny) deny=yes ;;
    --containers) containers=yes ;;
    --pi) pi=yes ;;
    --if-possible) if_possible=yes ;;
    --schemathesis) schemathesis=yes ;;
    --snmpsim) snmpsim=yes ;;
    --upgrade) upgrade=yes ;;
    --faults) faults=yes ;;
    --fresh) fresh=yes ;;
    --no-install) install=no ;;
    --no-web) web=no ;;
    --help | -h)
        usage
        exit 0
        ;;
    --)
        shift
        [ $# -eq 0 ] || test_arguments=("$@") web=no
        break
        ;;
    *)
        complain "test.sh: there is no option $1"
        usage >&2
        exit 2
        ;;
    esac
    shift
done

need_cargo
if [ "$install" = yes ]; then
    install_missing "$root" missing_test_packages
else
    need_installed missing_test_packages
fi
cd "$root" || exit 1

failed=()
left_out=()

# Copies what a step says, and says how long it has been silent for.
silent_for=60
[ ! -t 1 ] || silent_for=10
copy_lines() {
    local name=$1 began=$SECONDS line='' rest='' status
    while true; do
        status=0
        IFS= read -r -t "$silent_for" line || status=$?
        if [ "$status" -eq 0 ]; then
            printf '%s\n' "$rest$line"
            rest=
        elif [ "$status" -gt 128 ]; then
            # What it has read of a line so far.
            rest+=$line
            say "   … $name, $((SECONDS - began)) s"
        else
            [ -z "$rest$line" ] || printf '%s\n' "$rest$line"
            break
        fi
    done
}

step() {
    local name=$1 status=0 began=$SECONDS
    shift
    say "── $name"
    # Not in a subshell: a step may set variables.
    "$@" > >(copy_lines "$name") 2>&1 || status=$?
    wait $!
    say "   $((SECONDS - began)) s"
    if [ "$status" -eq 77 ] && [ "$if_possible" = yes ]; then
        say "$name: left out, since what it needs cannot be had here"
        left_out+=("$name")
    elif [ "$status" -ne 0 ]; then
        failed+=("$name")
    fi
}

log=$(mktemp)
web_log=$(mktemp)
arm_log=$(mktemp)
upgrade_log=$(mktemp)
fresh_log=$(mktemp)
shots=$(mktemp -d)
trap 'rm -rf "$log" "$web_log" "$arm_log" "$upgrade_log" "$fresh_log" "$shots"' EXIT

# Every binary is run even when one fails. Cargo's exit code counts, not tee's.
tests() { cargo test --locked --no-fail-fast "${test_arguments[@]}" </dev/null 2>&1 | tee "$log"; }

web_tests() {
    local -a options=()
    [ "$install" = yes ] || options+=(--no-install)
    proto-tests/web/run.sh "${options[@]}" "$shots" </dev/null 2>&1 | tee "$web_log"
}

arm_tests() {
    local -a options=()
    [ "$install" = yes ] || options+=(--no-install)
    scripts/test-arm.sh "${options[@]}" </dev/null 2>&1 | tee "$arm_log"
}

deb_tests() {
    local -a options=()
    [ "$arm" = no ] || options+=(--arm)
    scripts/test-deb.sh "${options[@]}" </dev/null
}

deny_check() {
    local deny status=0
    deny=$(get_cargo_deny) || return 77
    "$deny" --locked fetch db </dev/null || {
        complain "The list of known holes cannot be fetched."
        return 77
    }
    # Those of other systems too: it reads what each says of its licence.
    cargo fetch --locked && cargo fetch --locked --manifest-path proto-tests/fuzz/Cargo.toml || return 77
    # What deny.toml says of one of the two need not be met in the other.
    local -a options=(--locked --offline check -A license-not-encountered
        -A license-exception-not-encountered -A advisory-not-detected)
    "$deny" "${options[@]}" </dev/null || status=1
    "$deny" --manifest-path proto-tests/fuzz/Cargo.toml --config "$root/deny.toml" "${options[@]}" </dev/null ||
        status=1
    return "$status"
}

snmpsim_tests() {
    cargo build --locked -p av-agent && proto-tests/snmpsim.sh "${CARGO_TARGET_DIR:-target}/debug/av-agent" </dev/null
}

# The browser's tests are run here, and would take as long there.
fresh_tests() {
    local -a options=() theirs=(--no-web)
    if [ "$install" = no ]; then options+=(--no-install); fi
    scripts/fresh.sh "${options[@]}" trixie -- "${theirs[@]}" </dev/null 2>&1 | tee "$fresh_log"
}

upgrade_tests() { scripts/test-upgrade.sh </dev/null 2>&1 | tee "$upgrade_log"; }

# How often each fault is made; what is set already stays.
if [ "$faults" = yes ]; then
    : "${AV_FAULT_KILLS:=500}" "${AV_FAULT_TYPES:=7}" "${AV_FAULTS_FULL:=1}" "${AV_FAULT_SWEEPS:=2016}"
    export AV_FAULT_KILLS AV_FAULT_TYPES AV_FAULTS_FULL AV_FAULT_SWEEPS
fi

shell_scripts() {
    shellcheck -x test.sh demo.sh .ci/run scripts/*.sh scripts/demo/*.sh scripts/container/{*-*,prepare} \
        scripts/raspberry-pi/first-boot systemd/*.sh systemd/deb/* proto-tests/*.sh proto-tests/web/run.sh
}

lints=no
if find_lints "$root" "$install"; then
    lints=yes
    step 'cargo fmt' lint rustfmt "${lint_cargo[@]}" fmt --all --check
else
    left_out+=('cargo fmt' 'cargo clippy')
fi
if command -v shellcheck >/dev/null; then
    step 'shellcheck' shell_scripts
fi
if [ "$lints" = yes ]; then
    step 'cargo clippy' lint clippy "${lint_cargo[@]}" clippy --workspace --all-targets --locked -- -D warnings
fi
if [ "$msrv" = yes ]; then
    step 'oldest Rust' scripts/msrv.sh
fi
if [ "$deny" = yes ]; then
    step 'cargo deny' deny_check
fi
step 'systemd units' scripts/test-units.sh
step 'lints' scripts/test-lints.sh
step 'demonstration' scripts/test-demo.sh
step 'cargo test' tests
if [ "$arm" = yes ]; then
    step 'ARM' arm_tests
fi
if [ "$deb" = yes ]; then
    step 'Debian packages' deb_tests
    step 'Debian packages, with systemd' scripts/test-deb-systemd.sh
fi
if [ "$containers" = yes ]; then
    step 'containers' scripts/test-containers.sh
fi
if [ "$pi" = yes ]; then
    step 'Raspberry Pi' scripts/test-pi.sh
fi
if [ "$systemd" = yes ]; then
    step 'guides under systemd' scripts/test-systemd.sh
fi
[ "$web" = no ] || step 'web interface' web_tests
if [ "$schemathesis" = yes ]; then
    step 'schemathesis' proto-tests/schemathesis.sh
fi
if [ "$snmpsim" = yes ]; then
    step 'snmpsim' snmpsim_tests
fi
if [ "$upgrade" = yes ]; then
    step 'upgrade' upgrade_tests
fi

if [ "$fresh" = yes ]; then
    step 'fresh Debian' fresh_tests
    # That run builds everything with the oldest Rust.
    if [ "$msrv" = no ] && [[ " ${left_out[*]} " == *' fresh Debian '* ]]; then
        step 'oldest Rust' scripts/msrv.sh
    fi
fi

read -r passed failures < <(awk '
    # test result: ok. 3 passed; 0 failed; 0 ignored; ...
    $1 == "test" && $2 == "result:" { passed += $4; failed += $6 }
    # web: 30 passed, 0 failed
    ($1 == "web:" || $1 == "upgrade:" || $1 == "fresh:") && $3 == "passed," { passed += $2; failed += $4 }
    END { print passed + 0, failed + 0 }' "$log" "$web_log" "$arm_log" "$upgrade_log" "$fresh_log")
if [ ${#left_out[@]} -gt 0 ]; then
    printf -v list '%s, ' "${left_out[@]}"
    say "left out: ${list%, }"
fi
if [ ${#failed[@]} -gt 0 ]; then
    printf -v list '%s, ' "${failed[@]}"
    say "✗ failed: ${list%, }"
    # What did not build ran no test, and is not to look like a success.
    [ "$failures" -gt 0 ] || failures=${#failed[@]}
fi
say "$passed passed, $failures failed"
[ ${#failed[@]} -eq 0 ] && [ "$failures" -eq 0 ] && [ "$passed" -gt 0 ]
