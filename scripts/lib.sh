# shellcheck shell=bash
# What the scripts share. Sourced, not run.

# snmpd and friends are there, and not on a normal user's PATH; cargo may be
# installed and not on a service's.
PATH="$PATH:/usr/sbin:/sbin${HOME:+:$HOME/.cargo/bin}"
export PATH

# shellcheck source=scripts/progress.sh
. "$(dirname "${BASH_SOURCE[0]}")/progress.sh"
complain() { printf '%s\n' "$*" >&2; }
die() {
    complain "$@"
    exit 1
}

# The folder of a PostgreSQL server's programs: the one on PATH, which so says
# what version is tried, else the newest that is installed. Most systems keep
# them off the PATH. The tests and the backend search alike.
postgres_bin() {
    local initdb newest=''
    # Where it really is: PostgreSQL's own user may not look into a folder of links.
    initdb=$(readlink -f "$(command -v initdb)") || initdb=
    if [ -n "$initdb" ] && [ -x "$(dirname "$initdb")/postgres" ]; then
        dirname "$initdb"
        return 0
    fi
    newest=$(find /usr/lib/postgresql*/ /usr/pgsql-*/ -mindepth 2 -maxdepth 3 -path '*/bin/initdb' 2>/dev/null |
        sort -V | tail -n 1) || true
    [ -n "$newest" ] || return 1
    dirname "$newest"
}

# The oldest Rust that the workspace promises to build with, and the one whose
# rustfmt and clippy judge the code.
rust_version=1.85

# shellcheck source=scripts/needs.sh
. "$(dirname "${BASH_SOURCE[0]}")/needs.sh"
# shellcheck source=scripts/lints.sh
. "$(dirname "${BASH_SOURCE[0]}")/lints.sh"

# The newest glibc that a published program may ask for, on every architecture:
# that of Debian 12 and Raspberry Pi OS bookworm. Ubuntu has it since 24.04. It
# is said here alone; programs are measured against it by scripts/build-deb.sh
# and scripts/build-arm.sh, and the guides by scripts/test-deb.sh.
export glibc_promised=2.36

# glibc_of PROGRAM prints the glibc that it asks for, and nothing where it asks
# for none: the newest version of a symbol that is not weak, and 2.36 for packed
# relocations (agent/build.rs), which have a name instead of a version. Any
# readelf reads programs of any architecture.
glibc_of() {
    readelf --version-info --wide "$1" |
        awk '/Name: GLIBC_/ && !/Flags: WEAK/ {
            sub(/.*Name: GLIBC_/, ""); sub(/ .*/, ""); sub(/^ABI_DT_RELR$/, "2.36")
            if (/^[0-9.]+$/) print
        }' | sort -uV | tail -n 1
}

# Whether one version is another one or newer, as 2.4 and 2.36 are compared.
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | tail -n 1)" = "$1" ]; }

# use_oldest_rust ROOT [ARCHITECTURE...] makes cargo and rustc of this script
# those of the oldest Rust promised, with the standard libraries of the named
# Debian architectures. They come from rustup where it is there, otherwise from
# Debian's packages. AV_MSRV_DIR names a folder with a rustc, which is taken
# instead.
use_oldest_rust() {
    local root=$1 architecture folder
    shift
    if [ -z "${AV_MSRV_DIR:-}" ] && command -v rustup >/dev/null; then
        if folder=$(get_rustup_rust "$@"); then
            unset RUSTC
            PATH=$folder:$PATH
            return 0
        fi
        complain "rustup does not have Rust $rust_version for this: it is taken from Debian's packages."
    fi
    if [ $# -eq 0 ] && [ -z "${AV_MSRV_DIR:-}" ] && rust_is rustc; then return 0; fi
    get_rust "$root"
    for architecture in "$@"; do
        get_rust_target "$architecture" "$(arm_triple "$architecture")"
    done
    RUSTC=$(rust_folder)/rustc
    export RUSTC
}

# Prints the folder of rustup's programs of that version, got where they are
# missing. It changes neither rustup's default nor rustup itself.
get_rustup_rust() {
    local architecture cargo triple std
    if ! cargo=$(rustup which --toolchain "$rust_version" cargo 2>/dev/null); then
        complain "Getting Rust $rust_version with rustup"
        rustup toolchain install "$rust_version" --profile minimal --no-self-update >&2 || return 1
        cargo=$(rustup which --toolchain "$rust_version" cargo) || return 1
    fi
    for architecture in "$@"; do
        triple=$(arm_triple "$architecture")
        std=${cargo%/bin/cargo}/lib/rustlib/$triple/lib
        if [ ! -d "$std" ]; then
            complain "Getting the standard library for $architecture with rustup"
            rustup target add --toolchain "$rust_version" "$triple" >&2 || return 1
        fi
    done
    dirname "$cargo"
}

# Whether a compiler is of that version.
rust_is() {
    case $("$1" --version 2>/dev/null) in
    "rustc $rust_version."*) true ;;
    *) false ;;
    esac
}

# The folder of Debian's compiler, that the next functions look after.
rust_folder() {
    realpath -m "${AV_MSRV_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/av-monitoring/rust-$rust_version}"
}

rust_works() { rust_is "$1/rustc"; }

# The newest build of that version of a package that the package lists have.
rust_build_of() {
    apt-cache madison "$1" 2>/dev/null | awk -F' *[|] *' -v want="$rust_version" '
        index($2, want ".") == 1 { print $2; exit }'
}

# Prints the package of that compiler (bookworm: rustc-web, trixie: rustc) and
# its build.
rust_package() {
    local name build
    for name in rustc-web rustc; do
        build=$(rust_build_of "$name")
        if [ -n "$build" ]; then
            say "$name $build"
            return 0
        fi
    done
    return 1
}

# Unpacks the compiler for this machine into a folder.
unpack_rust() {
    local root=$1 into=$2 compiler build arch library
    has_apt || die "Rust $rust_version is taken from Debian's packages, and this is no Debian. Set AV_MSRV_DIR to a folder with a rustc of that version."
    read -r compiler build < <(rust_package) || return 1
    local std=libstd-rust${compiler#rustc}
    arch=$(dpkg --print-architecture)
    mkdir -p "$into/debs"
    (
        cd "$into/debs" || exit
        # Root's apt would hand the download to a user who may not write here.
        apt-get download -q -o APT::Sandbox::User=root \
            "$compiler:$arch=$build" "$std-$rust_version:$arch=$build" "$std-dev:$arch=$build" >/dev/null
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
    say "$compiler $build" >"$into/package"
    # The folder is found from the script, so that it can be moved.
    cat >"$into/rustc" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libraries=$here/usr/lib
for folder in "$here"/usr/lib/*-linux-*; do libraries=$folder:$libraries; done
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/usr/bin/rustc" "$@"
WRAPPER
    chmod 755 "$into/rustc"
    rust_works "$into" || die "The unpacked compiler does not run: $("$into/rustc" --version 2>&1 | head -n 3)"
}

# Sees to it that the compiler is in `rust_folder`: nothing is installed but
# libllvm19 where it is missing.
get_rust() {
    local root=$1 folder fresh
    folder=$(rust_folder)
    if rust_works "$folder"; then return 0; fi
    say "Getting Rust $rust_version from Debian's packages into $folder"
    mkdir -p "$(dirname "$folder")"
    fresh=$(mktemp -d "$folder.XXXXXX")
    # shellcheck disable=SC2064  # its name now
    trap "rm -rf '$fresh'" EXIT
    if ! unpack_rust "$root" "$fresh"; then
        [ "$(id -u)" -ne 0 ] || apt-get update >/dev/null
        unpack_rust "$root" "$fresh" || die "No Debian package of Rust $rust_version found. Set AV_MSRV_DIR to a folder with a rustc of that version."
    fi
    rm -rf "$folder"
    mv "$fresh" "$folder"
    trap - EXIT
}

# The folder of a profile's programs below that of the target.
profile_folder() {
    case $1 in
    dev) say debug ;;
    *) say "$1" ;;
    esac
}

# cargo_tool NAME VERSION OPTIONS... prints the path of a tool of cargo's, built
# once from crates.io into the cache folder of the user.
cargo_tool() {
    local name=$1 version=$2 folder
    folder=${XDG_CACHE_HOME:-$HOME/.cache}/av-monitoring/$name-$version
    if [ ! -x "$folder/bin/$name" ]; then
        complain "Building $name $version from crates.io into $folder"
        # Its own target folder: what it builds is of no use later.
        env -u CARGO_TARGET_DIR cargo install --quiet --locked --version "$version" --root "$folder" \
            "${@:3}" "$name" >&2 || return 1
    fi
    say "$folder/bin/$name"
}

# The cargo-deny that reads deny.toml.
get_cargo_deny() { cargo_tool cargo-deny 0.20.2; }

# The cargo-cyclonedx that lists the libraries of a program.
get_cargo_cyclonedx() { cargo_tool cargo-cyclonedx 0.5.9; }

# Sees to it that this compiler has the standard library of another Debian
# architecture. Its packages do not install beside the host's, and the host's
# package lists need not know that architecture: the lists are fetched into a
# folder of their own.
get_rust_target() {
    local arch=$1 triple=$2 folder lists compiler build std library
    folder=$(rust_folder)
    if [ -d "$folder/usr/lib/rustlib/$triple/lib" ]; then return 0; fi
    has_apt || die "The standard library for $arch is taken from Debian's packages, and this is no Debian."
    say "Getting the standard library for $arch from Debian's packages"
    if [ -r "$folder/package" ]; then
        read -r compiler build <"$folder/package"
    else
        read -r compiler build < <(rust_package) || die "No Debian package of Rust $rust_version found."
    fi
    std=libstd-rust${compiler#rustc}
    lists=$(mktemp -d)
    # shellcheck disable=SC2064  # its name now
    trap "rm -rf '$lists'" EXIT
    mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$lists/debs" "$lists/unpacked"
    touch "$lists/status"
    local -a other=(-q -o "APT::Architecture=$arch" -o "APT::Architectures=$arch"
        -o "Dir::State::Lists=$lists/lists" -o "Dir::State::status=$lists/status"
        -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none)
    # A mirror in the middle of an update spoils one list of several, and not
    # always the one that is wanted.
    apt-get update "${other[@]}" >/dev/null || complain "Not every package list of $arch was had."
    (cd "$lists/debs" && apt-get download "${other[@]}" "$std-dev=$build" >/dev/null) || die "$std-dev $build for $arch cannot be had."
    for library in "$lists"/debs/*.deb; do
        dpkg -x "$library" "$lists/unpacked"
    done
    # Moved at the end: a folder that is there is whole.
    mv "$lists/unpacked/usr/lib/rustlib/$triple" "$folder/usr/lib/rustlib/$triple.new"
    mv "$folder/usr/lib/rustlib/$triple.new" "$folder/usr/lib/rustlib/$triple"
    rm -rf "$lists"
    trap - EXIT
}

# What a build for ARM and its test need, printed where it is missing.
missing_arm_packages() {
    command -v aarch64-linux-gnu-gcc >/dev/null || say gcc-aarch64-linux-gnu
    command -v arm-linux-gnueabihf-gcc >/dev/null || say gcc-arm-linux-gnueabihf
    [ -e /usr/aarch64-linux-gnu/include/stdlib.h ] || say libc6-dev-arm64-cross
    [ -e /usr/arm-linux-gnueabihf/include/stdlib.h ] || say libc6-dev-armhf-cross
    command -v qemu-aarch64-static >/dev/null || say qemu-user-static
}

# The name that Rust has for a Debian architecture of the boards.
arm_triple() {
    case $1 in
    arm64) say aarch64-unknown-linux-gnu ;;
    armhf) say armv7-unknown-linux-gnueabihf ;;
    *) die "The boards have no architecture $1." ;;
    esac
}
