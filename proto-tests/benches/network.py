"""The benches' network: addresses of the loopback interface that live, and an
interface behind which packets vanish."""

import os

SCRIPT = """
ip link set lo up
ip link add void type veth peer name end
ip link set void arp off up
ip link set end up
ip address add 10.66.255.1/16 dev void
exec "$@"
"""


def enter(command):
    """Becomes `command` in a network namespace of its own: every address of
    127.0.0.0/8 is this machine's, and those of 10.66.0.0/16 are dead."""
    # Mapped in a namespace of users, nobody needs to be root.
    users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    shell = ["sh", "-euc", SCRIPT, "sh", *command]
    os.execvp("unshare", ["unshare", *users, "--net", *shell])
