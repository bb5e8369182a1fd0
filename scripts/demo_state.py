#!/usr/bin/env python3
"""Asks the demonstration's backend and agent one question; the exit code answers.

    demo_state.py health URL                       the backend is healthy
    demo_state.py page URL                         the agent's page answers
    demo_state.py synced URL                       the agent runs the backend's configuration
    demo_state.py agent URL IP STATUS              the agent found the device so
    demo_state.py backend URL SITE IP STATUS       the backend knows it so

STATUS is online, offline, unknown, or absent: the device is not listed.
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request


def get(url):
    # Proxies are for the world outside.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return answer.read()


def has_status(devices, ip, wanted):
    found = [device for device in devices if device["ip"] == ip]
    if wanted == "absent":
        return not found
    return len(found) == 1 and found[0]["status"] == wanted


def main(question, url, *rest):
    if question == "health":
        get(url + "/health")
        return True
    if question == "page":
        return b"Sync Backend" in get(url + "/")
    if question == "synced":
        sync = json.loads(get(url + "/api/status"))["sync"]
        return sync["last_sync_ok"] is True and sync["current_hash"] == sync["backend_hash"] is not None
    if question == "agent":
        ip, wanted = rest
        return has_status(json.loads(get(url + "/api/status"))["devices"], ip, wanted)
    if question == "backend":
        site, ip, wanted = rest
        query = urllib.parse.urlencode({"site": site})
        return has_status(json.loads(get(f"{url}/devices?{query}")), ip, wanted)
    raise SystemExit(f"no question {question!r}\n{__doc__}")


if __name__ == "__main__":
    try:
        answer = main(*sys.argv[1:])
    except (OSError, urllib.error.HTTPError):
        # Not there yet, or not well.
        answer = False
    sys.exit(0 if answer else 1)
