# shellcheck shell=bash
# Other versions of a package, for tests of upgrades. Sourced, not run.

# variant PACKAGE NAME VERSION KIND: beside NAME_0.0.1_*.deb the same as another
# version:
#
#   same     nothing else is changed
#   next     its conffile is
#   broken   a program that ends at once, whatever it is told
#   deaf     a service that is ready, and does not stop when it is told to
variant() {
    local package=$1 name=$2 version=$3 kind=$4 into
    into=$(mktemp -d)
    chmod 755 "$into"
    dpkg-deb --raw-extract "$package" "$into"
    sed -i "s/^Version: .*/Version: $version/" "$into/DEBIAN/control"
    case $kind in
    same) ;;
    next) echo '#of the new version' >>"$into/etc/av-monitoring/${name#av-}.env" ;;
    broken) printf '#!/bin/sh\nexit 1\n' >"$into/usr/bin/$name" ;;
    deaf)
        cat >"$into/usr/bin/$name" <<'PROGRAM'
#!/usr/bin/perl
use Socket;
$SIG{TERM} = 'IGNORE';
my $place = $ENV{NOTIFY_SOCKET};
$place =~ s/^@/\0/;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die;
send($socket, 'READY=1', 0, pack_sockaddr_un($place)) or die;
while (1) {
    sleep 10;
    send($socket, 'WATCHDOG=1', 0, pack_sockaddr_un($place));
}
PROGRAM
        ;;
    esac
    (cd "$into" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) >"$into/DEBIAN/md5sums"
    dpkg-deb --root-owner-group -Zgzip -z1 --build "$into" "${package/_0.0.1_/_${version}_}" >/dev/null
    rm -rf "$into"
}
