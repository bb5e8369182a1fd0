# shellcheck shell=bash
# Folders with a Debian in them, for tests that install, boot or build in one.
# Sourced after lib.sh. Takes root.
#
#   make_debian FOLDER SUITE PACKAGES...   debootstrap, or the copy of an earlier one
#   remove_folder FOLDER                   deletes it, and nothing through a mount
#   impossible WORDS...                    ends the script with 77

folders_here=$(dirname "${BASH_SOURCE[0]}")

# Ends a test that lacks what it needs: that is no failure.
impossible() {
    complain "$@"
    exit 77
}

# Prints mounts below a folder, deepest first.
mounts_below() {
    findmnt --raw --noheadings --output TARGET | awk -v below="$1/" 'index($0, below) == 1' | sort -r
}

# Takes away what is mounted below a folder. Fails, with a word, where a mount
# stays.
unmount_below() {
    local mount
    while read -r mount; do
        umount "$mount" || true
    done < <(mounts_below "$1")
    [ -z "$(mounts_below "$1")" ] || {
        complain "$1 has mounts, and is left"
        return 1
    }
}

# Deletes a folder, and nothing through a mount that is left in it.
remove_folder() {
    [ -d "$1" ] || return 0
    unmount_below "$1" || return 1
    rm -rf --one-file-system "$1"
}

# make_debian FOLDER SUITE PACKAGES...: a small Debian. It is kept as an archive
# in the user's cache folder, for a week and as long as the same packages are
# asked for.
make_debian() {
    local folder=$1 suite=$2 list cache archive
    shift 2
    list=$(IFS=,; echo "$*")
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/av-monitoring
    archive=$cache/debian-$suite-$(printf %s "$list" | md5sum | cut -c 1-8).tar
    mkdir -p "$folder"
    chmod 755 "$folder"
    if [ -n "$(find "$archive" -mtime -7 2>/dev/null)" ]; then
        tar -C "$folder" -xpf "$archive" --numeric-owner --xattrs --xattrs-include='*'
        return
    fi
    command -v debootstrap >/dev/null || "$folders_here/install-packages.sh" debootstrap || {
        complain 'There is no debootstrap.'
        return 77
    }
    say "Making a Debian $suite"
    debootstrap --variant=minbase --include="$list" "$suite" "$folder" >"$folder.log" 2>&1 || {
        complain "debootstrap failed: $(tail -n 3 "$folder.log")"
        return 77
    }
    rm -f "$folder"/var/cache/apt/archives/*.deb
    mkdir -p "$cache"
    if tar -C "$folder" -cpf "$archive.$$" --numeric-owner --xattrs --xattrs-include='*' .; then
        mv "$archive.$$" "$archive"
    else
        rm -f "$archive.$$"
    fi
}
