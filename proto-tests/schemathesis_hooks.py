"""What the description of the API cannot say, for schemathesis.

Of valid data, ids become such as are there, two times hang together, and
nothing is sent to a host that is not this one. Data that is meant to be
invalid stays as it is, but for those hosts.
"""

import os
import zlib

import schemathesis
from hypothesis import strategies as st

# All seeded by schemathesis_data.sql. What is deleted is none of what the
# other operations look at, so that they go on finding it.
KEPT, DELETED = 20, range(101, 161)
# Sites with devices, and one without.
SITES, EMPTY = 3, 4
CSV = "ip,name,driver,driver_config.pjlink.password\r\n10.9.0.{},Projecteur,pjlink,admin\r\n"

schemathesis.openapi.format(
    "iana-time-zone",
    st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Pacific/Chatham"]),
)


def known_id(number, deleted):
    """An id that is there, and now and then one that is not."""
    if not isinstance(number, int) or number % 8 == 5:
        return number
    return DELETED[number % len(DELETED)] if deleted else 1 + number % KEPT


def plain(value):
    """The same JSON without NUL characters, for which PostgreSQL has no place, and with whole numbers
    written as such."""
    match value:
        case str():
            return value.replace("\0", "")
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {plain(name): plain(item) for name, item in value.items()}
        case _:
            return value


def valid_body(operation, body):
    """A body that the schema allows, made one that means something."""
    if operation == "changeOwnPassword":
        return dict.fromkeys(("old", "new"), os.environ["AV_ST_PASSWORD"])
    # What must be there once is not there yet.
    new = zlib.crc32(repr(sorted(body.items())).encode())
    if operation != "changeUser" and isinstance(body.get("name"), str):
        body["name"] = f"{body['name'][:80]}-{new}"
    if isinstance(body.get("ip"), str):
        body["ip"] = f"10.{new % 200 + 1}.{new // 200 % 250}.{new // 50_000 % 250}"
    if isinstance(body.get("site_id"), int):
        body["site_id"] = 1 + body["site_id"] % SITES
    if operation == "acceptSuggestion":
        # It is of site 1, and stays there.
        body.pop("site_id", None)
    if operation == "createDevice":
        body["site_id"] = body.get("site_id") or 1
    if operation in ("addWindow", "changeWindow"):
        body["starts_at"], body["ends_at"] = "2030-01-01T08:00:00Z", "2030-01-01T18:00:00+01:00"
    if operation in ("addChannel", "changeChannel"):
        quiet = ("quiet_from", "quiet_to")
        if not all(isinstance(body.get(name), str) for name in quiet):
            for name in quiet:
                body.pop(name, None)
    if operation == "rollBack":
        body.pop("expected_revision", None)
    return body


@schemathesis.hook
def map_case(ctx, case):
    operation = case.operation.definition.raw["operationId"]
    if isinstance(case.body, dict) and isinstance(case.body.get("url"), str):
        case.body["url"] = "http://127.0.0.1:9/hook"
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    deleted = case.method.upper() == "DELETE"
    for name, value in case.path_parameters.items():
        if name == "id":
            case.path_parameters[name] = known_id(value, deleted)
        elif isinstance(value, int):
            case.path_parameters[name] = 1 + value % 2
    if "If-Match" in case.headers or operation == "rollBack":
        # A lost race, now and then.
        if len(case.headers.get("If-Match", "")) % 8 != 7:
            case.headers["If-Match"] = "*"
    if isinstance(case.query.get("site_id"), int):
        case.query["site_id"] = 1 + case.query["site_id"] % SITES
    # Neither takes the devices away that others look at.
    if operation == "rollBack":
        case.path_parameters["id"] = EMPTY
    if operation == "importDevices":
        case.query["site_id"] = EMPTY
        # It stands in place of the Content-Type.
        case.query.pop("format", None)
    if case.media_type == "text/csv" and isinstance(case.body, str):
        case.body = CSV.format(1 + len(case.body) % 200)
    elif isinstance(case.body, dict):
        case.body = valid_body(operation, plain(case.body))
    elif isinstance(case.body, list):
        case.body = plain(case.body)
    if operation == "importDevices" and isinstance(case.body, (dict, list)):
        # An address is in a file once, and a new device needs the others.
        for number, row in enumerate(case.body["devices"] if isinstance(case.body, dict) else case.body):
            row["ip"] = f"10.8.{number // 250 % 250}.{1 + number % 250}"
            row.setdefault("name", "Device")
            row.setdefault("driver", "ping")
    return case


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Ids that an earlier answer brought come after `map_case`."""
    body = case.body
    if case.meta is None or not case.meta.generation.mode.is_positive or not isinstance(body, dict):
        return
    if case.operation.definition.raw["operationId"] in ("addWindow", "changeWindow"):
        # This device is of site 1, and is not moved by the operations on devices.
        body["site_id"] = 1
        if body.get("device_id") is not None:
            body["device_id"] = 90
            for name in ("building", "floor", "room"):
                body.pop(name, None)
