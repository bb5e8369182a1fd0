#!/bin/bash
# Builds the Debian packages: av-agent for one or more architectures, and
# av-backend for this machine's.
#
#   scripts/build-deb.sh                      av-agent and av-backend, amd64
#   scripts/build-deb.sh --arm                and av-agent for arm64 and armhf
#   scripts/build-deb.sh --version 1.2.3~rc1  with another version than Cargo's
#
# They are put into target/debian, or under CARGO_TARGET_DIR. dpkg-deb makes
# them, and not cargo-deb: a package is a folder of files that stand in
# systemd/, and the programs come from three builds with two compilers.
#
# The environment says what this project cannot know:
#
#   AV_DEB_MAINTAINER   who publishes them, as "Name <address>"; without it an
#                       address of example.org, which nobody reads
#   AV_DEB_FOLDER       where they are put instead
#   AV_DEB_PROFILE=dev  packs a quick build, for a test
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
command -v dpkg-deb >/dev/null || die "There is no dpkg-deb: packages are built on Debian."
need_cargo
cd "$root"
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
[ -n "$version" ] || version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
into=$(realpath -m "${AV_DEB_FOLDER:-$target/debian}")
maintainer=${AV_DEB_MAINTAINER:-AV Monitoring maintainers <av-monitoring@example.org>}
mkdir -p "$into"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The newest glibc symbol of a program is the glibc that it needs; packed
# relocations (agent/build.rs) need 2.36.
needs_glibc() { grep -ao 'GLIBC_2[.][0-9]*\|GLIBC_ABI_DT_RELR' "$1" | sed 's/GLIBC_//; s/ABI_DT_RELR/2.36/' | sort -uV | tail -n 1; }

# package NAME ARCHITECTURE PROGRAM DOCUMENT...
package() {
    local name=$1 architecture=$2 program=$3 tree=$work/$1_$2
    local what="$root/systemd" file="$into/${1}_${version}_$2.deb"
    mkdir -p "$tree/DEBIAN"
    install -Dm755 "$program" "$tree/usr/bin/$name"
    install -Dm755 "$what/backoff.sh" "$tree/usr/lib/av-monitoring/$name-backoff"
    install -Dm644 "$what/$name.service" "$tree/lib/systemd/system/$name.service"
    [ "$name" != av-backend ] || install -Dm644 "$what/$name@.service" "$tree/lib/systemd/system/$name@.service"
    install -Dm644 "$what/$name.sysusers.conf" "$tree/usr/lib/sysusers.d/$name.conf"
    install -Dm644 "$what/$name.tmpfiles.conf" "$tree/usr/lib/tmpfiles.d/$name.conf"
    install -Dm644 -t "$tree/usr/share/doc/$name" "${@:4}"
    install -Dm640 "$what/${name#av-}.env" "$tree/etc/av-monitoring/${name#av-}.env"
    echo "/etc/av-monitoring/${name#av-}.env" >"$tree/DEBIAN/conffiles"
    local script
    for script in postinst prerm postrm; do
        sed "s/@NAME@/$name/g; s/@PART@/${name#av-}/g" "$what/deb/$script" >"$tree/DEBIAN/$script"
        chmod 755 "$tree/DEBIAN/$script"
    done
    cat >"$tree/DEBIAN/control" <<CONTROL
Package: $name
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Section: net
Priority: optional
Depends: libc6 (>= $(needs_glibc "$program")), libgcc-s1, ca-certificates, systemd | systemd-standalone-sysusers
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f 1)
Description: $(sed -n 's/^description = "\(.*\)"/\1/p' "$root/${name#av-}/Cargo.toml")
 Part of the monitoring of audio-visual equipment.
CONTROL
    # Nothing of the builder's: files belong to root, and have one date.
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s) \
        dpkg-deb --root-owner-group --build "$tree" "$file" >/dev/null
    say "$file: $(stat -c %s "$file") bytes"
}

here=$(dpkg --print-architecture)
profile=${AV_DEB_PROFILE:-release}
# Each alone: neither has features of libraries that only the other wants.
cargo build --profile "$profile" --locked -p av-agent
cargo build --profile "$profile" --locked -p av-backend
programs=$target/release
[ "$profile" = release ] || programs=$target/debug
package av-agent "$here" "$programs/av-agent" docs/technician.md docs/technicien.md
package av-backend "$here" "$programs/av-backend" docs/administration.md
if [ "$arm" = yes ]; then
    scripts/build-arm.sh
    for architecture in arm64 armhf; do
        package av-agent "$architecture" "$target/arm/$(arm_triple "$architecture")/release/av-agent" docs/technician.md docs/technicien.md
    done
fi
