#!/bin/bash
# Builds the Debian packages: av-agent for one or more architectures, and
# av-backend for this machine's.
#
#   scripts/build-deb.sh                      av-agent and av-backend, amd64
#   scripts/build-deb.sh --arm                and av-agent for arm64 and armhf
#   scripts/build-deb.sh --version 1.2.3~rc1  with another version than Cargo's
#
# They are put into target/debian, or under CARGO_TARGET_DIR. cargo-deb packs
# them as each Cargo.toml says; where it is missing, that version is built once
# from crates.io into the cache folder of the user.
#
# The environment says what this project cannot know:
#
#   AV_DEB_MAINTAINER   who publishes them, as "Name <address>"; without it an
#                       address of example.org, which nobody reads
#   AV_DEB_FOLDER       where they are put instead
#   AV_BUILD_PROFILE=dev  packs a quick build, for a test
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

arm=no
version=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --arm) arm=yes ;;
    --version)
        shift
        version=${1-}
        ;;
    *) die "build-deb.sh: there is no option $1" ;;
    esac
    shift
done
cd "$root"
command -v dpkg-deb >/dev/null || die "There is no dpkg-deb: packages are built on Debian."
need_cargo
install_missing "$root" missing_deb_packages
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
[ -n "$version" ] || version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
into=$(realpath -m "${AV_DEB_FOLDER:-$target/debian}")
maintainer=${AV_DEB_MAINTAINER:-AV Monitoring maintainers <av-monitoring@example.org>}
mkdir -p "$into"
cargo_deb=$(get_cargo_deb)

# The newest glibc symbol of a program is the glibc that it needs; packed
# relocations (agent/build.rs) need 2.36.
needs_glibc() { grep -ao 'GLIBC_2[.][0-9]*\|GLIBC_ABI_DT_RELR' "$1" | sed 's/GLIBC_//; s/ABI_DT_RELR/2.36/' | sort -uV | tail -n 1; }

# package NAME ARCHITECTURE PROGRAM CARGO-DEB-OPTIONS...
package() {
    local name=$1 program=$3 file="$into/${1}_${version}_$2.deb" declared
    # Nothing is built, and nothing stripped that the release build has not.
    # Quiet: it would warn of a quick build, which is for tests.
    "$cargo_deb" --quiet -p "$name" --no-build --no-strip --no-dbgsym --locked --maintainer "$maintainer" \
        --deb-version "$version" --output "$file" "${@:4}" >/dev/null
    declared=$(dpkg-deb --field "$file" Depends | grep -o 'libc6 (>= [0-9.]*' | grep -o '[0-9.]*$' | sort -V | tail -n 1)
    dpkg --compare-versions "${declared:-0}" ge "$(needs_glibc "$program")" ||
        die "$file asks for glibc ${declared:-of any age}, and its program for $(needs_glibc "$program")."
    say "$file: $(stat -c %s "$file") bytes"
}

profile=${AV_BUILD_PROFILE:-release}
# Each alone: neither has features of libraries that only the other wants.
cargo build --profile "$profile" --locked -p av-agent
cargo build --profile "$profile" --locked -p av-backend
programs=$target/$(profile_folder "$profile")
# The files' dates: the same sources make the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
here=$(dpkg --print-architecture)
for name in av-agent av-backend; do
    package "$name" "$here" "$programs/$name" --profile "$profile"
done
if [ "$arm" = yes ]; then
    scripts/build-arm.sh
    for architecture in arm64 armhf; do
        triple=$(arm_triple "$architecture")
        CARGO_TARGET_DIR=$target/arm package av-agent "$architecture" \
            "$target/arm/$triple/$(profile_folder "$profile")/av-agent" --target "$triple" --variant arm --profile "$profile"
    done
fi
