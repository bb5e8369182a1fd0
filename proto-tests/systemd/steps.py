"""What is done with each block of the guides, in the order of a reader who sets
up a backend, a proxy and an agent on one machine."""

from dataclasses import dataclass, field

ADMIN = "docs/administration.md"
TECHNICIAN = "docs/technician.md"
TLS = "docs/tls.md"
TROUBLE = "docs/troubleshooting.md"

PASSWORD = "correct horse battery"

# What a reader puts in place of the guides' words, in every block. Everything
# else is run as it is there.
SUBSTITUTIONS = [
    ("_VERSION_amd64.deb", "_0.0.1_$(dpkg --print-architecture).deb"),
    ("_VERSION_arm64.deb", "_0.0.1_$(dpkg --print-architecture).deb"),
    ("ABCDE-FGHJK", "$CODE"),
]


@dataclass
class Do:
    """Runs the block of a guide in which this text stands, and no other."""

    guide: str
    mark: str
    # What is put in place of what in this block alone, and why it has to be.
    swaps: list = field(default_factory=list)
    # What must be printed.
    shows: list = field(default_factory=list)
    exits: tuple = (0,)
    # Typed on a terminal: answers to questions, and until when it goes on.
    answers: list = field(default_factory=list)
    until: str | None = None
    # The block is what a file has, or has at its end.
    into: str | None = None
    onto: str | None = None


@dataclass
class Check:
    """Looks at what came of it, or sees to what the guide leaves to the reader."""

    name: str
    script: str
    shows: list = field(default_factory=list)
    # The name of a variable that further steps have, with what it prints.
    keep: str | None = None
    # Tried until it ends well.
    wait: bool = False
    exits: tuple = (0,)


def api(request, what=""):
    return f"""curl -sS --fail-with-body -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' {what} "$URL{request}" """


SIGN_IN = """
csrf=$(curl -s -c jar -H 'Content-Type: application/json' -d "{\\"name\\": \\"anna\\", \\"password\\": \\"$PASSWORD\\"}" "$URL/login" | jq -er .csrf)
curl -s -b jar -H 'Content-Type: application/json' -H "X-CSRF-Token: $csrf" -d '{"name": "guides"}' "$URL/admin/tokens" | jq -er .token
"""

OFFICE = [
    Do(ADMIN, "createuser av-backend"),
    Do(ADMIN, "apt install ./av-backend", shows=["av-backend"]),
    Do(ADMIN, "#AV_LISTEN=0.0.0.0:8000", into="/etc/av-monitoring/backend.env"),
    Do(ADMIN, "systemctl enable --now av-backend\n", shows=["ok"]),
    Check("the backend runs", "systemctl is-active av-backend; systemctl is-enabled av-backend", shows=["active\nenabled"]),
    Check("the settings are root's", "stat -c '%U %a' /etc/av-monitoring/backend.env", shows=["root 600"]),
    Check("the link of the first user", "journalctl -u av-backend", shows=["There is no user yet. Make the first one here: "]),
]
STEPS = OFFICE
