#!/bin/bash
# Checks which rustfmt and clippy judge the code (scripts/lints.sh), with
# compilers that are scripts of two lines.
#
#   scripts/test-lints.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
status=0

program() {
    printf '#!/bin/sh\n%s\n' "$2" >"$folder/bin/$1"
    chmod 755 "$folder/bin/$1"
}

# machine VERSION TOOLS RUSTUP: a compiler, whether cargo has the tools, and
# what rustup is: none, empty, or one that has the tools of `rust_version`.
machine() {
    rm -rf "${folder:?}/bin"
    mkdir "$folder/bin"
    program rustc "echo 'rustc $1 (0123456 2025-01-01)'"
    program cargo "[ $2 = tools ]"
    case $3 in
    none) return 0 ;;
    has) touch "$folder/bin/installed" ;;
    esac
    program rustup "case \$1 in
run) [ -e '$folder/bin/installed' ] ;;
*) echo \"\$*\" >>'$folder/bin/asked' && touch '$folder/bin/installed' ;;
esac"
}

# expect WHAT INSTALL RESULT: what `find_lints` comes to, and what a lint that
# finds something is then.
expect() {
    local is
    # What the machine of the test has is not to be found.
    is=$(
        has_apt() { false; }
        has() { if [ "$1" = rustup ]; then [ -x "$folder/bin/rustup" ]; else command -v "$1" >/dev/null; fi; }
        PATH=$folder/bin:/usr/bin:/bin
        hash -r
        if find_lints "$root" "$2" >/dev/null; then
            if lint clippy false >/dev/null; then is=told; else is=failed; fi
            say "${lint_cargo[*]}: $is"
        else
            say without
        fi
    )
    if [ "$is" != "$3" ]; then
        complain "✗ $1: $is, instead of $3"
        status=1
    fi
}

machine "$rust_version.1" tools none
expect 'the pinned compiler' no 'cargo: failed'
machine "$rust_version.1" no none
expect 'the pinned compiler without tools' yes without
machine 1.99.1 tools none
expect 'another compiler' yes 'cargo: told'
machine 1.99.1 no none
expect 'another compiler without tools' yes without
machine 1.99.1 tools has
expect 'rustup with the pinned tools' no "rustup run $rust_version cargo: failed"
machine 1.99.1 tools empty
expect 'rustup without them, and nothing may be installed' no 'cargo: told'
machine 1.99.1 tools empty
expect 'rustup without them' yes "rustup run $rust_version cargo: failed"
grep -q "toolchain install $rust_version .*rustfmt.*clippy" "$folder/bin/asked" || {
    complain "✗ rustup is asked for something else: $(cat "$folder/bin/asked")"
    status=1
}
# 1.850 is no 1.85, should there be one.
machine "${rust_version}0.0" tools none
expect 'a version with the same beginning' yes 'cargo: told'

[ "$status" -ne 0 ] || say 'Only the pinned rustfmt and clippy judge.'
exit "$status"
