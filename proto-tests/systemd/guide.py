"""The commands, out of the guides."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_RUN = re.compile(r"<!-- not run: (.{8,}) -->")

# Each guide whose commands are run, and the same in French: the commands are
# the same there, which is checked.
GUIDES = {
    "README.md": [],
    "docs/administration.md": ["docs/administration.fr.md"],
    "docs/technician.md": ["docs/technicien.md"],
    "docs/tls.md": ["docs/tls.fr.md"],
    "docs/troubleshooting.md": ["docs/troubleshooting.fr.md"],
}


@dataclass
class Block:
    guide: str
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def place(self):
        return f"{self.guide}:{self.line}"

    def commands(self):
        """What is typed: of a script all, of a session what is behind `$`."""
        if self.language != "session":
            return [self.text]
        commands, printed = [], False
        for line in self.text.splitlines():
            if line.startswith("$ "):
                commands.append(line[2:])
                printed = False
            elif commands[-1].endswith("\\") and not printed:
                commands[-1] += "\n" + line
            elif line.startswith("> ") and not printed:
                commands[-1] += "\n" + line[2:]
            else:
                printed = True
        return commands


def blocks(guide):
    """Every fenced block of a guide that has commands, with its marker."""
    lines = (ROOT / guide).read_text().splitlines()
    found, at = [], 0
    while at < len(lines):
        fence = re.match(r"( *)```(\w*)$", lines[at])
        if not fence:
            at += 1
            continue
        end = at + 1
        while lines[end].strip() != "```":
            end += 1
        indent = len(fence[1])
        text = "".join(line[indent:] + "\n" for line in lines[at + 1 : end])
        language = fence[2]
        if language == "console" or (language == "" and re.search(r"^\$ ", text, re.M)):
            language = "session"
        if language in ("sh", "session", "sql"):
            above = [line for line in lines[:at] if line.strip()][-1]
            marker = NOT_RUN.fullmatch(above.strip())
            found.append(Block(guide, at + 1, language, text, marker and marker[1]))
        at = end + 1
    return found
