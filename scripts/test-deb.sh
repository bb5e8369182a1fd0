#!/bin/bash
# Builds the Debian packages, looks at their fields and files, and installs,
# upgrades, removes and purges them in a folder of their own, a small Debian
# that debootstrap makes. Takes root.
#
#   scripts/test-deb.sh                 av-agent and av-backend of this machine
#   scripts/test-deb.sh --arm           and av-agent for arm64 and armhf: the
#                                       folder's dpkg is told to take them, and
#                                       their programs run under qemu
#   scripts/test-deb.sh --arm-backend   and av-backend for these too
#   scripts/test-deb.sh [--arm] FOLDER  uses this folder, made with debootstrap
#                                       --variant=minbase --include=systemd,ca-certificates
#
# What takes a running systemd, such as the start after an upgrade, is in
# scripts/test-deb-systemd.sh.
#
# By default it makes the folder, and deletes it. AV_BUILD_PROFILE=dev packs
# quick builds. It ends with 77 where it lacks what it needs: root, the Debian,
# or the compilers for ARM.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
# shellcheck source=scripts/folders.sh
. "$root/scripts/folders.sh"
# shellcheck source=scripts/variants.sh
. "$root/scripts/variants.sh"

build=()
architectures=()
small=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --arm | --arm-backend)
        build=("$1")
        architectures=(arm64 armhf)
        ;;
    -*) die "test-deb.sh: there is no option $1" ;;
    *) small=$(realpath "$1") ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || impossible "debootstrap and chroot take root."
work=$(realpath "$(mktemp -d)")

finish() {
    local status=$?
    trap '' INT TERM
    # debootstrap that was interrupted leaves /proc and /sys mounted.
    remove_folder "$work" || status=1
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
export AV_DEB_FOLDER=$work/debs
here=$(dpkg --print-architecture)
"$root/scripts/build-deb.sh" --version 0.0.1 "${build[@]}"
packages=("av-agent $here" "av-backend $here")
for architecture in "${architectures[@]}"; do
    packages+=("av-agent $architecture")
    [ "${build[0]}" = --arm ] || packages+=("av-backend $architecture")
done

# The only sentence that says which glibc, and what the guides say of it.
for guide in technician technicien; do
    grep -q "glibc $glibc_promised\b" "$root/docs/$guide.md" || die "✗ docs/$guide.md does not say glibc $glibc_promised"
done

# Fields of a package's control file.
fields() {
    local package=$1 name=$2 architecture=$3 expected is
    for expected in "Package $name" 'Version 0.0.1' "Architecture $architecture" 'Section net' 'Priority optional'; do
        is=$(dpkg-deb --field "$package" "${expected%% *}")
        [ "$is" = "${expected#* }" ] || die "✗ $name $architecture: ${expected%% *} is $is"
    done
    dpkg-deb --field "$package" Maintainer | grep -q '^[^<>]* <[^@ ]*@[^@ ]*[.][^@ ]*>$' ||
        die "✗ $name $architecture: the Maintainer is $(dpkg-deb --field "$package" Maintainer)"
    # The promise holds for what Debian 12 builds; on a newer system a program
    # may ask for what that has, and its package says so.
    is=$(dpkg-deb --field "$package" Depends | sed -n 's/.*libc6 (>= \(2[.][0-9]*\)).*/\1/p')
    expected=$(glibc_of "$work/look/usr/bin/$name")
    at_least "${is:-0}" "$expected" || die "✗ $name $architecture: depends on glibc ${is:-of any age}, and its program on $expected"
    expected=$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)
    [ "$is" = "$glibc_promised" ] || ! at_least "$glibc_promised" "$expected" ||
        die "✗ $name $architecture: depends on glibc $is, and $glibc_promised is promised"
}

# Files, their modes and owners, and what dpkg is told of them.
files() {
    local package=$1 name=$2 architecture=$3 part=${2#av-} mode=644 expected is
    [ "$part" = agent ] || mode=600
    expected=$(
        printf '%s\n' "755 ./usr/bin/$name" "755 ./usr/lib/av-monitoring/$name-backoff" \
            "644 ./usr/lib/systemd/system/$name.service" "644 ./usr/lib/sysusers.d/$name.conf" \
            "644 ./usr/lib/tmpfiles.d/$name.conf" "$mode ./etc/av-monitoring/$part.env" \
            "644 ./usr/share/doc/$name/copyright" "644 ./usr/share/man/man1/$name.1.gz" \
            "644 ./usr/share/bash-completion/completions/$name" "644 ./usr/share/zsh/vendor-completions/_$name" \
            "644 ./usr/share/fish/vendor_completions.d/$name.fish"
        [ "$part" = agent ] || say "644 ./usr/lib/systemd/system/$name@.service"
        printf '%s\n' "644 ./usr/share/doc/$name/changelog.gz" "644 ./usr/share/lintian/overrides/$name"
    )
    is=$(cd "$work/look" && find . -path ./DEBIAN -prune -o -type f -printf '%m %p\n' |
        grep -v "/usr/share/doc/$name/.*[.]\(md\|png\|svg\)$\|/usr/share/doc/$name/proxy/\|/man1/$name-.*[.]1[.]gz$")
    [ "$(sort <<<"$is")" = "$(sort <<<"$expected")" ] ||
        die "✗ $name $architecture holds: $(diff <(sort <<<"$expected") <(sort <<<"$is"))"
    is=$(cd "$work/look" && find . -path ./DEBIAN -prune -o \( -type f ! -perm 755 ! -perm 644 ! -perm 600 -o -type d ! -perm 755 -o -type l \) -print)
    [ -z "$is" ] || die "✗ $name $architecture: unexpected modes or links: $is"
    dpkg-deb --contents "$package" | awk '$2 != "root/root" { print; wrong = 1 } END { exit wrong }' ||
        die "✗ $name $architecture has files that are not root's"
    (cd "$work/look" && md5sum --quiet --check DEBIAN/md5sums) || die "✗ $name $architecture: md5sums are wrong"
    [ "$(cat "$work/look/DEBIAN/conffiles")" = "/etc/av-monitoring/$part.env" ] ||
        die "✗ $name $architecture: conffiles are $(cat "$work/look/DEBIAN/conffiles")"
    [ "$(find "$work/look/etc" -type f -printf '/etc/%P\n')" = "/etc/av-monitoring/$part.env" ] ||
        die "✗ $name $architecture has a file in /etc that is no conffile"
}

# Guides with all that they show and link to, and the manual.
documents() {
    local name=$1 architecture=$2 guide page said
    for guide in "$root"/docs/*.md; do
        case ${guide##*/} in writing-a-driver.md) continue ;; esac
        [ -e "$work/look/usr/share/doc/$name/${guide##*/}" ] || die "✗ $name $architecture has no ${guide##*/}"
    done
    python3 -B "$root/scripts/check_links.py" "$work/look/usr/share/doc/$name" ||
        die "✗ $name $architecture: links of its guides lead nowhere"
    for page in "$work/look/usr/share/man/man1"/*.1.gz; do
        gzip -t "$page"
        # A page that troff complains of is not shown as it should be.
        ! command -v man >/dev/null || {
            said=$(man --warnings --local-file "$page" 2>&1 >/dev/null)
            [ -z "$said" ] || die "✗ $name $architecture: ${page##*/}: $said"
        }
    done
}

# What Debian's own judge says, where it is there. A quick build is not stripped.
judged() {
    local package=$1 said
    has lintian || return 0
    local -a quick=()
    [ "${AV_BUILD_PROFILE:-release}" = release ] || quick=(--suppress-tags unstripped-binary-or-object)
    said=$(lintian --allow-root --fail-on error,warning "${quick[@]}" "$package") ||
        die "✗ lintian, of ${package##*/}: $said"
}

# What a package says of itself and holds.
look() {
    local name=$1 architecture=$2 package=$3
    rm -rf "$work/look"
    dpkg-deb --raw-extract "$package" "$work/look"
    fields "$package" "$name" "$architecture"
    files "$package" "$name" "$architecture"
    documents "$name" "$architecture"
    [ "${AV_BUILD_PROFILE:-release}" != release ] || ! readelf --sections --wide "$work/look/usr/bin/$name" |
        grep -q '[.]symtab' || die "✗ $name $architecture: its program is not stripped"
    judged "$package"
    # They are the same for each architecture, and want a program that runs.
    [ "$architecture" != "$here" ] || "$root/scripts/test-completions.sh" "$work/look" "$name"
    say "$name $architecture: $(stat -c %s "$package") bytes; fields, files, links and man pages are right"
}

has lintian || say 'The packages are not judged by lintian, which is not here.'
for entry in "${packages[@]}"; do
    read -r name architecture <<<"$entry"
    look "$name" "$architecture" "$AV_DEB_FOLDER/${name}_0.0.1_$architecture.deb"
    variant "$AV_DEB_FOLDER/${name}_0.0.1_$architecture.deb" "$name" 0.0.2 next
    variant "$AV_DEB_FOLDER/${name}_0.0.1_$architecture.deb" "$name" 0.0.3 broken
done

if [ -z "$small" ]; then
    # A root folder that is open to root alone would be so for its users too.
    chmod 755 "$work"
    small=$work/small
    make_debian "$small" bookworm systemd ca-certificates
fi

within() { chroot "$small" "$@"; }
# A link may lead to where it does only within the folder.
there() { [ -e "$small$1" ] || [ -L "$small$1" ] || die "✗ $2: $1 is not there"; }
gone() { { [ ! -e "$small$1" ] && [ ! -L "$small$1" ]; } || die "✗ $2: $1 is still there"; }
# A processor's architecture and its libraries are what differs for ARM.
options_of() { [ "$1" = "$here" ] || say --force-architecture,depends; }
# Bounded: a maintainer script that waits is a failure. What it said is in the
# log.
dpkg_in() {
    DEBIAN_FRONTEND=noninteractive timeout 300 chroot "$small" dpkg "$@" >"$work/dpkg.log" 2>&1 </dev/null ||
        die "✗ dpkg $*: $(tail -n 5 "$work/dpkg.log")"
}
says() { grep -q -- "$1" "$work/dpkg.log" || die "✗ $2 does not say $1: $(cat "$work/dpkg.log")"; }
runs() {
    case $2 in
    arm64) qemu-aarch64-static -L /usr/aarch64-linux-gnu "$small/usr/bin/$1" --version ;;
    armhf) qemu-arm-static -L /usr/arm-linux-gnueabihf "$small/usr/bin/$1" --version ;;
    *) within "/usr/bin/$1" --version ;;
    esac
}
# Files, users and groups; dpkg's own records apart.
state() { within sh -c 'cat /etc/passwd /etc/group; find /etc /lib /usr /var/lib -path /var/lib/dpkg -prune -o -print | sort'; }

# version_is NAME VERSION
version_is() {
    local is
    # shellcheck disable=SC2016  # dpkg-query's own
    is=$(within dpkg-query -W -f '${Version} ${Status}' "$1")
    [ "$is" = "$2 install ok installed" ] || die "✗ $1 is $is, not $2"
}

install_and_upgrade() {
    local name=$1 architecture=$2 part=${1#av-}
    local -a options
    mapfile -t options < <(options_of "$architecture")
    cp "$AV_DEB_FOLDER/${name}"_0.0.[123]_"$architecture.deb" "$small/root/"
    dpkg_in "${options[@]}" -i "/root/${name}_0.0.1_$architecture.deb"
    [ "$(runs "$name" "$architecture" | cut -d ' ' -f 1)" = "$name" ] || die "✗ $name $architecture does not run"
    says "systemctl enable --now $name" 'the first installation'
    local file
    for file in "/usr/lib/systemd/system/$name.service" "/etc/av-monitoring/$part.env" /var/lib/av-monitoring; do
        there "$file" 'after the installation'
    done
    within getent passwd "$name" >/dev/null || die "✗ there is no user $name"
    # Changed by the administrator, and state from a running program.
    say '#kept' >>"$small/etc/av-monitoring/$part.env"
    mkdir -p "$small/var/lib/av-monitoring/$part"
    say state >"$small/var/lib/av-monitoring/$part/state"
    # What apt does without a terminal, where its question has no answer.
    dpkg_in "${options[@]}" --force-confdef --force-confold -i "/root/${name}_0.0.2_$architecture.deb"
    grep -q '#kept' "$small/etc/av-monitoring/$part.env" || die "✗ the upgrade lost a changed conffile of $name"
    there "/etc/av-monitoring/$part.env.dpkg-dist" 'the new version of a conffile'
    there "/var/lib/av-monitoring/$part/state" 'after the upgrade'
    ! grep -q 'Next:' "$work/dpkg.log" || die "✗ the upgrade of $name says what to do first"
    version_is "$name" 0.0.2
    say "$name $architecture: installed, upgraded with a changed conffile"
}

# Whatever the program and its configuration are like, dpkg ends, and the next
# version mends it.
broken_and_back() {
    local name=$1 architecture=$2 part=${1#av-}
    local -a options
    mapfile -t options < <(options_of "$architecture")
    options+=(--force-confdef --force-confold)
    dpkg_in "${options[@]}" -i "/root/${name}_0.0.3_$architecture.deb"
    version_is "$name" 0.0.3
    ! runs "$name" "$architecture" >/dev/null 2>&1 || die "✗ the broken $name runs"
    : >"$small/etc/av-monitoring/$part.env"
    dpkg_in "${options[@]}" --force-downgrade -i "/root/${name}_0.0.1_$architecture.deb"
    version_is "$name" 0.0.1
    [ ! -s "$small/etc/av-monitoring/$part.env" ] || die "✗ the downgrade filled an empty conffile of $name"
    rm "$small/etc/av-monitoring/$part.env"
    dpkg_in "${options[@]}" -i "/root/${name}_0.0.3_$architecture.deb"
    dpkg_in "${options[@]}" -i "/root/${name}_0.0.3_$architecture.deb"
    gone "/etc/av-monitoring/$part.env" 'a conffile that the administrator deleted'
    dpkg_in "${options[@]}" --force-downgrade -i "/root/${name}_0.0.2_$architecture.deb"
    version_is "$name" 0.0.2
    there "/var/lib/av-monitoring/$part/state" 'after upgrade and downgrade'
    [ "$(runs "$name" "$architecture" | cut -d ' ' -f 1)" = "$name" ] || die "✗ $name $architecture does not run again"
    # As delivered, for what comes next.
    dpkg_in "${options[@]}" --force-confmiss -i "/root/${name}_0.0.2_$architecture.deb"
    there "/etc/av-monitoring/$part.env" 'with --force-confmiss'
    say "$name $architecture: broken, its configuration empty and missing, downgraded and mended"
}

remove_and_purge() {
    local name=$1 architecture=$2 part=${1#av-}
    # Enabled, and removed where no systemd runs to disable it.
    within systemctl --quiet enable "$name.service"
    there "/etc/systemd/system/multi-user.target.wants/$name.service" 'enabled'
    dpkg_in -r "$name"
    gone "/usr/bin/$name" 'after the removal'
    there "/etc/av-monitoring/$part.env" 'after the removal'
    there "/var/lib/av-monitoring/$part/state" 'after the removal'
    dpkg_in -P "$name"
    says "$name: configuration" 'the purge'
    rm "$small/root/${name}"_0.0.[123]_"$architecture.deb"
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
[ "$(within stat -c '%U %a' /etc/av-monitoring/backend.env)" = 'root 600' ] || die '✗ the address of the database is open to others'
broken_and_back av-agent "$here"
broken_and_back av-backend "$here"
remove_and_purge av-agent "$here"
there /etc/av-monitoring/backend.env "after the purge of the other package"
remove_and_purge av-backend "$here"
leaves_nothing
for entry in "${packages[@]}"; do
    read -r name architecture <<<"$entry"
    [ "$architecture" != "$here" ] || continue
    install_and_upgrade "$name" "$architecture"
    remove_and_purge "$name" "$architecture"
    leaves_nothing
done
