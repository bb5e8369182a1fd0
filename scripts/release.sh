#!/bin/bash
# Makes a release from a clean clone, into a folder: packages, archives of
# programs, an apt repository, images, lists of what is inside, checksums.
#
#   scripts/release.sh [FOLDER]      into target/release-VERSION
#   scripts/release.sh --draft       also from a changed tree, and without a tag
#   scripts/release.sh --only LIST   only these of amd64,arm64,armhf
#   scripts/release.sh --parts LIST  only these of debs,archives,sbom,apt,images
#   scripts/release.sh --profile dev quick builds, for a test
#   scripts/release.sh --base IMAGE  the Debian that images begin with, instead
#                                    of docker.io/library/debian:trixie-slim; a
#                                    folder made by debootstrap will do
#   scripts/release.sh --check-reproducible [OPTIONS]
#                                    makes it twice, from clones in two folders
#                                    of different names, and compares all bytes
#
# The version of Cargo.toml, the newest section of docs/CHANGELOG.md and the tag
# of the revision (vVERSION) must agree. docs/releasing.md tells the rest. The
# environment says what this project cannot know:
#
#   AV_SIGN_KEY         the key of gpg that signs the apt repository and the
#                       checksums; without it neither is signed
#   AV_DEB_MAINTAINER   who publishes the packages, as "Name <address>"
#   AV_APT_URL          where the apt repository will be, for its .sources file
#   SOURCE_DATE_EPOCH   the date of all files; otherwise that of the revision
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

arguments=("$@")
draft=no
check=no
only=amd64,arm64,armhf
parts=debs,archives,sbom,apt,images
profile=release
base=docker.io/library/debian:trixie-slim
folder=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --draft) draft=yes ;;
    --check-reproducible) check=yes ;;
    --only | --parts | --profile | --base)
        [ $# -gt 1 ] || die "release.sh: $1 wants a word after it"
        case $1 in
        --only) only=$2 ;;
        --parts) parts=$2 ;;
        --profile) profile=$2 ;;
        --base) base=$2 ;;
        esac
        shift
        ;;
    -*) die "release.sh: there is no option $1" ;;
    *) folder=$1 ;;
    esac
    shift
done
wants() { case ",$parts," in *",$1,"*) true ;; *) false ;; esac }
for_architecture() { case ",$only," in *",$1,"*) true ;; *) false ;; esac }
for word in ${only//,/ }; do
    case $word in amd64 | arm64 | armhf) ;; *) die "release.sh: there is no architecture $word" ;; esac
done
for word in ${parts//,/ }; do
    case $word in debs | archives | sbom | apt | images) ;; *) die "release.sh: there is no part $word" ;; esac
done
! wants apt || wants debs || die "release.sh: the apt repository holds the packages: --parts debs,apt"
! wants images || wants debs || die "release.sh: the images hold the programs of the packages: --parts debs,images"

cd "$root"
need_cargo
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
folder=$(realpath -m "${folder:-$root/target/release-$version}")
work=$(mktemp -d)
finish() {
    # buildah leaves its storage mounted.
    findmnt --raw --noheadings --output TARGET | awk -v below="$work/" 'index($0, below) == 1' | sort -r |
        while read -r mount; do umount "$mount" || true; done
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ------------------------------------------------------ version, tag, changes
agree() {
    local newest other tag
    newest=$(sed -n 's/^## \([0-9][^ ]*\) - \([0-9-]*\)$/\1/p' docs/CHANGELOG.md | head -n 1)
    [ "$newest" = "$version" ] || complain_or_die "Cargo.toml is of version $version, and docs/CHANGELOG.md of ${newest:-none}"
    other=$(grep -o '\(av-backend\|av-agent\|av-equipment\):[0-9][0-9.a-z~-]*' compose.yaml | grep -v ":$version$" || true)
    [ -z "$other" ] || complain_or_die "compose.yaml names $other instead of $version"
    tag=$(git tag --points-at HEAD | grep -Fx "v$version" || true)
    [ -n "$tag" ] || complain_or_die "the revision has no tag v$version"
    [ -z "$(git status --porcelain)" ] || complain_or_die "the tree has changes that are in no revision"
}
complain_or_die() {
    [ "$draft" = yes ] || die "$1. A draft may be made all the same: --draft"
    complain "draft: $1"
}
agree

# ------------------------------------------------------------ the same, twice
if [ "$check" = yes ]; then
    options=()
    for word in "${arguments[@]}"; do [ "$word" = --check-reproducible ] || options+=("$word"); done
    # Other names, of other lengths: a path in a program changes it.
    for name in one another/folder; do
        mkdir -p "$work/$name"
        git clone --quiet --no-local . "$work/$name/clone"
        git -C "$work/$name/clone" checkout --quiet --detach "$(git rev-parse HEAD)"
        say "── in $work/$name"
        (cd "$work/$name/clone" && env -u CARGO_TARGET_DIR scripts/release.sh "${options[@]}" "$work/$name/release")
    done
    sums() { (cd "$1" && find . -type f ! -name 'SHA256SUMS*' -exec sha256sum {} + | sort -k 2); }
    if diff <(sums "$work/one/release") <(sums "$work/another/folder/release") >"$work/differences"; then
        say "✓ The release is reproducible: $(sums "$work/one/release" | wc -l) files, the same bytes"
        exit 0
    fi
    cat "$work/differences"
    # reprepro writes the time at which it ran, and gpg that of a signature.
    unexplained=$(sed -n 's/^[<>] [0-9a-f]*  //p' "$work/differences" | sort -u |
        grep -v '/dists/[^/]*/\(Release\|InRelease\|Release[.]gpg\)$' || true)
    [ -z "$unexplained" ] || die "✗ Not reproducible: $unexplained"
    say "✓ The release is reproducible but for the date, and so the signature, of the apt repository"
    exit 0
fi

# --------------------------------------------------------------- environment
[ -z "$(ls -A "$folder" 2>/dev/null)" ] || die "$folder is not empty"
mkdir -p "$folder"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
export SOURCE_DATE_EPOCH CARGO_TARGET_DIR=$target LC_ALL=C TZ=UTC CARGO_INCREMENTAL=0
export AV_BUILD_PROFILE=$profile AV_DEB_FOLDER=$folder
export RUSTC_WRAPPER=$root/scripts/rustc-remapped.sh
export AV_REMAP_SOURCE=$root AV_REMAP_TARGET=$target AV_REMAP_CARGO=${CARGO_HOME:-$HOME/.cargo}
# The same for the C in libraries.
export CFLAGS="${CFLAGS:-} -ffile-prefix-map=$AV_REMAP_CARGO=/cargo -ffile-prefix-map=$target=/target"
umask 022

# packed FOLDER NAMES...: an archive of these in it that is the same each time.
packed() {
    tar --create --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        --directory "$1" "${@:2}"
}

# ------------------------------------------------------------------ packages
if wants debs; then
    options=()
    if for_architecture arm64 || for_architecture armhf; then options+=(--arm-backend); fi
    scripts/build-deb.sh --version "$version" "${options[@]}"
    for package in "$folder"/*.deb; do
        for_architecture "$(dpkg-deb --field "$package" Architecture)" || rm "$package"
    done
fi

# ------------------------------------------------------------------ archives
# Programs without a libc of their own where rustup has Rust's part for that, and
# those of the packages elsewhere. Rust's own linker and start files, and a C
# compiler of Debian: what is C in the libraries asks for no libc.
static_triple() {
    case $1 in
    amd64) say x86_64-unknown-linux-musl ;;
    arm64) say aarch64-unknown-linux-musl ;;
    armhf) say armv7-unknown-linux-musleabihf ;;
    *) false ;;
    esac
}
archive() {
    local architecture=$1 triple name tree programs cc
    if triple=$(static_triple "$architecture") && command -v rustup >/dev/null &&
        rustup target add --toolchain "$rust_version" "$triple" >/dev/null 2>&1; then
        case $architecture in
        amd64) cc=gcc ;;
        arm64) cc=aarch64-linux-gnu-gcc ;;
        armhf) cc=arm-linux-gnueabihf-gcc ;;
        esac
        local upper=${triple//-/_}
        for program in av-agent av-backend; do
            env "CARGO_TARGET_${upper^^}_LINKER=rust-lld" "CC_$upper=$cc" \
                cargo "+$rust_version" build --profile "$profile" --locked --target "$triple" \
                --target-dir "$target/static" -p "$program"
        done
        programs=$target/static/$triple/$(profile_folder "$profile")
        name=av-monitoring-$version-$architecture-static
    elif wants debs; then
        programs=$work/unpacked-$architecture
        for package in "$folder"/*_"$architecture.deb"; do dpkg-deb -x "$package" "$programs.d"; done
        programs=$programs.d/usr/bin
        name=av-monitoring-$version-$architecture
        say "$architecture: no static programs; those of the packages are in the archive"
    else
        complain "$architecture: no static programs, and no packages to take others from"
        return 0
    fi
    tree=$work/$name
    mkdir -p "$tree/bin" "$tree/systemd"
    install -m 755 "$programs/av-agent" "$programs/av-backend" "$tree/bin/"
    cp systemd/*.service systemd/*.conf systemd/*.env systemd/backoff.sh "$tree/systemd/"
    cp -r README.md docs "$tree/"
    chmod -R u=rwX,go=rX "$tree"
    packed "$work" "$name" | gzip -9n >"$folder/$name.tar.gz"
    say "$folder/$name.tar.gz: $(stat -c %s "$folder/$name.tar.gz") bytes"
}
if wants archives; then
    for architecture in ${only//,/ }; do archive "$architecture"; done
fi

# ---------------------------------------------------- lists of what is inside
if wants sbom; then
    cyclonedx=$(env -u RUSTC_WRAPPER -u CFLAGS bash -c '. scripts/lib.sh; get_cargo_cyclonedx') ||
        die "cargo-cyclonedx cannot be had."
    for part in agent backend; do
        scripts/sbom.py "$cyclonedx" "$part" "$SOURCE_DATE_EPOCH" >"$folder/av-$part-$version.cdx.json"
        say "$folder/av-$part-$version.cdx.json: $(grep -c '"purl"' "$folder/av-$part-$version.cdx.json") libraries"
    done
fi

# ------------------------------------------------------------ apt repository
if wants apt; then
    install_missing "$root" missing_release_packages
    mkdir -p "$work/apt/conf"
    {
        say "Origin: AV monitoring"
        say "Label: AV monitoring"
        say "Codename: stable"
        say "Architectures: ${only//,/ }"
        say "Components: main"
        say "Description: Monitoring of audio-visual equipment"
        [ -z "${AV_SIGN_KEY:-}" ] || say "SignWith: $AV_SIGN_KEY"
    } >"$work/apt/conf/distributions"
    for package in "$folder"/*.deb; do
        reprepro --silent --basedir "$work/apt" includedeb stable "$package"
    done
    mkdir "$folder/apt"
    cp -r "$work/apt/dists" "$work/apt/pool" "$folder/apt/"
    signed="Trusted: yes"
    if [ -n "${AV_SIGN_KEY:-}" ]; then
        gpg --batch --export "$AV_SIGN_KEY" >"$folder/apt/av-monitoring.gpg"
        signed="Signed-By: /usr/share/keyrings/av-monitoring.gpg"
    else
        complain "AV_SIGN_KEY is not set: the apt repository is not signed"
    fi
    printf 'Types: deb\nURIs: %s\nSuites: stable\nComponents: main\n%s\n' \
        "${AV_APT_URL:-https://apt.example.org/av-monitoring}" "$signed" >"$folder/apt/av-monitoring.sources"
    say "$folder/apt: $(find "$folder/apt/pool" -name '*.deb' | wc -l) packages"
fi

# -------------------------------------------------------------------- images
image() {
    local program=$1 architecture=$2 from=$3 context=$work/image-$1-$2 file
    mkdir -p "$context/target/container" "$context/scripts"
    dpkg-deb -x "$folder/${program}_${version}_$architecture.deb" "$context/unpacked"
    cp "$context/unpacked/usr/bin/$program" "$context/target/container/"
    cp -r scripts/container "$context/scripts/"
    file=$folder/$program-$version-$architecture.oci.tar
    # Files of one date; the image's own is that of the revision too.
    find "$context" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    (cd "$context" && buildah "${storage[@]}" bud --quiet --isolation chroot --arch "$(oci_architecture "$architecture")" \
        --timestamp "$SOURCE_DATE_EPOCH" --build-arg "BASE=$from" \
        --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --target packed \
        --label "org.opencontainers.image.version=$version" --label org.opencontainers.image.licenses='MIT OR Apache-2.0' \
        --tag "localhost/$program:$version" --file "$root/${program#av-}/Containerfile" .) >/dev/null
    # Not as an archive at once: buildah's has the time of now at each file.
    buildah "${storage[@]}" push --quiet "localhost/$program:$version" "oci:$context/oci:$program:$version"
    packed "$context/oci" blobs index.json oci-layout >"$file"
    say "$file: $(stat -c %s "$file") bytes"
}
oci_architecture() { case $1 in armhf) say arm ;; *) say "$1" ;; esac }
if wants images; then
    install_missing "$root" missing_image_packages
    storage=(--root "$work/storage" --runroot "$work/run")
    # A folder for containers of its own, whatever its file system can.
    buildah "${storage[@]}" images >/dev/null 2>&1 || storage+=(--storage-driver vfs)
    from=$base
    if [ -d "$base" ]; then
        container=$(buildah "${storage[@]}" from scratch)
        buildah "${storage[@]}" add --quiet "$container" "$base" / >/dev/null
        # debootstrap's copies of those of the machine.
        mounted=$(buildah "${storage[@]}" mount "$container")
        rm -f "$mounted/etc/resolv.conf" "$mounted/etc/hostname"
        buildah "${storage[@]}" umount "$container" >/dev/null
        buildah "${storage[@]}" commit --quiet --rm --timestamp "$SOURCE_DATE_EPOCH" "$container" localhost/base >/dev/null
        from=localhost/base
    fi
    here=$(dpkg --print-architecture)
    for architecture in ${only//,/ }; do
        if [ "$architecture" != "$here" ] && { [ -d "$base" ] || ! ls /proc/sys/fs/binfmt_misc/qemu-* >/dev/null 2>&1; }; then
            say "$architecture: no images, since this machine cannot run its programs (binfmt_misc)"
            continue
        fi
        for program in av-agent av-backend; do
            if [ -e "$folder/${program}_${version}_$architecture.deb" ]; then image "$program" "$architecture" "$from"; fi
        done
    done
    buildah "${storage[@]}" rmi --all --force >/dev/null 2>&1 || true
fi

# ----------------------------------------------------------------- checksums
(cd "$folder" && find . -type f ! -name 'SHA256SUMS*' -printf '%P\n' | sort | xargs -d '\n' sha256sum >SHA256SUMS)
if [ -n "${AV_SIGN_KEY:-}" ]; then
    gpg --batch --yes --local-user "$AV_SIGN_KEY" --armor --detach-sign --output "$folder/SHA256SUMS.asc" "$folder/SHA256SUMS"
fi
say "✓ $version in $folder: $(wc -l <"$folder/SHA256SUMS") files"
