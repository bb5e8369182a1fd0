#!/usr/bin/env python3
"""Asks the demonstration's backend and agent one question; the exit code answers.

    state.py health URL                       the backend is healthy
    state.py page URL                         the agent's page answers
    state.py synced URL                       the agent runs the backend's configuration
    state.py agent URL IP STATUS              the agent found the device so
    state.py refused URL USER                 a wrong password opens nothing
    state.py log_in URL USER FILE COOKIES     the user gets in; the session is kept
    state.py web URL COOKIES PATH TEXT...     this page is there, with these texts
    state.py backend URL COOKIES SITE IP STATUS
                                              the backend knows the device so

FILE holds the user's password, COOKIES the session. STATUS is online, offline, unknown, or absent:
the device is not listed.
"""

import http.cookiejar
import json
import sys
import urllib.parse
import urllib.request


class Browser:
    """Keeps cookies as a browser does; proxies are for the world outside."""

    def __init__(self, cookies=None):
        self.jar = http.cookiejar.MozillaCookieJar()
        if cookies:
            self.jar.load(cookies, ignore_discard=True)
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.jar)
        )

    def get(self, url):
        """The page; an error where it is another one, as that of the log-in."""
        with self.opener.open(url, timeout=10) as answer:
            if answer.geturl() != url:
                raise OSError(f"leads to {answer.geturl()}")
            return answer.read()

    def log_in(self, url, name, password):
        """Sends the form of the log-in page; returns the path that it leads to."""
        self.get(url + "/login")
        form = urllib.parse.urlencode({"name": name, "password": password}).encode()
        with self.opener.open(url + "/login", form, timeout=10) as answer:
            return urllib.parse.urlsplit(answer.geturl()).path


def has_status(devices, ip, wanted):
    found = [device for device in devices if device["ip"] == ip]
    if wanted == "absent":
        return not found
    return len(found) == 1 and found[0]["status"] == wanted


def health(url):
    Browser().get(url + "/health")
    return True


def page(url):
    return b"Sync Backend" in Browser().get(url + "/")


def synced(url):
    sync = json.loads(Browser().get(url + "/api/status"))["sync"]
    return sync["last_sync_ok"] is True and sync["current_hash"] == sync["backend_hash"] is not None


def agent(url, ip, wanted):
    return has_status(json.loads(Browser().get(url + "/api/status"))["devices"], ip, wanted)


def refused(url, name):
    return Browser().log_in(url, name, "not the password") == "/login"


def log_in(url, name, file, cookies):
    with open(file, encoding="utf-8") as lines:
        password = lines.read().strip()
    browser = Browser()
    if browser.log_in(url, name, password) != "/":
        return False
    browser.jar.save(cookies, ignore_discard=True)
    return True


def web(url, cookies, path, *texts):
    shown = Browser(cookies).get(url + path).decode()
    missing = [text for text in texts if text not in shown]
    if missing:
        print(f"{path} has no {', '.join(missing)}", file=sys.stderr)
    return not missing


def backend(url, cookies, site, ip, wanted):
    query = urllib.parse.urlencode({"site": site})
    return has_status(json.loads(Browser(cookies).get(f"{url}/devices?{query}")), ip, wanted)


QUESTIONS = {
    question.__name__: question
    for question in (health, page, synced, agent, refused, log_in, web, backend)
}


def main(arguments):
    if len(arguments) < 2 or arguments[0] not in QUESTIONS:
        raise SystemExit(__doc__)
    try:
        return QUESTIONS[arguments[0]](*arguments[1:])
    except OSError as error:
        # Not there yet, or not well: the caller asks again.
        if arguments[0] in ("refused", "log_in", "web"):
            print(f"{arguments[0]}: {error}", file=sys.stderr)
        return False


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
