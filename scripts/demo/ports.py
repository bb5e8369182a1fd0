#!/usr/bin/env python3
"""Says which ports of the demonstration cannot be had, and why.

    ports.py free NUMBER                     prints NUMBER free TCP ports
    ports.py check ADDRESS:PORT:KIND:VARIABLE...

KIND is tcp or udp; VARIABLE moves that port. It ends with 1 where one of them
cannot be had.
"""

import errno
import random
import socket
import sys

# Below the range from which outgoing connections take theirs.
RANGE = (20000, 32000)
LOOPBACK_IS_DOWN = (
    "the loopback interface is down, as in a new network namespace. As root: ip link set lo up"
)


def listener(address, kind):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    if kind == "tcp":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return s


def free(number):
    held = []
    while len(held) < number:
        s = socket.socket()
        try:
            s.bind(("127.0.0.1", random.randint(*RANGE)))
            held.append(s)
        except OSError:
            s.close()
    return [s.getsockname()[1] for s in held]


def problem(address, port, kind, variable):
    """What is wrong with a port; nothing where it is free."""
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return f"{variable}={port} is no port: a number from 1 to 65535 is"
    try:
        with listener(address, kind) as s:
            s.bind((address, int(port)))
        return None
    except (OSError, UnicodeError) as error:
        return explained(error, address, port, kind, variable)


def loopback_is_up():
    """Whether a connection to this machine itself comes about. While the
    interface is down some kernels let a program listen, and others do not."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=10).close()
        return True
    except OSError:
        return False


def explained(error, address, port, kind, variable):
    code = getattr(error, "errno", None)
    other = int(port) + 1 if int(port) < 65535 else int(port) - 1
    if code == errno.EADDRINUSE:
        # Not every system lists them for everyone: the port is named in any case.
        return (
            f"{kind.upper()} port {port} of {address} is taken."
            f" Stop what uses it, or choose another: {variable}={other} ./demo.sh"
        )
    if code in (errno.EACCES, errno.EPERM):
        return f"this user may not listen on port {port}. Choose one above 1023: {variable}={int(port) + 8000} ./demo.sh"
    if code == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this machine (DEMO_LISTEN, DEMO_NET)"
    return f"{address} port {port}: {getattr(error, 'strerror', None) or error} ({variable}, DEMO_LISTEN, DEMO_NET)"


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "free":
        print(*free(int(arguments[1])))
        return 0
    if arguments and arguments[0] == "check":
        if loopback_is_up():
            # An IPv6 address has colons too.
            problems = [problem(*port.rsplit(":", 3)) for port in arguments[1:]]
        else:
            problems = [LOOPBACK_IS_DOWN]
        said = list(filter(None, problems))
        for line in said:
            print(line, file=sys.stderr)
        return 1 if said else 0
    print(__doc__.strip(), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
