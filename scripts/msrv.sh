#!/bin/bash
# Checks that the workspace builds with the oldest Rust that it promises.
#
#   scripts/msrv.sh            cargo check of everything, with Rust 1.85
#   scripts/msrv.sh CARGO-ARGUMENTS...
#
# The compiler comes from Debian's packages (bookworm: rustc-web, trixie:
# rustc), unpacked into a folder of its own: nothing is installed but
# libllvm19 where it is missing. AV_MSRV_DIR names that folder; by default it
# is in the cache folder of the user.
set -euo pipefail

version=1.85
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

if [ "${1-}" = --help ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi

folder=${AV_MSRV_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/av-monitoring/rust-$version}
folder=$(realpath -m "$folder")

works() {
    case $("$1/rustc" --version 2>/dev/null) in
    "rustc $version."*) true ;;
    *) false ;;
    esac
}

# The newest build of that version that the package lists have.
build_of() {
    apt-cache madison "$1" 2>/dev/null | awk -F' *[|] *' -v want="$version" '
        index($2, want ".") == 1 { print $2; exit }'
}

get_compiler() {
    local into=$1 compiler='' build='' name arch library
    command -v apt-get >/dev/null || die "Rust $version is taken from Debian's packages, and this is no Debian. Set AV_MSRV_DIR to a folder with a rustc of that version."
    for name in rustc-web rustc; do
        build=$(build_of "$name")
        if [ -n "$build" ]; then
            compiler=$name
            break
        fi
    done
    [ -n "$compiler" ] || return 1
    local std=libstd-rust${compiler#rustc}
    arch=$(dpkg --print-architecture)
    mkdir -p "$into/debs"
    (
        cd "$into/debs"
        # Root's apt would hand the download to a user who may not write here.
        apt-get download -q -o APT::Sandbox::User=root \
            "$compiler:$arch=$build" "$std-$version:$arch=$build" "$std-dev:$arch=$build" >/dev/null
        if ! ldconfig -p | grep -q 'libLLVM[-.]19\|libLLVM.so.19'; then
            if [ "$(id -u)" -eq 0 ]; then
                "$root/scripts/install-packages.sh" libllvm19
            else
                apt-get download -q "libllvm19:$arch" >/dev/null
            fi
        fi
    )
    for library in "$into"/debs/*.deb; do
        dpkg -x "$library" "$into"
    done
    rm -r "$into/debs"
    # The folder is found from the script, so that it can be moved.
    cat >"$into/rustc" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libraries=$here/usr/lib
for folder in "$here"/usr/lib/*-linux-*; do libraries=$folder:$libraries; done
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/usr/bin/rustc" "$@"
WRAPPER
    chmod 755 "$into/rustc"
    works "$into" || die "The unpacked compiler does not run: $("$into/rustc" --version 2>&1 | head -n 3)"
}

if ! works "$folder"; then
    say "Getting Rust $version from Debian's packages into $folder"
    mkdir -p "$(dirname "$folder")"
    fresh=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    if ! get_compiler "$fresh"; then
        [ "$(id -u)" -ne 0 ] || apt-get update >/dev/null
        get_compiler "$fresh" || die "No Debian package of Rust $version found. Set AV_MSRV_DIR to a folder with a rustc of that version."
    fi
    rm -rf "$folder"
    mv "$fresh" "$folder"
    trap - EXIT
fi

need_cargo
cd "$root"
export RUSTC="$folder/rustc"
# Apart from the everyday target folder: each would spoil the other's cache.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/msrv"
if [ $# -eq 0 ]; then
    set -- check --workspace --all-targets --locked
fi
cargo "$@"
say "Builds with Rust $version."
