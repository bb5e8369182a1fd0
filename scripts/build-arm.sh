#!/bin/bash
# Builds the agent for the boards of the racks, on a plain Debian of the amd64
# architecture and without a container engine.
#
#   scripts/build-arm.sh                arm64 and armhf, release
#   scripts/build-arm.sh arm64          only that one
#   scripts/build-arm.sh --backend      the backend as well
#   scripts/build-arm.sh --no-install   complains about missing packages
#                                       instead of installing them
#   scripts/build-arm.sh --prepare      only gets what the build needs
#
# AV_BUILD_PROFILE=dev makes a quick build, for a test. It ends with 77 where
# what it needs cannot be had.
#
# The compiler is the oldest Rust promised, with its standard libraries for ARM:
# rustup's where that is there (`rustup target add`), otherwise Debian's,
# unpacked into a folder of its own (see scripts/msrv.sh and AV_MSRV_DIR). The
# linkers are Debian's. The programs are target/arm/<triple>/release/av-agent
# and av-backend, or under CARGO_TARGET_DIR. What glibc they ask for is measured:
# built on Debian 12, no newer one than is promised (`glibc_promised` in
# scripts/lib.sh). For older systems and for ARMv6 boards (Raspberry Pi 1 and
# Zero) there is `cross`: see cross.toml.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

install=yes
prepare=no
programs=(av-agent)
architectures=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --no-install) install=no ;;
    --prepare) prepare=yes ;;
    --backend) programs=(av-agent av-backend) ;;
    arm64 | armhf) architectures+=("$1") ;;
    *) die "build-arm.sh: there is no option or architecture $1" ;;
    esac
    shift
done
[ ${#architectures[@]} -gt 0 ] || architectures=(arm64 armhf)

if [ "$prepare" = yes ]; then
    if [ "$install" = yes ]; then
        install_missing "$root" missing_arm_packages
    else
        need_installed missing_arm_packages
    fi
    use_oldest_rust "$root" "${architectures[@]}"
    exit 0
fi
need_cargo
preparation=(--prepare "${architectures[@]}")
[ "$install" = yes ] || preparation+=(--no-install)
# A process of its own, whose every failure means the same.
"$root/scripts/build-arm.sh" "${preparation[@]}" || exit 77

cd "$root"
use_oldest_rust "$root" "${architectures[@]}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/arm"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CC_armv7_unknown_linux_gnueabihf=arm-linux-gnueabihf-gcc

targets=()
for architecture in "${architectures[@]}"; do
    targets+=(--target "$(arm_triple "$architecture")")
done
profile=${AV_BUILD_PROFILE:-release}
# Both architectures in one call, since the last step of each takes one core for
# minutes; each program alone, so that neither has features of libraries that
# only the other wants.
for program in "${programs[@]}"; do
    cargo build --profile "$profile" --locked -p "$program" "${targets[@]}"
done

for architecture in "${architectures[@]}"; do
    triple=$(arm_triple "$architecture")
    for program in "${programs[@]}"; do
        built=$CARGO_TARGET_DIR/$triple/$(profile_folder "$profile")/$program
        needs=$(glibc_of "$built")
        say "$architecture: $(stat -c %s "$built") bytes, needs glibc $needs, $built"
        at_least "$glibc_promised" "$needs" ||
            complain "$built asks for a newer glibc than the $glibc_promised that is promised: this system's is newer than Debian 12's."
    done
done
