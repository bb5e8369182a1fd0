#!/usr/bin/env python3
"""Checks that every relative link of Markdown files leads somewhere.

    scripts/check_links.py FOLDER

Reads every *.md in and below the folder. A link must lead to a file inside the
folder, and its part after # to a heading of that file, as the forges name them.
"""

import pathlib
import re
import sys

LINK = re.compile(r"\]\(([^()\s]+)\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


def lines_outside_code(text):
    """The lines of a file without its fenced blocks."""
    fence = None
    for line in text.splitlines():
        mark = re.match(r"\s*(```+|~~~+)", line)
        if fence is None and mark:
            fence = mark.group(1)
        elif fence is not None:
            if mark and mark.group(1).startswith(fence):
                fence = None
        else:
            yield line


def anchors(text):
    """What may come after #: the headings, in small letters and joined."""
    found = {}
    for line in lines_outside_code(text):
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if not heading:
            continue
        words = LINK.sub("", heading.group(1)).replace("[", "").lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        times = found.get(name, 0)
        found[name] = times + 1
        yield name if times == 0 else f"{name}-{times}"


def wrong_links(folder):
    """Prints a sentence for each link that leads nowhere."""
    root = folder.resolve()
    for guide in sorted(root.rglob("*.md")):
        text = guide.read_text(encoding="utf-8")
        for line in lines_outside_code(text):
            for link in LINK.findall(re.sub(r"`[^`]*`", "", line)):
                if ELSEWHERE.match(link):
                    continue
                path, _, anchor = link.partition("#")
                target = (guide.parent / path).resolve() if path else guide
                place = f"{guide.relative_to(root)}: {link}"
                if root not in target.parents:
                    yield f"{place} leads out of the folder"
                elif not target.exists():
                    yield f"{place}: there is no such file"
                elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
                    yield f"{place}: there is no such heading"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    if not any(folder.rglob("*.md")):
        sys.exit(f"{folder} has no guide")
    wrong = list(wrong_links(folder))
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
