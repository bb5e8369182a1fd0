"""The booted machine, from outside: commands go in, what they print comes back."""

import os
import pty
import re
import select
import signal
import subprocess
import time

# In a script that must not wait for what never comes.
PATIENCE_S = int(os.environ.get("AV_SYSTEMD_PATIENCE_S", "180"))


class Wrong(Exception):
    """The test's word on what is not as it should be."""


class Machine:
    def __init__(self, enter):
        self.enter = enter
        # What the reader of the guides has in the shell: tokens, addresses.
        self.variables = {}

    def _command(self, script):
        settings = "".join(f"export {name}={quoted(value)}\n" for name, value in self.variables.items())
        return [*self.enter, "bash", "-c", settings + script]

    def run(self, script, exits=(0,), quiet=False):
        """Runs a script of bash as root, and returns both of its streams."""
        try:
            done = subprocess.run(
                self._command(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=PATIENCE_S, text=True, errors="replace")
        except subprocess.TimeoutExpired as late:
            raise Wrong(f"no end within {PATIENCE_S} s: {script}\n{late.stdout or ''}") from None
        if done.returncode not in exits:
            raise Wrong(f"ended with {done.returncode}: {script}\n{done.stdout}")
        return done.stdout

    def output(self, script):
        """What a command prints on its standard output."""
        done = subprocess.run(self._command(script), stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=PATIENCE_S, text=True)
        if done.returncode != 0:
            raise Wrong(f"ended with {done.returncode}: {script}\n{done.stderr}")
        return done.stdout.strip()

    def typed(self, script, answers=(), until=None, exits=(0,)):
        """Runs it on a terminal: types each answer at its question, and ends
        with Ctrl-C what goes on until that is pressed."""
        process, terminal = pty.fork()
        if process == 0:
            command = self._command(script)
            os.execvp(command[0], command)
        answers, said, asked, interrupted = list(answers), "", 0, False
        end = time.monotonic() + PATIENCE_S
        try:
            while True:
                if time.monotonic() > end:
                    raise Wrong(f"no end within {PATIENCE_S} s: {script}\n{said}")
                if not select.select([terminal], [], [], 1)[0]:
                    continue
                try:
                    read = os.read(terminal, 4096)
                except OSError:
                    break
                if not read:
                    break
                said += read.decode(errors="replace")
                if answers and (question := re.search(answers[0][0], said[asked:])):
                    asked += question.end()
                    os.write(terminal, (answers.pop(0)[1] + "\n").encode())
                if until and not interrupted and re.search(until, said):
                    os.write(terminal, b"\x03")
                    interrupted = True
        finally:
            os.close(terminal)
            try:
                os.kill(process, signal.SIGHUP)
            except ProcessLookupError:
                pass
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if answers:
            raise Wrong(f"never asked for {answers[0][0]}: {script}\n{said}")
        if until and not interrupted:
            raise Wrong(f"never said {until}: {script}\n{said}")
        if not until and status not in exits:
            raise Wrong(f"ended with {status}: {script}\n{said}")
        return said.replace("\r\n", "\n")

    def write(self, path, text):
        subprocess.run([*self.enter, "sh", "-c", f"cat >{path}"], input=text, text=True, check=True)

    def wait(self, what, script):
        """Until a command ends well."""
        end = time.monotonic() + PATIENCE_S
        while True:
            done = subprocess.run(self._command(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=PATIENCE_S, text=True)
            if done.returncode == 0:
                return done.stdout
            if time.monotonic() > end:
                raise Wrong(f"{what}: not within {PATIENCE_S} s: {script}\n{done.stdout}")
            time.sleep(0.2)


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"
