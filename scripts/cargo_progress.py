#!/usr/bin/env python3
"""Runs cargo and says how far it is: at a terminal in one line, elsewhere in a
line every few seconds. What the compiler complains of is passed on.

    cargo_progress.py cargo build --locked -p av-agent
"""

import os
import re
import selectors
import subprocess
import sys
import time

# Seconds between two words.
EVERY = 4.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
BAR = re.compile(r"^(\w+) +\[[=> ]*\] *(.*)$")
COUNT = re.compile(r"^(\d+)/(\d+)(?:: (.*))?$")
# What cargo says of its own work, one line a library.
OWN_WORK = re.compile(
    r"^ *(?:Compiling|Checking|Fresh|Dirty|Updating|Locking|Adding|Downloading|Downloaded|Building|Finished) "
)
BLOCKING = re.compile(r"^ *Blocking (waiting for file lock.*)$")


def spelt(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


class Progress:
    """What was read from cargo last, and when it was said."""

    def __init__(self, terminal):
        self.terminal = terminal
        self.began = self.said = time.monotonic()
        self.state = "starting"
        self.counted = None

    def read_bar(self, text):
        """Takes one state of cargo's progress bar."""
        bar = BAR.match(text)
        count = COUNT.match(bar.group(2).strip()) if bar else None
        if count:
            done, total, units = count.groups()
            self.counted = int(total)
            self.state = f"{done} of {total}" + (f": {units.strip()}" if units else "")
        elif text:
            self.state = " ".join((bar.group(1) + " " + bar.group(2) if bar else text).split())

    def read_line(self, line, plain):
        """Takes a line; prints it if it is not about cargo's own work."""
        blocking = BLOCKING.match(plain)
        if blocking:
            self.state = "another cargo is at work, " + blocking.group(1)
        elif OWN_WORK.match(plain):
            if self.counted is None:
                self.state = plain.strip()
        elif plain.strip():
            self.clear()
            print(line, file=sys.stderr, flush=True)

    def tick(self):
        """Says the state where it is time to."""
        now = time.monotonic()
        if now - self.said < (0.2 if self.terminal else EVERY):
            return
        self.said = now
        text = f"  Building {self.state} ({spelt(now - self.began)})"
        if self.terminal:
            width = os.get_terminal_size(sys.stdout.fileno()).columns or 80
            print(f"\r{text[: width - 1]}\x1b[K", end="", flush=True)
        else:
            print(text, flush=True)

    def clear(self):
        if self.terminal:
            print("\r\x1b[K", end="", flush=True)

    def end(self):
        """The last word, where building took long enough to have had others."""
        self.clear()
        took = time.monotonic() - self.began
        if took >= EVERY:
            print(f"  Built in {spelt(took)}", flush=True)


def follow(stream, progress):
    """Reads all that cargo says."""
    selector = selectors.DefaultSelector()
    selector.register(stream, selectors.EVENT_READ)
    rest = b""
    while True:
        if selector.select(timeout=0.2 if progress.terminal else 1.0):
            piece = os.read(stream.fileno(), 65536)
            if not piece:
                break
            *pieces, rest = re.split(rb"(?<=[\r\n])", rest + piece)
            for text in pieces:
                read(text, progress)
        progress.tick()
    read(rest, progress)


def read(text, progress):
    line = text.decode(errors="replace")
    plain = ESCAPES.sub("", line).strip("\r\n")
    if line.endswith("\r"):
        progress.read_bar(plain.strip())
    else:
        progress.read_line(line.rstrip("\r\n"), plain)


def main(command):
    terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    told = {
        "CARGO_TERM_QUIET": "false",
        "CARGO_TERM_PROGRESS_WHEN": "always",
        "CARGO_TERM_PROGRESS_WIDTH": "120",
        "CARGO_TERM_COLOR": "always" if terminal and sys.stderr.isatty() else "never",
    }
    progress = Progress(terminal)
    try:
        cargo = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **told}
        )
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")
    try:
        follow(cargo.stderr, progress)
        status = cargo.wait()
    except KeyboardInterrupt:
        # Ctrl-C has reached cargo too.
        cargo.wait()
        status = 130
    if status == 0:
        progress.end()
    else:
        progress.clear()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] in ("--help", "-h"):
        print(__doc__.strip())
        sys.exit(0 if len(sys.argv) > 1 else 2)
    sys.exit(main(sys.argv[1:]))
