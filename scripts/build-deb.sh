#!/bin/bash
# Builds the Debian packages: av-agent for one or more architectures, and
# av-backend.
#
#   scripts/build-deb.sh                      av-agent and av-backend of this
#                                             machine's architecture
#   scripts/build-deb.sh --arm                and av-agent for arm64 and armhf
#   scripts/build-deb.sh --arm-backend        and av-backend for these too
#   scripts/build-deb.sh --version 1.2.3~rc1  with another version than Cargo's
#   scripts/build-deb.sh --promised           ends with 1 where a program asks
#                                             for a newer glibc than is promised
#
# They are put into target/debian, or under CARGO_TARGET_DIR. The programs are
# compiled by the oldest Rust promised, which every architecture has: from
# rustup, or from Debian's packages (see scripts/msrv.sh). dpkg-deb packs them;
# the same sources and the same compiler make the same bytes.
#
# The environment says what this project cannot know:
#
#   AV_DEB_MAINTAINER   who publishes them, as "Name <address>"; without it an
#                       address of example.org, that has no reader
#   AV_DEB_FOLDER       where they are put instead
#   AV_BUILD_PROFILE=dev  packs a quick build by the cargo at hand, for a test
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

arm=no
arm_backend=no
promised=no
version=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --arm) arm=yes ;;
    --arm-backend) arm=yes arm_backend=yes ;;
    --promised) promised=yes ;;
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
install_missing "$root" missing_deb_packages
need_cargo
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
[ -n "$version" ] || version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
into=$(realpath -m "${AV_DEB_FOLDER:-$target/debian}")
maintainer=${AV_DEB_MAINTAINER:-AV Monitoring maintainers <av-monitoring@example.org>}
profile=${AV_BUILD_PROFILE:-release}
here=$(dpkg --print-architecture)
# The files' dates, so that they do not differ from one build to the next.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$into"

# Prints the glibc that a package depends on: the one that is promised, on every
# architecture, and a newer one where its program asks for that.
glibc_for() {
    local needs
    needs=$(glibc_of "$1")
    if at_least "$glibc_promised" "$needs"; then say "$glibc_promised"; else say "$needs"; fi
}

# Prints the packages that hold the libraries of a program.
libraries_of() {
    local program=$1 library
    readelf --dynamic --wide "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' | while read -r library; do
        case $library in
        libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | ld-linux*)
            say "libc6 (>= $(glibc_for "$program"))"
            ;;
        libgcc_s.so.1) say libgcc-s1 ;;
        *) die "$program asks for $library, and build-deb.sh does not know its package." ;;
        esac
    done | sort -u
}

# The guides and what they show and link to. Those for who changes the sources
# link into the sources, and stay there.
guides() {
    local guide
    for guide in docs/*.md; do
        case $guide in docs/writing-a-driver.md) ;; *) say "$guide" ;; esac
    done
    find docs -type f ! -name '*.md' | sort | while read -r guide; do
        ! grep -qF "](${guide#docs/})" docs/*.md || say "$guide"
    done
}

copyright() {
    cat <<TEXT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2026 AV Monitoring maintainers
License: Expat or Apache-2.0

License: Expat
 Permission is hereby granted, free of charge, to any person obtaining a copy of
 this software and associated documentation files (the "Software"), to deal in
 the Software without restriction, including without limitation the rights to
 use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of
 the Software, and to permit persons to whom the Software is furnished to do so,
 subject to the following conditions:
 .
 The above copyright notice and this permission notice shall be included in all
 copies or substantial portions of the Software.
 .
 THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
 FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
 COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN
 AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION
 WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

License: Apache-2.0
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.
TEXT
}

# In the form that Debian's tools read; the changes themselves are a guide.
changelog() {
    cat <<TEXT
$1 ($version) stable; urgency=medium

  * What has changed is in /usr/share/doc/$1/CHANGELOG.md.

 -- $maintainer  $(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
TEXT
}

control() {
    local name=$1 architecture=$2 program=$3 tree=$4 line libraries
    libraries=$(libraries_of "$program" | paste -sd , | sed 's/,/, /g')
    cat <<TEXT
Package: $name
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du --apparent-size -sk "$tree" | cut -f 1)
Depends: $libraries, ca-certificates, systemd | systemd-standalone-sysusers
TEXT
    # For backup and restore.
    [ "$name" != av-backend ] || say 'Recommends: postgresql-client
Suggests: postgresql, nginx | caddy'
    say 'Section: net'
    say 'Priority: optional'
    line=$(sed -n 's/^description = "\(.*\)"/\1/p' "${name#av-}/Cargo.toml")
    say "Description: ${line,}"
    say ' Part of the monitoring of audio-visual equipment: an agent in the rack of each'
    say ' site watches projectors, switches and displays, and a backend with PostgreSQL'
    say ' says what is to be watched, and shows what was found.'
}

# put MODE FILE PATH: as root's, in the tree.
put() { install -D -m "$1" "$2" "$tree/$3"; }

# package NAME ARCHITECTURE PROGRAM
package() {
    local name=$1 architecture=$2 program=$3 part=${1#av-} tree="$work/$1-$2" guide script needs file mode
    file="$into/${name}_${version}_$architecture.deb"
    mode=644
    # The backend's address of the database has a password in it.
    [ "$part" = agent ] || mode=600
    put 755 "$program" "usr/bin/$name"
    put 755 systemd/backoff.sh "usr/lib/av-monitoring/$name-backoff"
    put 644 "systemd/$name.service" "usr/lib/systemd/system/$name.service"
    [ ! -e "systemd/$name@.service" ] || put 644 "systemd/$name@.service" "usr/lib/systemd/system/$name@.service"
    put 644 "systemd/$name.sysusers.conf" "usr/lib/sysusers.d/$name.conf"
    put 644 "systemd/$name.tmpfiles.conf" "usr/lib/tmpfiles.d/$name.conf"
    put "$mode" "systemd/$part.env" "etc/av-monitoring/$part.env"
    while read -r guide; do
        put 644 "$guide" "usr/share/doc/$name/${guide#docs/}"
    done < <(guides)
    copyright >"$work/copyright"
    put 644 "$work/copyright" "usr/share/doc/$name/copyright"
    changelog "$name" | gzip -9n >"$work/changelog.gz"
    put 644 "$work/changelog.gz" "usr/share/doc/$name/changelog.gz"
    put 644 "systemd/$name.lintian-overrides" "usr/share/lintian/overrides/$name"
    mkdir -p "$tree/usr/share"
    cp -r "$work/manual/$name/." "$tree/usr/share/"
    find "$tree/usr/share/man" -type f -exec gzip -9n {} +

    mkdir "$tree/DEBIAN"
    (cd "$tree" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    say "/etc/av-monitoring/$part.env" >"$tree/DEBIAN/conffiles"
    control "$name" "$architecture" "$program" "$tree" >"$tree/DEBIAN/control"
    for script in systemd/deb/*; do
        put 755 "$script" "DEBIAN/${script##*/}"
    done
    chmod -R u+rwX,go=rX "$tree"
    chmod "$mode" "$tree/etc/av-monitoring/$part.env"
    find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    # One thread: with several the blocks, and so the bytes, depend on the machine.
    local -a pack=(--root-owner-group --threads-max=1)
    [ "$profile" = release ] || pack+=(-Zgzip -z1)
    dpkg-deb "${pack[@]}" --build "$tree" "$file" >/dev/null
    rm -rf "$tree"
    needs=$(glibc_of "$program")
    say "$file: $(stat -c %s "$file") bytes, glibc $needs"
    at_least "$glibc_promised" "$needs" && return 0
    complain "$file asks for glibc $needs, newer than the $glibc_promised that is promised: it is for this system and newer ones, not for Debian 12."
    [ "$promised" = no ] || exit 1
}

# Man pages and completions, from what the programs say of their commands.
cargo build --locked -p av-manual
"$target/debug/av-manual" "$work/manual"
if [ "$profile" = release ]; then
    use_oldest_rust "$root"
    # Another target folder than the everyday compiler's: neither spoils the
    # other's cache.
    CARGO_TARGET_DIR=$target/packages
else
    CARGO_TARGET_DIR=$target
fi
export CARGO_TARGET_DIR
# Each alone: neither has features of libraries that only the other wants.
for name in av-agent av-backend; do
    cargo build --profile "$profile" --locked -p "$name"
    package "$name" "$here" "$CARGO_TARGET_DIR/$(profile_folder "$profile")/$name"
done
if [ "$arm" = yes ]; then
    names=(av-agent)
    options=()
    [ "$arm_backend" = no ] || names+=(av-backend) options=(--backend)
    CARGO_TARGET_DIR=$target scripts/build-arm.sh "${options[@]}"
    for architecture in arm64 armhf; do
        for name in "${names[@]}"; do
            package "$name" "$architecture" \
                "$target/arm/$(arm_triple "$architecture")/$(profile_folder "$profile")/$name"
        done
    done
fi
