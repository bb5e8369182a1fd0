#!/usr/bin/env python3
"""The demonstration's projectors, until it is stopped. They speak PJLink,
class 1, as far as it asks for their state; they cannot be switched.

    projectors.py NETWORK PORT PASSWORD

The first, at NETWORK.11, wants the password. The others have none.
"""

import hashlib
import hmac
import secrets
import signal
import socketserver
import sys
import threading
from dataclasses import dataclass

LINE_MAX = 136
IDLE_S = 30
UNDEFINED, UNAVAILABLE, OUT_OF_PARAMETER = "ERR1", "ERR3", "ERR2"
STANDBY, ON = "0", "1"


@dataclass
class Projector:
    """One projector, and what it answers."""

    host: int
    name: str
    product: str
    hours: int
    power: str = ON
    # Fan, lamp, temperature, cover, filter, other: 0 well, 1 warning, 2 error.
    errors: str = "000000"
    has_password: bool = False
    # Knows nothing of lamp and input in standby, as many do.
    sleeps: bool = False

    def answer(self, command):
        answers = {
            "CLSS": "1",
            "POWR": self.power,
            "ERST": self.errors,
            "LAMP": f"{self.hours} {self.power}",
            "INPT": "31",
            "INST": "11 31 32",
            "AVMT": "30",
            "NAME": self.name,
            "INF1": "EXEMPLE",
            "INF2": self.product,
            "INFO": "simulated",
        }
        if self.sleeps and self.power == STANDBY and command in ("LAMP", "INPT", "AVMT"):
            return UNAVAILABLE
        return answers.get(command, UNDEFINED)


PROJECTORS = [
    Projector(11, "Amphithéâtre Ampère", "PJ-9000", 1234, has_password=True),
    Projector(12, "Salle 101", "PJ-300", 310, power=STANDBY, sleeps=True),
    Projector(13, "Salle 204", "PJ-300", 4980, errors="020010"),
    # Not in the database: it waits for a technician to enter it.
    Projector(14, "Salle 305", "PJ-300", 2),
]


class Conversation(socketserver.StreamRequestHandler):
    """One connection: the greeting, then a line for a line."""

    timeout = IDLE_S

    def handle(self):
        try:
            self.converse()
        except OSError:
            # The other end is gone, or says nothing.
            pass

    def converse(self):
        random = secrets.token_hex(4)
        password = self.server.password
        admitted = password is None
        digest = hashlib.md5(f"{random}{password}".encode(), usedforsecurity=False).hexdigest()
        self.say("PJLINK 0" if admitted else f"PJLINK 1 {random}")
        while line := self.line():
            # The first command carries the digest; later ones may.
            if password is not None and not line.startswith("%"):
                admitted = hmac.compare_digest(line[:32].lower().encode(), digest.encode())
                line = line[32:]
            if not admitted:
                return self.say("PJLINK ERRA")
            head, _, parameter = line.partition(" ")
            self.say(f"{head}={self.obey(head, parameter)}")

    def obey(self, head, parameter):
        if not head.startswith("%1"):
            return UNDEFINED
        answer = self.server.projector.answer(head[2:].upper())
        return answer if answer == UNDEFINED or parameter == "?" else OUT_OF_PARAMETER

    def line(self):
        """The next line without its end; nothing where the other end is done."""
        line = b""
        while len(line) < LINE_MAX:
            byte = self.rfile.read(1)
            if not byte:
                return ""
            if byte == b"\r":
                return line.decode(errors="replace").strip()
            line += byte
        return ""

    def say(self, text):
        self.wfile.write(text.encode() + b"\r")


class Server(socketserver.ThreadingTCPServer):
    """Listens at one projector's address."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address, projector, password):
        self.projector = projector
        self.password = password if projector.has_password else None
        super().__init__(address, Conversation)


def main(network, port, password):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for projector in PROJECTORS:
        address = (f"{network}.{projector.host}", int(port))
        server = Server(address, projector, password)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"{projector.name} on {address[0]}:{address[1]}", flush=True)
    signal.pause()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__.strip())
    main(*sys.argv[1:])
