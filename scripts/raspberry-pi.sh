#!/bin/bash
# Prepares a memory card with an image that has cloud-init, so that the
# Raspberry Pi becomes a site's agent at its first boot.
#
#   scripts/raspberry-pi.sh --backend URL --code CODE OPTIONS BOOT
#
# BOOT is the folder where the card's boot partition is mounted (bootfs). The
# package comes from a file or from an apt repository:
#
#   --deb FILE         av-agent_VERSION_arm64.deb, or armhf for a system of 32 bits
#   --apt URL          the address of an apt repository,
#   --key FILE         and the key that signs it
#   --hostname NAME    the Raspberry Pi's own name. Default: av-agent
#   --timezone ZONE    Default: that of this machine
#   --user NAME        a user who may log in over SSH and become root,
#   --ssh-key FILE     with this public key; without them there is none
#
# The code is that of "Enrol an agent" on the site's page, good for 15 minutes:
# prepare the card first, with any code, and again with the real one before the
# card goes into the Raspberry Pi. Another `user-data` that is there, such as
# that of Raspberry Pi Imager, is kept as `user-data.before`, and does nothing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

backend=
code=
deb=
apt=
key=
hostname=av-agent
user=
ssh_key=
timezone=$(cat /etc/timezone 2>/dev/null || echo UTC)
boot=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --backend | --code | --deb | --apt | --key | --hostname | --timezone | --user | --ssh-key)
        [ $# -gt 1 ] || die "raspberry-pi.sh: $1 wants a word after it"
        name=${1#--}
        printf -v "${name//-/_}" %s "$2"
        shift
        ;;
    -*) die "raspberry-pi.sh: there is no option $1" ;;
    *) boot=$1 ;;
    esac
    shift
done
# What goes into a file that shell and YAML read: nothing that either takes for
# more than a text.
plain() {
    [[ $2 =~ ^[A-Za-z0-9._:/@+-]*$ ]] || die "raspberry-pi.sh: --$1 has a character that does not belong there: $2"
}
[ -n "$boot" ] || die "raspberry-pi.sh: where is the boot partition mounted? See --help"
[ -d "$boot" ] || die "$boot is no folder"
[[ $backend =~ ^https?://. ]] || die "raspberry-pi.sh: --backend wants an address such as https://av.example.org"
[[ $code =~ ^[A-Za-z0-9]{5}-?[A-Za-z0-9]{5}$ ]] || die "raspberry-pi.sh: --code wants a code such as ABCDE-FGHJK"
for word in backend apt hostname timezone user; do plain "$word" "${!word}"; done
if [ -n "$deb" ]; then
    [ "$(dpkg-deb --field "$deb" Package 2>/dev/null)" = av-agent ] || die "$deb is no package of av-agent"
    case $(dpkg-deb --field "$deb" Architecture) in
    arm64 | armhf) ;;
    *) say "$deb is for $(dpkg-deb --field "$deb" Architecture): no Raspberry Pi runs it" ;;
    esac
elif [ -n "$apt" ]; then
    [ -s "$key" ] || die "raspberry-pi.sh: --apt wants the key of the repository too: --key FILE"
else
    die "raspberry-pi.sh: where does the package come from? --deb FILE, or --apt URL --key FILE"
fi

rm -f "$boot"/av-agent_*.deb
[ -z "$deb" ] || cp "$deb" "$boot/av-agent_$(dpkg-deb --field "$deb" Version)_$(dpkg-deb --field "$deb" Architecture).deb"
[ -z "$key" ] || cp "$key" "$boot/av-monitoring.gpg"
users='users: []' ssh=
if [ -n "$user" ]; then
    # One line of a public key, and nothing of a private one.
    public=$(grep -m1 -E '^(ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+( [A-Za-z0-9@._-]*)?$' "$ssh_key") ||
        die "raspberry-pi.sh: --ssh-key wants a file with a public key"
    printf -v users 'users:\n  - name: %s\n    groups: [sudo]\n    shell: /bin/bash\n    sudo: "ALL=(ALL) NOPASSWD:ALL"\n    lock_passwd: true\n    ssh_authorized_keys:\n      - "%s"' "$user" "$public"
    ssh='  - [systemctl, enable, --now, --no-block, ssh.service]'
fi
text=$(cat "$root/scripts/raspberry-pi/user-data")
text=${text//@BACKEND@/"$backend"}
text=${text//@CODE@/"$code"}
text=${text//@APT_URL@/"$apt"}
text=${text//@HOSTNAME@/"$hostname"}
text=${text//@TIMEZONE@/"$timezone"}
text=${text//@USERS@/"$users"}
text=${text//@FIRST_BOOT@/"$(base64 -w0 "$root/scripts/raspberry-pi/first-boot")"}
if [ -e "$boot/user-data" ] && ! grep -q av-first-boot "$boot/user-data"; then
    mv "$boot/user-data" "$boot/user-data.before"
    say "The user-data that was there is now user-data.before, and does nothing."
fi
printf '%s\n' "$text" "$ssh" >"$boot/user-data.new"
mv "$boot/user-data.new" "$boot/user-data"
# cloud-init takes the folder for a source of its own with both files only.
[ -e "$boot/meta-data" ] || printf 'instance-id: av-agent-%s\n' "$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')" >"$boot/meta-data"
say "$boot is prepared: the code is good for 15 minutes."
