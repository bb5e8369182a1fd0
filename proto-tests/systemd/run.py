"""Does in a booted machine what the guides say.

    run.py ENTER...    with the command that enters the machine
"""

import sys
import time

import steps as scenario
from guide import GUIDES, blocks
from machine import Machine, Wrong
from steps import SUBSTITUTIONS, Check, Do


def swapped(text, swaps):
    for old, new in swaps:
        if old not in text:
            raise Wrong(f"{old!r} is not there, and was to be replaced")
        text = text.replace(old, new)
    for old, new in SUBSTITUTIONS:
        text = text.replace(old, new)
    return text


def do(machine, step, block):
    said = ""
    if step.into or step.onto:
        path = step.into or step.onto
        text = swapped(block.text, step.swaps)
        if step.onto:
            text = machine.run(f"cat {path}") + text
        machine.write(path, text)
    elif block.language == "sql":
        machine.write("/root/block.sql", swapped(block.text, step.swaps))
        said = machine.run(SQL)
    else:
        whole = "\0".join(block.commands())
        for command in swapped(whole, step.swaps).split("\0"):
            if step.answers or step.until:
                said += machine.typed(command, step.answers, step.until, step.exits)
            else:
                said += machine.run(command, step.exits)
    expect(step.shows, said)


def expect(shows, said):
    for text in shows:
        if text not in said:
            raise Wrong(f"does not say {text!r}:\n{said}")


# How the guide has it.
SQL = """. /etc/av-monitoring/backend.env
sudo -u av-backend psql "$DATABASE_URL" -X -v ON_ERROR_STOP=1 </root/block.sql"""


def check(machine, step):
    if step.wait:
        said = machine.wait(step.name, step.script)
    elif step.keep:
        said = machine.output(step.script)
    else:
        said = machine.run(step.script, step.exits)
    expect(step.shows, said)
    if step.keep:
        machine.variables[step.keep] = said


def known_blocks(wrong):
    """Every block of the guides, by guide; what the French ones have must be
    in the English ones too."""
    found = {}
    for english, others in GUIDES.items():
        found[english] = blocks(english)
        for other in others:
            mine = [(block.language, block.text, block.not_run) for block in found[english]]
            theirs = [(block.language, block.text, block.not_run) for block in blocks(other)]
            if mine != theirs:
                wrong.append(f"{other} has other commands than {english}")
    return found


def fitting(found, step):
    all_of_it = [block for block in found[step.guide] if step.mark in block.text]
    if len(all_of_it) != 1:
        raise Wrong(f"{step.guide} has {len(all_of_it)} blocks with {step.mark!r}")
    return all_of_it[0]


def main():
    wrong = []
    found = known_blocks(wrong)
    done = set()
    machine = Machine(sys.argv[1:])
    machine.variables["PASSWORD"] = scenario.PASSWORD
    began = time.monotonic()
    count = 0
    for step in scenario.STEPS:
        name = step.name if isinstance(step, Check) else step.mark.strip()
        try:
            if isinstance(step, Do):
                block = fitting(found, step)
                name = f"{block.place} {name}"
                if block.not_run:
                    raise Wrong("is run, and its marker says that it is not")
                done.add(block.place)
                do(machine, step, block)
            else:
                check(machine, step)
        except Wrong as why:
            wrong.append(f"{name}: {why}")
            print(f"✗ {name}: {why}", flush=True)
            # What comes later builds on it.
            break
        count += 1
        print(f"{time.monotonic() - began:6.1f} s  {name}", flush=True)
    if wrong:
        print("\n".join(f"✗ {text}" for text in wrong))
        sys.exit(1)
    print(f"{count} steps, {len(done)} blocks of the guides are run")


main()
