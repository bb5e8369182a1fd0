#!/bin/bash
# Asks zsh and fish what they offer for a command that is being typed, with the
# completions in a folder that is laid out as / is: an unpacked package.
#
#   scripts/test-completions.sh FOLDER PROGRAM
#
# Each shell begins with nothing but that folder. One that is not there is left
# out, with a word. What bash offers is in scripts/manual/tests/manual.rs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

[ $# -eq 2 ] || die "test-completions.sh FOLDER PROGRAM"
folder=$(realpath "$1")
program=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# What is typed, and a word that is to be offered. The last line of each has a
# word that no command has: files of the folder are no answer to it.
case $program in
av-agent)
    cat <<'LINES'
av-agent st|status
av-agent status --wa|--watch
av-agent probe --pass|--password-file
av-agent disc|discover
av-agent no-such|
LINES
    ;;
av-backend)
    cat <<'LINES'
av-backend mi|migrate
av-backend user a|add
av-backend user add --role |admin
av-backend restore --fo|--force
av-backend no-such|
LINES
    ;;
*) die "test-completions.sh: there is no program $program" ;;
esac >"$work/lines"
mkdir "$work/home" "$work/zsh"
clean=(env -i "HOME=$work/home" "XDG_DATA_DIRS=$folder/usr/share" "PATH=$folder/usr/bin:/usr/bin:/bin"
    LC_ALL=C.UTF-8 TERM=xterm)

# fish_offers LINE: what it offers, one a line, a description after a tab.
fish_offers() {
    # shellcheck disable=SC2016  # fish's own
    (cd "$work/home" && timeout 60 "${clean[@]}" fish -c 'complete -C $argv[1]' "$1" </dev/null | cut -f 1)
}

# A zsh that completes one line as soon as its prompt is there, and ends.
cat >"$work/zsh/.zshrc" <<'ZSH'
fpath=($OFFER_FOLDER $fpath)
autoload -Uz compinit
compinit -u -D
# Every completion function hands its words to this one.
compadd() {
    local -a offered
    builtin compadd -A offered "$@"
    print -rl -- $offered >>$OFFER_INTO
    builtin compadd "$@"
}
offer() {
    BUFFER=$OFFER_LINE CURSOR=$#OFFER_LINE
    zle complete-word
    print end >>$OFFER_INTO
    exit
}
zle -N zle-line-init offer
zle -N offer
ZSH

# zsh_offers LINE: its editor wants a terminal, which zpty is.
zsh_offers() {
    : >"$work/offered"
    # shellcheck disable=SC2016  # zsh's own
    (cd "$work/home" && timeout 60 "${clean[@]}" "ZDOTDIR=$work/zsh" "OFFER_LINE=$1" "OFFER_INTO=$work/offered" \
        "OFFER_FOLDER=$folder/usr/share/zsh/vendor-completions" \
        zsh -f -c 'zmodload zsh/zpty; zpty shell zsh -i; zpty -r shell all "*never said*"; true' </dev/null)
    [ "$(tail -n 1 "$work/offered")" = end ] || die "✗ zsh does not complete: $1"
    sed '$d' "$work/offered"
}

shells=()
for shell in zsh fish; do
    if ! has "$shell"; then
        say "$program: completions not tried in $shell, which is not here"
        continue
    fi
    shells+=("$shell")
    while IFS='|' read -r line expected; do
        offered=$("${shell}_offers" "$line")
        if [ -n "$expected" ]; then
            grep -qFx -- "$expected" <<<"$offered" || die "✗ $shell, for \"$line\": $offered"
        else
            [ -z "$(tr -d '[:space:]' <<<"$offered")" ] || die "✗ $shell offers, for \"$line\": $offered"
        fi
    done <"$work/lines"
done
[ ${#shells[@]} -eq 0 ] || say "$program: completed as it should be in ${shells[*]}"
