#!/usr/bin/env python3
"""Programs of two versions together, as real processes on a private
PostgreSQL. Called by scripts/test-upgrade.sh with two folders of binaries:

    upgrade.py OLD NEW SIMULATOR

Each of OLD and NEW has av-agent and av-backend; SIMULATOR is pjlink-sim.
"""

import contextlib
import html
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

LIMIT_S = 90
PASSWORD = "correct horse battery"


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def wait_for(what, condition, context=lambda: ""):
    until = time.monotonic() + LIMIT_S
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {LIMIT_S} s in vain until {what}\n{context()}")
        time.sleep(0.05)


def request(method, url, headers=None, body=None):
    """The status, the headers and the text of the answer; None without one."""
    data = None if body is None else json.dumps(body).encode()
    headers = dict(headers or {})
    if data is not None:
        headers.setdefault("Content-Type", "application/json")
    asked = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()
    except OSError:
        return None


class Process:
    """A program, its log in a file, ended with this one."""

    def __init__(self, folder, name, command, env=None, **more):
        self.log_file = pathlib.Path(folder) / f"{name}-{time.monotonic_ns()}.log"
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**{k: v for k, v in os.environ.items() if k != "RUST_LOG"}, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **more,
            )

    def log(self):
        return self.log_file.read_text(errors="replace")

    def tail(self):
        return "\n".join(self.log().splitlines()[-30:])

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Postgres:
    def __init__(self, stack, folder):
        # PostgreSQL refuses to run as root.
        user = {}
        if os.getuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            who = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            user = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
        # The one on PATH, else the newest that is installed.
        on_path = shutil.which("initdb")
        if on_path:
            bin_folder = pathlib.Path(on_path).resolve().parent
        else:
            bin_folder = max(
                pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name)
            )
        data = pathlib.Path(folder) / "pg"
        data.mkdir()
        os.chmod(folder, 0o711)
        if user:
            os.chown(data, user["user"], user["group"])
        subprocess.run(
            [bin_folder / "initdb", "--no-sync", "--auth=trust", "--username=av",
             "--encoding=UTF8", "--locale=C.UTF-8", "-D", data],
            check=True, cwd="/", stdout=subprocess.DEVNULL, **user,
        )
        self.port = free_port()
        self.process = Process(
            folder, "postgres",
            [bin_folder / "postgres", "-D", data, "-p", str(self.port),
             "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
             "-c", "fsync=off"],
            cwd="/", **user,
        )
        stack.callback(self.process.end, signal.SIGINT)
        wait_for("PostgreSQL starts", lambda: self.try_sql("postgres", "SELECT 1") is not None,
                 self.process.tail)

    def url(self, database):
        return f"postgres://av@127.0.0.1:{self.port}/{database}"

    def try_sql(self, database, text):
        done = subprocess.run(
            ["psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", text,
             "-d", self.url(database)],
            capture_output=True, text=True,
        )
        self.said = done.stderr
        return done.stdout.strip() if done.returncode == 0 else None

    def sql(self, database, text):
        found = self.try_sql(database, text)
        assert found is not None, f"{text}\n{self.said}"
        return found


class Backend:
    def __init__(self, stack, folder, programs, database_url, listen=None, log=None):
        self.listen = listen or f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.listen}"
        self.program = programs / "av-backend"
        # Not what a unit of this machine has.
        self.env = {"DATABASE_URL": database_url, "AV_LISTEN": self.listen, "AV_ENV_FILE": ""}
        if log:
            self.env["RUST_LOG"] = log
        self.process = Process(folder, "backend", [self.program, "serve"], self.env)
        stack.callback(self.process.end)
        wait_for("the backend is healthy",
                 lambda: (request("GET", f"{self.url}/health") or [0])[0] == 200,
                 self.process.tail)

    def cli(self, *arguments, text=""):
        done = subprocess.run(
            [self.program, *arguments], env={**os.environ, **self.env},
            input=text, capture_output=True, text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def get(self, path, headers=None):
        answer = request("GET", self.url + path, headers)
        assert answer, f"no answer to {path}\n{self.process.tail()}"
        return answer

    def device(self, token, ip):
        """A device of the site of this token. An older backend tells of every site."""
        status, _, text = self.get("/devices", {"X-Site-Token": token})
        assert status == 200, text
        found = [device for device in json.loads(text) if device["ip"] == ip]
        return found[0] if found else None

    def ingest(self, token, report):
        answer = request("POST", f"{self.url}/ingest", {"X-Site-Token": token}, report)
        assert answer, self.process.tail()
        return answer

    def config(self, token):
        status, headers, text = self.get(f"/config/{token}")
        assert status == 200, text
        config = json.loads(text)
        assert headers["ETag"] == f'"{config["config_hash"]}"', headers
        return config


def backend_alone(stack, program):
    """A backend of this program over a database of its own, and that database."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="av-bench-"))
    stack.callback(shutil.rmtree, folder, True)
    postgres = Postgres(stack, folder)
    postgres.sql("postgres", "CREATE DATABASE av")
    programs = folder / "bin"
    programs.mkdir()
    (programs / "av-backend").symlink_to(program.resolve())
    return Backend(stack, folder, programs, postgres.url("av"), log="warn"), postgres


class Agent:
    """An agent in a folder that stays when its program is changed."""

    def __init__(self, stack, folder, site, token, backend):
        self.stack, self.folder = stack, pathlib.Path(folder) / f"agent-{site}"
        self.folder.mkdir()
        self.listen = f"127.0.0.1:{free_port()}"
        (self.folder / "config.json").write_text(json.dumps(
            {"site_name": site, "site_token": token, "backend_url": backend.url}))
        self.process = None

    def run(self, programs):
        if self.process:
            assert self.process.end() == 0, self.process.tail()
        self.process = Process(
            self.folder, "agent", [programs / "av-agent"],
            {"AGENT_CONFIG": str(self.folder / "config.json"),
             "AV_STATE_DIR": str(self.folder / "state"),
             "AV_PAGE_LISTEN": self.listen, "AV_FIRST_SYNC_S": "0",
             "CONFIG_SYNC_INTERVAL_MIN": "0.0166667"},
        )
        self.stack.callback(self.process.end)

    def status(self):
        answer = request("GET", f"http://{self.listen}/api/status")
        return json.loads(answer[2]) if answer and answer[0] == 200 else None

    def wait(self, what, condition):
        def met():
            status = self.status()
            return status if status and condition(status) else None

        return wait_for(what, met, lambda: f"{self.status()}\n{self.process.tail()}")

    def wait_all_sent(self):
        def sent(status):
            report = status["report"]
            assert report["dropped"] == 0 and report["refused"] == 0, report
            return report["pending"] == 0 and report["sent"] + report["duplicates"] > 0

        return self.wait("every report is sent", sent)


def add_site(backend, name):
    return backend.cli("site", "add", name, "--timezone", "Europe/Paris").splitlines()[-1]


def add_projector(postgres, database, site, ip, port):
    postgres.sql(database, f"""
        INSERT INTO devices (site_id, name, ip, device_type, driver, driver_config, expectations)
        SELECT id, 'Projecteur é', '{ip}', 'projector', 'pjlink',
               '{{"pjlink": {{"port": {port}}}, "exact": 0.10}}', '{{"always_on": true}}'
          FROM sites WHERE name = '{site}'""")


def main_job(postgres, database, site, backend, agent, projector):
    """A device that is added is watched and its state known; changed, it is
    changed; deleted, it is gone. Its secrets and its hash are one at both
    ends."""
    ip, port = projector
    token = json.loads((agent.folder / "config.json").read_text())["site_token"]
    add_projector(postgres, database, site, ip, port)
    known = wait_for(
        "the backend knows the projector",
        lambda: (lambda d: d if d and d["status"] == "online" else None)(backend.device(token, ip)),
        lambda: agent.process.tail() + backend.process.tail())
    assert known["verdict"] == "ok" and known["metrics"]["pjlink_power"] == 1, known
    config = backend.config(token)
    status = agent.wait("both have one hash",
                        lambda s: s["sync"]["current_hash"] == config["config_hash"])
    assert status["devices"][0]["verdict"] == "ok", status
    headers = {"If-None-Match": f'"{config["config_hash"]}"'}
    assert backend.get(f"/config/{token}", headers)[0] == 304
    postgres.sql(database, f"UPDATE devices SET room = 'Salle 2' WHERE ip = '{ip}'")
    agent.wait("the agent has the new room", lambda s: s["devices"][0]["room"] == "Salle 2")
    agent.wait_all_sent()
    postgres.sql(database, f"DELETE FROM devices WHERE ip = '{ip}'")
    agent.wait("the device is gone", lambda s: s["devices"] == [])
    assert backend.device(token, ip) is None


def admin_token(postgres, database, backend, name):
    backend.cli("user", "add", name, "--role", "admin", "--password-stdin",
                text=PASSWORD + "\n")
    import hashlib
    token = "avt_" + os.urandom(32).hex()
    digest = "sha256:" + hashlib.sha256(token.encode()).hexdigest()
    postgres.sql(database, f"""
        INSERT INTO api_tokens (user_id, name, digest)
        SELECT id, 'upgrade', '{digest}' FROM users WHERE name = '{name}'""")
    return {"Authorization": f"Bearer {token}"}


def admin_works(backend, who, site, ip):
    """Reads and writes of the administrator's API, each kind once."""
    status, _, text = request("GET", f"{backend.url}/admin/me", who)
    assert status == 200, text
    status, _, text = request("GET", f"{backend.url}/admin/sites", who)
    assert status == 200, text
    listed = json.loads(text)
    sites = listed if isinstance(listed, list) else listed["sites"]
    site_id = next(s["id"] for s in sites if s["name"] == site)
    status, headers, text = request(
        "POST", f"{backend.url}/admin/devices", who,
        {"site_id": site_id, "ip": ip, "name": "By API", "driver": "ping", "type": "display"})
    assert status == 201, text
    place, etag = headers["Location"], headers["ETag"]
    status, _, text = request("PATCH", f"{backend.url}{place}", {**who, "If-Match": etag},
                              {"room": "Salle 9"})
    assert status == 200, text
    for path in ["/admin/devices", "/admin/alerts", f"/admin/sites/{site_id}/versions",
                 "/admin/audit", "/admin/users", "/admin/channels", "/admin/maintenance"]:
        status, _, text = request("GET", backend.url + path, who)
        assert status == 200, (path, status, text)
    status, headers, text = request("GET", f"{backend.url}{place}", who)
    assert status == 200 and json.loads(text)["room"] == "Salle 9", text
    status, _, text = request("DELETE", f"{backend.url}{place}",
                              {**who, "If-Match": headers["ETag"]})
    assert status in (200, 204), text
    return site_id


def pages_work(backend, name):
    """Every page that links lead to from the first one, for an administrator;
    returns how many."""
    status, headers, text = request("POST", f"{backend.url}/login", {},
                                    {"name": name, "password": PASSWORD})
    assert status in (200, 204), (status, text)
    cookie = {"Cookie": headers["Set-Cookie"].split(";")[0]}
    seen, waiting = set(), ["/"]
    while waiting:
        path = waiting.pop(0)
        seen.add(path.split("?")[0])
        status, headers, text = backend.get(path, cookie)
        assert status == 200, (path, status, text)
        if not headers["Content-Type"].startswith("text/html"):
            continue
        assert 'action="/login"' not in text, f"{path} asks for a log-in"
        # One look at each page: filters and sorting lead back to it.
        for link in re.findall(r'href="(/[^"#]*)', text):
            link = html.unescape(link)
            if link.split("?")[0] not in seen | {other.split("?")[0] for other in waiting}:
                waiting.append(link)
    assert len(seen) > 5, seen
    return len(seen)


def report(site, seq, ip, status, verdict):
    return {
        "site_name": site, "report": {"stream": "upgrade", "seq": seq},
        "devices": [{"ip": ip, "name": "x", "building": "", "floor": "", "room": "",
                     "type": "projector", "driver": "pjlink", "status": status,
                     "verdict": verdict, "detail": None, "metrics": {}}],
    }


def neighbours(stack, folder, postgres, projector, agent_of, backend_of, label):
    database = label.replace(" ", "_")
    postgres.sql("postgres", f"CREATE DATABASE {database}")
    backend = Backend(stack, folder, backend_of, postgres.url(database))
    token = add_site(backend, "Lyon")
    agent = Agent(stack, tempfile.mkdtemp(dir=folder), "Lyon", token, backend)
    agent.run(agent_of)
    main_job(postgres, database, "Lyon", backend, agent, projector)
    assert agent.process.end() == 0, agent.process.tail()
    assert " ERROR" not in backend.process.log(), backend.process.tail()
    backend.process.end()


def side_by_side(stack, folder, postgres, projector, old, new):
    """A new backend starts on the database of an old one, which goes on; then
    the agent's program is changed, and changed back."""
    database = "side_by_side"
    ip, port = projector
    postgres.sql("postgres", f"CREATE DATABASE {database}")
    before = Backend(stack, folder, old, postgres.url(database))
    token = add_site(before, "Lyon")
    who = admin_token(postgres, database, before, "anna")
    add_projector(postgres, database, "Lyon", "10.9.9.9", 1)
    agent = Agent(stack, tempfile.mkdtemp(dir=folder), "Lyon", token, before)
    agent.run(old)
    agent.wait("the agent has its configuration", lambda s: len(s["devices"]) == 1)
    old_schema = postgres.sql(database, "SELECT max(version) FROM schema_migrations")
    hash_before = before.config(token)["config_hash"]

    after = Backend(stack, folder, new, postgres.url(database))
    new_schema = postgres.sql(database, "SELECT max(version) FROM schema_migrations")
    print(f"  schema {old_schema} -> {new_schema}")
    assert before.config(token)["config_hash"] == hash_before, "a migration changes no hash"
    postgres.sql(database, "DELETE FROM devices")
    pages = []
    for seq, backend in enumerate([before, after, before, after], 1):
        # Both serve configurations, take reports and administer.
        main_job(postgres, database, "Lyon", backend, agent, projector)
        postgres.sql(database, "INSERT INTO devices (site_id, name, ip) "
                               "SELECT id, 'r', '10.8.8.8' FROM sites")
        # A change is seen by every poll that comes 100 ms after its commit.
        time.sleep(0.1)
        assert before.config(token) == after.config(token)
        for status, verdict, part in [("offline", "fault", 0), ("online", "ok", 1)]:
            text = backend.ingest(token, report("Lyon", seq * 2 + part, "10.8.8.8", status, verdict))
            assert text[0] == 200 and json.loads(text[2])["upserted"] == 1, text
            for one in [before, after]:
                known = one.device(token, "10.8.8.8")
                assert (known["status"], known["verdict"]) == (status, verdict), known
        postgres.sql(database, "DELETE FROM devices")
        admin_works(backend, who, "Lyon", "10.7.7.7")
        add_projector(postgres, database, "Lyon", "10.6.6.6", 1)
        pages.append(pages_work(backend, "anna"))
        postgres.sql(database, "DELETE FROM devices")
        time.sleep(0.1)
        assert before.config(token)["config_hash"] == after.config(token)["config_hash"]

    print(f"  pages served by the old one: {pages[0]}, by the new one: {pages[1]}")

    # The agent's program is changed with reports in its spool, and back.
    for programs in [new, old, new]:
        add_projector(postgres, database, "Lyon", ip, port)
        agent.wait("the projector is watched", lambda s: len(s["devices"]) == 1)
        agent.run(programs)
        agent.wait("it is watched by the other program",
                   lambda s: s["devices"] and s["devices"][0]["verdict"] == "ok")
        agent.wait_all_sent()
        postgres.sql(database, "DELETE FROM devices")
        agent.wait("the device is gone", lambda s: s["devices"] == [])
    # An old backend that starts on the new schema, as after a step back.
    before.process.end()
    again = Backend(stack, folder, old, postgres.url(database), before.listen)
    main_job(postgres, database, "Lyon", again, agent, projector)
    for backend in [again, after]:
        bad = [line for line in backend.process.log().splitlines() if " ERROR" in line]
        assert not bad, "\n".join(bad)


def main():
    old, new, simulator = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    folder = tempfile.mkdtemp(prefix="av-upgrade-")
    failed = 0
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, True)
        postgres = Postgres(stack, folder)
        projector = ("127.0.0.11", free_port())
        simulated = Process(folder, "pjlink-sim",
                            [simulator, "--listen", f"{projector[0]}:{projector[1]}"])
        stack.callback(simulated.end)
        checks = {
            "old agent, new backend": lambda s: neighbours(
                s, folder, postgres, projector, old, new, "old_agent"),
            "new agent, old backend": lambda s: neighbours(
                s, folder, postgres, projector, new, old, "old_backend"),
            "old backend beside the new one on the new schema, agent changed and changed back":
                lambda s: side_by_side(s, folder, postgres, projector, old, new),
        }
        for name, check in checks.items():
            started = time.monotonic()
            try:
                with contextlib.ExitStack() as own:
                    check(own)
            except AssertionError as error:
                failed += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                print(f"✗ {name}: line {where.lineno}: {where.line}: {error}", flush=True)
            else:
                print(f"✓ {name} ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"upgrade: {len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
