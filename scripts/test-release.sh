#!/bin/bash
# A release from quick builds, for this machine's architecture, signed by a key
# that is thrown away, and what a user does with it: compares the checksums,
# installs from the apt repository, unpacks the archive, reads the list of what
# is inside.
#
#   scripts/test-release.sh                 makes a small Debian
#   scripts/test-release.sh --base FOLDER   takes this one, which stays as it is:
#                                           debootstrap --variant=minbase
#                                           --include=ca-certificates,systemd trixie
#   scripts/test-release.sh --parts LIST    only these parts: see release.sh
#
# Takes root. It ends with 77 where it lacks what it needs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
# shellcheck source=scripts/folders.sh
. "$root/scripts/folders.sh"

base=
parts=debs,archives,sbom,apt,images
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --base)
        shift
        base=$(realpath "${1:?a folder}")
        ;;
    --parts)
        shift
        parts=${1:?a list}
        ;;
    *) die "test-release.sh: there is no option $1" ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || impossible "debootstrap and chroot take root."
here=$(dpkg --print-architecture)
[ "$here" = amd64 ] || impossible "Releases are made on amd64."
install_missing "$root" missing_release_packages || impossible "reprepro and gpg cannot be had."
work=$(realpath "$(mktemp -d)")
chmod 755 "$work"
finish() {
    local status=$?
    trap '' INT TERM
    gpgconf --kill gpg-agent 2>/dev/null || true
    remove_folder "$work" || status=1
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ -z "$base" ]; then
    base=$work/base
    make_debian "$base" trixie ca-certificates systemd
fi

export GNUPGHOME=$work/gnupg
mkdir -m 700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-generate-key 'Throwaway <throwaway@example.org>' default default 1d 2>/dev/null
AV_SIGN_KEY=$(gpg --batch --list-secret-keys --with-colons | awk -F: '$1 == "fpr" { print $10; exit }')
export AV_SIGN_KEY AV_APT_URL=file:/apt

# Without --draft a revision that has no tag is no release.
if [ -z "$(git -C "$root" tag --points-at HEAD)" ]; then
    ! "$root/scripts/release.sh" "$work/none" 2>"$work/refused" || die "✗ a revision without a tag was released"
    grep -q 'has no tag v' "$work/refused" || die "✗ a revision without a tag: $(cat "$work/refused")"
fi
release=$work/release
"$root/scripts/release.sh" --draft --only "$here" --profile dev --base "$base" --parts "$parts" "$release"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)

(cd "$release" && sha256sum --check --quiet SHA256SUMS) || die "✗ the checksums are not those of the files"
gpg --batch --quiet --verify "$release/SHA256SUMS.asc" "$release/SHA256SUMS" 2>/dev/null || die "✗ the signature of the checksums"
say "✓ checksums and their signature: $(wc -l <"$release/SHA256SUMS") files"

case ,$parts, in *,archives,*)
    archive=$(find "$release" -name "av-monitoring-$version-$here*.tar.gz")
    tar --extract --gzip --file "$archive" --directory "$work"
    for program in av-agent av-backend; do
        program=$(find "$work/av-monitoring-$version-$here"* -path "*/bin/$program")
        # A root with nothing in it: a program that asks for a libc ends there.
        mkdir -p "$work/empty"
        cp "$program" "$work/empty/program"
        [ "$(chroot "$work/empty" /program --version | cut -d ' ' -f 2)" = "$version" ] || die "✗ $program is not static"
        ! grep -qaF "$root/" "$program" || die "✗ $program has paths of this machine"
    done
    say "✓ the programs of the archive run where there is nothing else"
    ;;
esac

case ,$parts, in *,sbom,*)
    python3 - "$release" "$version" <<'PYTHON'
import json, pathlib, sys
folder, version = pathlib.Path(sys.argv[1]), sys.argv[2]
for part in ("agent", "backend"):
    found = json.loads((folder / f"av-{part}-{version}.cdx.json").read_text())
    assert found["bomFormat"] == "CycloneDX", found["bomFormat"]
    assert found["metadata"]["component"]["version"] == version
    names = {component["name"] for component in found["components"]}
    wanted = {"rustls", "ring", "serde_json"} | ({"postgres"} if part == "backend" else {"snmp2"})
    assert wanted <= names, wanted - names
    print(f"✓ av-{part} is made of {len(names)} libraries")
PYTHON
    ;;
esac

case ,$parts, in *,apt,*)
    mkdir -p "$work"/{upper,layer,small}
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/layer" "$work/small"
    mkdir -p "$work/small/apt"
    mount --bind "$release/apt" "$work/small/apt"
    rm -f "$work/small/etc/apt/sources.list" "$work/small"/etc/apt/sources.list.d/*
    cp "$release/apt/av-monitoring.sources" "$work/small/etc/apt/sources.list.d/"
    # Without the key nothing is taken.
    ! chroot "$work/small" apt-get update -q -o APT::Update::Error-Mode=any >"$work/apt.log" 2>&1 ||
        die "✗ apt takes the repository without its key"
    install -m 644 "$release/apt/av-monitoring.gpg" "$work/small/usr/share/keyrings/av-monitoring.gpg"
    chroot "$work/small" apt-get update -q -o APT::Update::Error-Mode=any >"$work/apt.log" 2>&1 ||
        die "✗ apt: $(tail -n 5 "$work/apt.log")"
    DEBIAN_FRONTEND=noninteractive chroot "$work/small" apt-get install -y -q --no-install-recommends av-agent av-backend \
        >"$work/apt.log" 2>&1 || die "✗ apt: $(tail -n 5 "$work/apt.log")"
    [ "$(chroot "$work/small" av-agent --version | cut -d ' ' -f 2)" = "$version" ] || die "✗ the installed agent is another one"
    umount "$work/small/apt" "$work/small"
    say "✓ apt installs both programs from the signed repository, and not without its key"
    ;;
esac

case ,$parts, in *,images,*)
    for program in av-agent av-backend; do
        tar --extract --file "$release/$program-$version-$here.oci.tar" --to-stdout index.json |
            grep -q 'application/vnd.oci.image.manifest' || die "✗ $program-$version-$here.oci.tar is no OCI archive"
    done
    say "✓ both images are OCI archives"
    ;;
esac
