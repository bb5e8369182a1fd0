#!/bin/bash
# Builds the agent for the boards of the racks, on a plain Debian of the amd64
# architecture and without a container engine.
#
#   scripts/build-arm.sh                arm64 and armhf, release
#   scripts/build-arm.sh arm64          only that one
#   scripts/build-arm.sh --no-install   complains about missing packages
#                                       instead of installing them
#   scripts/build-arm.sh --prepare      only gets what the build needs
#
# AV_BUILD_PROFILE=dev makes a quick build, for a test. It ends with 77 where
# what it needs cannot be had.
#
# The compiler is the oldest Rust promised, from Debian's packages and with
# their standard libraries for ARM, unpacked into a folder of its own (see
# scripts/msrv.sh and AV_MSRV_DIR); the linkers are Debian's. The programs are
# target/arm/<triple>/release/av-agent, or under CARGO_TARGET_DIR. They need
# glibc 2.34: Raspberry Pi OS bookworm and later. For older systems and for
# ARMv6 boards (Raspberry Pi 1 and Zero) there is `cross`: see cross.toml.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

install=yes
prepare=no
architectures=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --no-install) install=no ;;
    --prepare) prepare=yes ;;
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
    get_rust "$root"
    for architecture in "${architectures[@]}"; do
        get_rust_target "$architecture" "$(arm_triple "$architecture")"
    done
    exit 0
fi
need_cargo
preparation=(--prepare "${architectures[@]}")
[ "$install" = yes ] || preparation+=(--no-install)
# A process of its own, whose every failure means the same.
"$root/scripts/build-arm.sh" "${preparation[@]}" || exit 77

cd "$root"
RUSTC=$(rust_folder)/rustc
export RUSTC
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/arm"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CC_armv7_unknown_linux_gnueabihf=arm-linux-gnueabihf-gcc

# The newest version of glibc's symbols that a program asks for.
glibc_of() {
    "$2-readelf" --version-info --wide "$1" | grep -o 'GLIBC_2[.][0-9]*' | sort -uV | tail -n 1
}

targets=()
for architecture in "${architectures[@]}"; do
    targets+=(--target "$(arm_triple "$architecture")")
done
# In one call: the last step of each takes one core for minutes.
profile=${AV_BUILD_PROFILE:-release}
cargo build --profile "$profile" --locked -p av-agent "${targets[@]}"

for architecture in "${architectures[@]}"; do
    triple=$(arm_triple "$architecture")
    built=$CARGO_TARGET_DIR/$triple/$(profile_folder "$profile")/av-agent
    prefix=aarch64-linux-gnu
    [ "$architecture" = arm64 ] || prefix=arm-linux-gnueabihf
    needs=$(glibc_of "$built" "$prefix")
    say "$architecture: $(stat -c %s "$built") bytes, needs ${needs/_/ }, $built"
    case $needs in
    GLIBC_2.3[5-9]* | GLIBC_2.[4-9]*) die "$built asks for a newer glibc than the 2.34 that is promised." ;;
    esac
done
