"""Starts every service of compose.yaml without a container engine, and shows
that the system works. scripts/test-containers.sh calls it.

    compose.py COMPOSE_FILE IMAGES WORK

IMAGES is a JSON file: for each image of the compose file the folder of its
files (`root`) and its configuration (`config`, as in an OCI image). WORK is an
empty folder. It wants root, and a network namespace of its own, in which the
services find each other on the loopback interface. Each service has its own
mounts and processes, the read-only root, the user and the capabilities that
compose.yaml says. What it does not know in a compose file is an error: nothing
is left out in silence.
"""

import json
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

PATIENCE = 240
KNOWN = {
    "build", "cap_add", "cap_drop", "command", "depends_on", "entrypoint", "environment",
    "healthcheck", "image", "logging", "network_mode", "networks", "ports", "read_only", "restart",
    "security_opt", "stop_grace_period", "stop_signal", "sysctls", "tmpfs", "user", "volumes",
}  # fmt: skip


class Failed(Exception):
    """What does not hold."""


def say(text):
    print(text, flush=True)


def demand(holds, text):
    if not holds:
        raise Failed(text)


def interpolated(value):
    """`${NAME:-default}` is the default: the environment is not asked."""
    if isinstance(value, dict):
        return {key: interpolated(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value)
    return value


class Service:
    """One service: its image, how it is run, and its process."""

    def __init__(self, name, spec, images, work, folder):
        unknown = set(spec) - KNOWN
        demand(not unknown, f"{name}: this runner does not know {sorted(unknown)}")
        self.name, self.spec, self.folder, self.work = name, spec, folder, work
        image = images.get(spec["image"])
        demand(image is not None, f"{name}: there is no image {spec['image']}")
        self.root = Path(image["root"])
        self.config = image["config"]
        self.log = work / f"{name}.log"
        self.process = None
        demand(spec.get("read_only") is True, f"{name}: its root can be written")
        demand(spec.get("cap_drop") == ["ALL"], f"{name}: it keeps capabilities")
        demand(spec["security_opt"] == ["no-new-privileges:true"], f"{name}: it can gain privileges")
        self.user = str(spec.get("user") or self.config.get("User") or "0:0")
        demand(re.fullmatch(r"\d+:\d+", self.user), f"{name}: the user {self.user} is no number")

    def environment(self):
        pairs = dict(pair.split("=", 1) for pair in self.config.get("Env") or [])
        pairs.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        pairs.update({key: str(value) for key, value in self.spec.get("environment", {}).items()})
        return pairs

    def command(self):
        entrypoint = self.spec.get("entrypoint", self.config.get("Entrypoint") or [])
        own = self.config.get("Cmd") or [] if "entrypoint" not in self.spec else []
        return [*entrypoint, *self.spec.get("command", own)]

    def as_user(self, command):
        """The command as the service's user, within its root."""
        uid, gid = self.user.split(":")
        bounding = ["-all", *(f"+{capability.lower()}" for capability in self.spec.get("cap_add", []))]
        environment = [f"{key}={value}" for key, value in self.environment().items()]
        return [
            "/usr/bin/env", "-i", *environment, "setpriv", f"--reuid={uid}", f"--regid={gid}",
            "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all",
            f"--bounding-set={','.join(bounding)}", "--", *command,
        ]  # fmt: skip

    def mounts(self):
        """What is mounted where: (source, target, read-only)."""
        found = []
        for volume in self.spec.get("volumes", []):
            source, target, *options = volume.split(":")
            if source.startswith("."):
                source = self.folder / source
            else:
                source = self.work / "volumes" / source
                source.mkdir(parents=True, exist_ok=True)
            found.append((source, target, options == ["ro"]))
        found.append((self.work / "hosts", "/etc/hosts", True))
        return found

    def script(self):
        """The shell's words that make the mounts and start the command."""
        root = shlex.quote(str(self.root))
        lines = ["set -e", "mount --make-rprivate /", f"mount --bind {root} {root}"]
        # As an engine does it: where something is mounted there is something.
        for source, target, _ in self.mounts():
            place = self.root / target.lstrip("/")
            if source.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
        for entry in self.spec.get("tmpfs", []):
            (self.root / entry.split(":")[0].lstrip("/")).mkdir(parents=True, exist_ok=True)
        lines += [
            f"mount -o remount,bind,ro {root}",
            f"mount -t proc proc {root}/proc",
            f"mount -t tmpfs -o mode=755 dev {root}/dev",
            f"mkdir -m 1777 {root}/dev/shm",
            f"mount -t tmpfs -o mode=1777 shm {root}/dev/shm",
            f"ln -s /proc/self/fd {root}/dev/fd",
            f"for d in null zero full random urandom tty; do touch {root}/dev/$d; mount --bind /dev/$d {root}/dev/$d; done",
        ]
        for entry in self.spec.get("tmpfs", []):
            place, _, options = entry.partition(":")
            lines.append(f"mount -t tmpfs -o {options or 'mode=1777'} tmpfs {root}{place}")
        for source, target, read_only in self.mounts():
            lines.append(f"mount --bind {shlex.quote(str(source))} {root}{target}")
            if read_only:
                lines.append(f"mount -o remount,bind,ro {root}{target}")
        lines.append(f"exec chroot {root} {shlex.join(self.as_user(self.command()))}")
        return "\n".join(lines)

    def start(self):
        say(f"   {self.name}: {shlex.join(self.command())}, user {self.user}")
        for key, value in self.spec.get("sysctls", {}).items():
            Path("/proc/sys", *key.split(".")).write_text(str(value), encoding="utf-8")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--",
                 "bash", "-c", self.script()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def first_process(self):
        """The process that has number 1 in its namespace."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        if len(children) != 1:
            # It has not begun, or it is over.
            raise ProcessLookupError(f"{self.name} has no process")
        return int(children[0])

    def run_within(self, command):
        """Another command in the running container; its exit code."""
        try:
            inside = ["nsenter", f"--target={self.first_process()}", "--mount", "--pid", "--root", "--wd=/"]
        except OSError:
            return 1
        return subprocess.run(
            [*inside, "--", *self.as_user(command)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        ).returncode  # fmt: skip

    def is_healthy(self):
        test = self.spec["healthcheck"]["test"]
        demand(test[0] == "CMD", f"{self.name}: a health check of another kind than CMD")
        self.demand_running()
        return self.run_within(test[1:]) == 0

    def demand_running(self):
        code = self.process.poll()
        demand(code is None, f"{self.name} ended with {code}: {self.log_end()}")

    def completed(self):
        code = self.process.poll()
        demand(code in (None, 0), f"{self.name} ended with {code}: {self.log_end()}")
        return code == 0

    def log_end(self):
        return "\n" + "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])

    def kill(self):
        """Ends it at once, with everything in its namespace."""
        if self.process is None or self.process.poll() is not None:
            return
        try:
            # Not `unshare`: a change of the user ends what --kill-child asks
            # the kernel for.
            os.kill(self.first_process(), signal.SIGKILL)
        except OSError:
            self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        name = self.spec.get("stop_signal", self.config.get("StopSignal") or "SIGTERM")
        try:
            os.kill(self.first_process(), getattr(signal, name))
            self.process.wait(timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
            raise Failed(f"{self.name} does not stop at {name}") from None


def until(what, holds, patience=PATIENCE):
    end = time.monotonic() + patience
    while not holds():
        demand(time.monotonic() < end, f"after {patience} s still not: {what}")
        time.sleep(0.2)


def up(services, order):
    """Starts what does not run, each when what it depends on is as it says."""
    for name in order:
        service = services[name]
        for other, condition in service.spec.get("depends_on", {}).items():
            match condition["condition"]:
                case "service_healthy":
                    until(f"{other} is healthy", services[other].is_healthy)
                case "service_completed_successfully":
                    until(f"{other} has ended", services[other].completed)
                case "service_started":
                    services[other].demand_running()
                case unknown:
                    raise Failed(f"{name}: the condition {unknown}")
        if service.process is None or service.process.poll() is not None:
            service.start()
    for name in order:
        if "test" in services[name].spec.get("healthcheck", {}):
            until(f"{name} is healthy", services[name].is_healthy)


def sorted_by_dependency(services):
    order = []

    def visit(name):
        if name in order:
            return
        for other in services[name].spec.get("depends_on", {}):
            visit(other)
        order.append(name)

    for name in services:
        visit(name)
    return order


def main(compose_file, images_file, work):
    folder = Path(compose_file).resolve().parent
    work = Path(work)
    document = interpolated(yaml.safe_load(Path(compose_file).read_text(encoding="utf-8")))
    images = json.loads(Path(images_file).read_text(encoding="utf-8"))
    names = list(document["services"])
    (work / "hosts").write_text(
        "127.0.0.1 localhost\n" + "".join(f"127.0.0.1 {name}\n" for name in names), encoding="utf-8"
    )
    services = {
        name: Service(name, spec, images, work, folder) for name, spec in document["services"].items()
    }
    order = sorted_by_dependency(services)
    try:
        up(services, order)
        check(services, order, work)
    except Failed as failure:
        say(f"✗ {failure}")
        for service in services.values():
            if service.log.exists():
                say(f"── the end of {service.name}.log{service.log_end()}")
        return 1
    finally:
        for name in reversed(order):
            services[name].kill()
    return 0


def check(services, order, work):
    """That the system in containers does what it is for."""
    running = [name for name in order if services[name].process.poll() is None]
    for name in ("db", "backend", "caddy", "agent", "equipment"):
        demand(name in running, f"{name} does not run: {services[name].log_end()}")
    for name in running:
        inside(services[name])
    say("   every service that runs is no root, has no capability, and cannot write its root")

    authority = work / "volumes/caddy/caddy/pki/authorities/local/root.crt"
    context = ssl.create_default_context(cafile=str(authority))
    url = "https://localhost:8443"

    def ask(path, body=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode(), refusal.headers

    def link_of_the_log():
        log = services["backend"].log.read_text(encoding="utf-8")
        return re.search(r"https://localhost:8443(/setup/\S+)\n", log)

    # Where the database was too slow it is tried again.
    until("the backend's log has a set-up link", link_of_the_log)
    link = link_of_the_log()
    status, page, _ = ask(link[1])
    demand(status == 200 and "<form" in page, f"the set-up link answers {status}")
    password = os.urandom(12).hex()
    status, answer, headers = ask(link[1], {"name": "anna", "password": password}, Origin=url)
    demand(status in (200, 201, 204, 303), f"the first user is refused: {status} {answer}")
    cookie = (headers.get("Set-Cookie") or "").split(";")[0]
    demand(cookie.startswith("__Host-"), f"no session over TLS: {cookie.split('=')[0]}")
    say("   the set-up link of the log makes the first user, through Caddy's TLS")

    expected = {
        "127.0.1.11": "online",
        "127.0.1.12": "online",
        "127.0.1.13": "online",
        "127.0.1.30": "online",
    }
    seen = {}

    def all_seen():
        status, body, _ = ask("/admin/devices", Cookie=cookie)
        demand(status == 200, f"the devices answer {status}: {body[:200]}")
        found = json.loads(body)
        found = found.get("devices", found) if isinstance(found, dict) else found
        seen.clear()
        for device in found:
            observed = device.get("state") or device.get("observed") or device
            seen[device["ip"]] = observed.get("status")
        return seen == expected

    try:
        until("the backend knows the equipment", all_seen)
    except Failed as failure:
        raise Failed(f"{failure}: {seen}") from None
    status, _, _ = ask("/devices")
    demand(status == 403, f"/devices answers {status} to strangers")
    say(f"   the agent enrolled by itself, and the backend knows its {len(seen)} devices")

    # What is made once stays over an end and a new start.
    secret = (work / "volumes/secrets/database-password").read_text(encoding="utf-8")
    config = (work / "volumes/agent/config.json").read_text(encoding="utf-8")
    for name in reversed(order):
        services[name].stop()
    for service in services.values():
        service.process = None
    up(services, order)
    until("the backend knows the equipment after a new start", all_seen)
    again = (work / "volumes/secrets/database-password").read_text(encoding="utf-8")
    demand(secret == again, "the database has another password after a new start")
    token = json.loads(config)["site_token"]
    config = json.loads((work / "volumes/agent/config.json").read_text(encoding="utf-8"))
    demand(config["site_token"] == token, "the agent enrolled again")
    for service in services.values():
        log = service.log.read_text(encoding="utf-8", errors="replace")
        demand(secret not in log and token not in log, f"{service.name}.log has a secret")
    say("   stopped and started again: same password, same agent, nothing secret in a log")


def inside(service):
    """What the kernel says of a running service."""
    status = Path(f"/proc/{service.first_process()}/status").read_text(encoding="utf-8")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    demand("0" not in fields["Uid"].split(), f"{service.name} runs as root")
    demand(int(fields["CapEff"], 16) == 0, f"{service.name} has capabilities: {fields['CapEff']}")
    demand(fields["NoNewPrivs"] == "1", f"{service.name} can gain privileges")
    code = service.run_within(["sh", "-c", "touch /probe 2>/dev/null || touch /usr/probe 2>/dev/null"])
    demand(code != 0, f"{service.name} can write its root")
    # Not for a lack of rights alone: its root is mounted read-only.
    mounts = Path(f"/proc/{service.first_process()}/mountinfo").read_text(encoding="utf-8")
    root = next(line.split() for line in mounts.splitlines() if line.split()[4] == "/")
    demand("ro" in root[5].split(","), f"{service.name}: its root is mounted for writing")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
