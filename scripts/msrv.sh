#!/bin/bash
# Checks that the workspace builds with the oldest Rust that it promises.
#
#   scripts/msrv.sh            cargo check of everything, with Rust 1.85
#   scripts/msrv.sh CARGO-ARGUMENTS...
#
# Where rustup is there, the compiler is its own, got with
# `rustup toolchain install 1.85 --profile minimal`. Where it is not, a rustc of
# that version at hand will do, and otherwise it comes from Debian's packages
# (bookworm: rustc-web, trixie: rustc), unpacked into a folder of its own:
# nothing is installed but libllvm19 where it is missing. AV_MSRV_DIR names that
# folder, and is taken before all others; by default it is in the cache folder
# of the user.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

if [ "${1-}" = --help ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi

need_cargo
cd "$root"
use_oldest_rust "$root"
# Apart from the everyday target folder: each would spoil the other's cache.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/msrv"
if [ $# -eq 0 ]; then
    set -- check --workspace --all-targets --locked
fi
cargo "$@"
say "Builds with Rust $rust_version."
