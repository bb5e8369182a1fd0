#!/bin/bash
# Builds the agent for the boards' architectures and lets each of them, under
# qemu, do the whole main job with the backend of this machine: it takes its
# configuration, asks a projector, an SNMP device and one that answers pings,
# and reports. PJLink, SNMP and ICMP pass through the emulator's system calls.
#
#   scripts/test-arm.sh                arm64 and armhf
#   scripts/test-arm.sh --no-install   complains about missing packages instead
#                                      of installing them
#
# AV_BUILD_PROFILE=dev tries a quick build.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

if [ "${1-}" = --help ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi
"$root/scripts/build-arm.sh" "$@"

cd "$root"
built=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/arm
status=0
for architecture in arm64 armhf; do
    agent=$built/$(arm_triple "$architecture")/$(profile_folder "${AV_BUILD_PROFILE:-release}")/av-agent
    case $architecture in
    arm64) emulator="qemu-aarch64-static -L /usr/aarch64-linux-gnu" ;;
    armhf) emulator="qemu-arm-static -L /usr/arm-linux-gnueabihf" ;;
    esac
    say "The main job with the agent for $architecture"
    # The emulator splits no words: the path has none to split.
    case $agent in *[[:space:]]*) die "$agent: a path with spaces cannot be tried." ;; esac
    AV_TEST_AGENT="$emulator $agent" cargo test --locked -p av-proto-tests --test arm </dev/null || status=1
done
exit "$status"
