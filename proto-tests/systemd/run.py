"""Does in a booted machine what the guides say.

    run.py MACHINE DONE ENTER...   the steps of that machine, with the command
                                   that enters it; what was run of the guides
                                   is added to the file DONE
    run.py DONE                    whether that is all that can be run
"""

import re
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
        commands = swapped(whole, step.swaps).split("\0")
        for number, command in enumerate(commands, 1):
            if number == len(commands) and step.between:
                machine.run(step.between)
            if step.answers or step.until:
                said += machine.typed(command, step.answers, step.until, step.exits)
            else:
                said += machine.run(command, step.exits)
            for name, pattern in step.keeps.items():
                if match := re.search(pattern, said):
                    machine.variables[name] = match[1]
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


def complete(found, done):
    """Every block is run, or marked with the reason why not."""
    return [
        f"{block.place} is neither run nor marked:\n{block.text}"
        for guide in found.values()
        for block in guide
        if block.place not in done and not block.not_run
    ]


def follow(steps, machine, found, done):
    """What is wrong with the first step that fails."""
    began = time.monotonic()
    for step in steps:
        name = step.name if isinstance(step, Check) else step.mark.strip()
        try:
            if isinstance(step, Do):
                block = fitting(found, step)
                name = f"{block.place} {name}"
                if block.not_run:
                    raise Wrong("is run, and its marker says that it is not")
                done.write(block.place + "\n")
                do(machine, step, block)
            else:
                check(machine, step)
        except Wrong as why:
            # What comes later builds on it.
            return [f"{name}: {why}"]
        print(f"{time.monotonic() - began:6.1f} s  {name}", flush=True)
    print(f"{len(steps)} steps are done")
    return []


def main():
    wrong = []
    found = known_blocks(wrong)
    if len(sys.argv) == 2:
        with open(sys.argv[1]) as done:
            wrong += complete(found, set(done.read().splitlines()))
    else:
        machine = Machine(sys.argv[3:])
        machine.variables["PASSWORD"] = scenario.PASSWORD
        with open(sys.argv[2], "a") as done:
            wrong += follow(scenario.MACHINES[sys.argv[1]], machine, found, done)
    for text in wrong:
        print(f"✗ {text}")
    sys.exit(1 if wrong else 0)


main()
