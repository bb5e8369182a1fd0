#!/bin/bash
# Builds the Debian packages, looks at their fields and files, and installs,
# upgrades, removes and purges them in a folder of their own, a small Debian
# that debootstrap makes. Takes root.
#
#   scripts/test-deb.sh                 av-agent and av-backend of this machine
#   scripts/test-deb.sh --arm           and av-agent for arm64 and armhf: the
#                                       folder's dpkg is told to take them, and
#                                       their programs run under qemu
#   scripts/test-deb.sh [--arm] FOLDER  uses this folder, made with debootstrap
#                                       --variant=minbase --include=systemd,ca-certificates
#
# By default it makes the folder, and deletes it. AV_BUILD_PROFILE=dev packs
# quick builds. It ends with 77 where it lacks what it needs: root, the Debian,
# or the compilers for ARM.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

arm=no
small=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --arm) arm=yes ;;
    -*) die "test-deb.sh: there is no option $1" ;;
    *) small=$(realpath "$1") ;;
    esac
    shift
done
impossible() {
    complain "$@"
    exit 77
}
[ "$(id -u)" -eq 0 ] || impossible "debootstrap and chroot take root."
work=$(realpath "$(mktemp -d)")
made=

mounts_below() { findmnt --raw --noheadings --output TARGET | awk -v below="$1/" 'index($0, below) == 1'; }
finish() {
    local status=$? mount
    trap '' INT TERM
    if [ -n "$made" ]; then
        # debootstrap that was interrupted leaves /proc and /sys mounted, and
        # nothing of the machine may be deleted through a mount.
        while read -r mount; do
            umount "$mount" || true
        done < <(mounts_below "$made" | sort -r)
        if [ -n "$(mounts_below "$made")" ]; then
            complain "$made has mounts, and is left"
            exit 1
        fi
    fi
    rm -rf --one-file-system "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
export AV_DEB_FOLDER=$work/debs
here=$(dpkg --print-architecture)
packages=("av-agent $here" "av-backend $here")
if [ "$arm" = yes ]; then
    "$root/scripts/build-deb.sh" --version 0.0.1 --arm
    packages+=('av-agent arm64' 'av-agent armhf')
else
    "$root/scripts/build-deb.sh" --version 0.0.1
fi

# What a package says of itself and holds.
look() {
    local name=$1 architecture=$2 package=$3 part=${1#av-} instances=''
    local -a documents=(technician.md technicien.md)
    if [ "$name" = av-backend ]; then
        documents=(administration.md)
        instances="./lib/systemd/system/av-backend@.service"
    fi
    local field expected is
    for field in "Package $name" 'Version 0.0.1' "Architecture $architecture" 'Section net' 'Priority optional'; do
        is=$(dpkg-deb --field "$package" "${field%% *}")
        [ "$is" = "${field#* }" ] || die "✗ $name $architecture: ${field%% *} is $is"
    done
    dpkg-deb --field "$package" Maintainer | grep -q '^[^<>]* <[^@ ]*@[^@ ]*[.][^@ ]*>$' ||
        die "✗ $name $architecture: the Maintainer is $(dpkg-deb --field "$package" Maintainer)"
    dpkg-deb --field "$package" Depends | grep -q 'libc6 (>= 2[.][0-9]*)' || die "✗ $name $architecture: no libc6"
    if [ "$architecture" != "$here" ]; then
        dpkg-deb --field "$package" Depends | grep -q 'libc6 (>= 2[.]\([12][0-9]\|3[0-4]\))' ||
            die "✗ $name $architecture: needs $(dpkg-deb --field "$package" Depends)"
    fi
    documents=("${documents[@]/#/./usr/share/doc/$name/}" "./usr/share/doc/$name/copyright")
    expected=$(printf '%s\n' "./etc/av-monitoring/$part.env" "./lib/systemd/system/$name.service" $instances \
        "./usr/bin/$name" "./usr/lib/av-monitoring/$name-backoff" "./usr/lib/sysusers.d/$name.conf" \
        "./usr/lib/tmpfiles.d/$name.conf" "${documents[@]}" | sort)
    is=$(dpkg-deb --contents "$package" | grep -v '^d' | awk '{ print $6 }' | sort)
    [ "$is" = "$expected" ] || die "✗ $name $architecture holds: $(diff <(printf '%s\n' "$expected") <(printf '%s\n' "$is"))"
    dpkg-deb --contents "$package" | awk '$2 != "0/0" { print; wrong = 1 } END { exit wrong }' ||
        die "✗ $name $architecture has files that are not root's"
    say "$name $architecture: $(stat -c %s "$package") bytes, fields and files are right"
}

# The next version of a package, with a conffile that it changed as well.
next() {
    local package=$1 into=$work/next part=$2
    rm -rf "$into"
    dpkg-deb --raw-extract "$package" "$into"
    sed -i 's/^Version: .*/Version: 0.0.2/' "$into/DEBIAN/control"
    echo '#of the new version' >>"$into/etc/av-monitoring/$part.env"
    dpkg-deb --root-owner-group --build "$into" "${package/_0.0.1_/_0.0.2_}" >/dev/null
}

for entry in "${packages[@]}"; do
    read -r name architecture <<<"$entry"
    look "$name" "$architecture" "$AV_DEB_FOLDER/${name}_0.0.1_$architecture.deb"
    next "$AV_DEB_FOLDER/${name}_0.0.1_$architecture.deb" "${name#av-}"
done

if [ -z "$small" ]; then
    command -v debootstrap >/dev/null || "$root/scripts/install-packages.sh" debootstrap ||
        impossible 'There is no debootstrap.'
    made=$work/small
    # A root folder that is open to root alone would be so for its users too.
    chmod 755 "$work"
    mkdir -m 755 "$made"
    say 'Making a small Debian'
    debootstrap --variant=minbase --include=systemd,ca-certificates bookworm "$made" >"$work/debootstrap.log" 2>&1 ||
        impossible "debootstrap failed: $(tail -n 3 "$work/debootstrap.log")"
    small=$made
fi

within() { chroot "$small" "$@"; }
there() { [ -e "$small$1" ] || die "✗ $2: $1 is not there"; }
gone() { [ ! -e "$small$1" ] || die "✗ $2: $1 is still there"; }
# A processor's architecture and its libraries are what differs for ARM.
options_of() { [ "$1" = "$here" ] || say --force-architecture,depends; }
dpkg_in() {
    local log=$work/dpkg.log
    DEBIAN_FRONTEND=noninteractive within dpkg "$@" >"$log" 2>&1 </dev/null || die "✗ dpkg $*: $(tail -n 5 "$log")"
}
runs() {
    case $2 in
    arm64) qemu-aarch64-static -L /usr/aarch64-linux-gnu "$small/usr/bin/$1" --version ;;
    armhf) qemu-arm-static -L /usr/arm-linux-gnueabihf "$small/usr/bin/$1" --version ;;
    *) within "/usr/bin/$1" --version ;;
    esac
}
# Files, users and groups; dpkg's own records apart.
state() { within sh -c 'cat /etc/passwd /etc/group; find /etc /lib /usr /var/lib -path /var/lib/dpkg -prune -o -print | sort'; }

install_and_upgrade() {
    local name=$1 architecture=$2 part=${1#av-} version
    local -a options
    mapfile -t options < <(options_of "$architecture")
    cp "$AV_DEB_FOLDER/${name}"_0.0.[12]_"$architecture.deb" "$small/root/"
    dpkg_in "${options[@]}" -i "/root/${name}_0.0.1_$architecture.deb"
    [ "$(runs "$name" "$architecture" | cut -d ' ' -f 1)" = "$name" ] || die "✗ $name $architecture does not run"
    local file
    for file in "/lib/systemd/system/$name.service" "/etc/av-monitoring/$part.env" /var/lib/av-monitoring; do
        there "$file" 'after the installation'
    done
    within getent passwd "$name" >/dev/null || die "✗ there is no user $name"
    # Changed by the administrator, and state from a running program.
    echo '#kept' >>"$small/etc/av-monitoring/$part.env"
    mkdir -p "$small/var/lib/av-monitoring/$part"
    echo state >"$small/var/lib/av-monitoring/$part/state"
    # What apt does where nobody is there to be asked.
    dpkg_in "${options[@]}" --force-confdef --force-confold -i "/root/${name}_0.0.2_$architecture.deb"
    grep -q '#kept' "$small/etc/av-monitoring/$part.env" || die "✗ the upgrade lost a changed conffile of $name"
    there "/etc/av-monitoring/$part.env.dpkg-dist" 'the new version of a conffile'
    there "/var/lib/av-monitoring/$part/state" 'after the upgrade'
    # shellcheck disable=SC2016  # dpkg-query's own
    version=$(within dpkg-query -W -f '${Version} ${Status}' "$name")
    [ "$version" = '0.0.2 install ok installed' ] || die "✗ $name is not upgraded: $version"
    rm "$small/root/${name}"_0.0.[12]_"$architecture.deb"
    say "$name $architecture: installed, upgraded with a changed conffile"
}

remove_and_purge() {
    local name=$1 architecture=$2 part=${1#av-}
    dpkg_in -r "$name"
    gone "/usr/bin/$name" 'after the removal'
    there "/etc/av-monitoring/$part.env" 'after the removal'
    there "/var/lib/av-monitoring/$part/state" 'after the removal'
    dpkg_in -P "$name"
    say "$name $architecture: removed with configuration and state kept, purged"
}

leaves_nothing() {
    local left
    left=$(diff <(printf '%s\n' "$before") <(state) | grep '^[<>]' |
        grep -v '/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$\|/etc/.pwd.lock' || true)
    [ -z "$left" ] || die "✗ the purge leaves: $left"
    say 'The purge leaves nothing.'
}

before=$(state)
# Both on one machine, and one purged while the other is there.
install_and_upgrade av-agent "$here"
install_and_upgrade av-backend "$here"
[ "$(within stat -c '%U %a' /etc/av-monitoring/agent)" = 'av-agent 700' ] || die '✗ the folder of the token is open to others'
remove_and_purge av-agent "$here"
there /etc/av-monitoring/backend.env "after the purge of the other package"
remove_and_purge av-backend "$here"
leaves_nothing
if [ "$arm" = yes ]; then
    for architecture in arm64 armhf; do
        install_and_upgrade av-agent "$architecture"
        remove_and_purge av-agent "$architecture"
        leaves_nothing
    done
fi
