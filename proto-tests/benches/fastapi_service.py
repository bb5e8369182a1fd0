"""The contract's two routes as a Python service would have them: FastAPI over
SQLAlchemy, on the backend's own schema. Only for benches/speed.py, which runs it
under uvicorn with a process for each core.
"""

import datetime
import hashlib
import json
import os
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel, Field
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = sa.create_engine(os.environ["DATABASE_URL"], pool_size=20, max_overflow=20)
app = FastAPI(openapi_url=None)
Timestamp = sa.DateTime(timezone=True)


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSONB, datetime.datetime: Timestamp}


class Site(Base):
    __tablename__ = "sites"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    token: Mapped[str]
    timezone: Mapped[str]
    doubt_after_days: Mapped[int]
    ok_interval_s: Mapped[int]
    ko_interval_s: Mapped[int]


class Device(Base):
    __tablename__ = "devices"
    id: Mapped[int] = mapped_column(primary_key=True)
    site_id: Mapped[int]
    name: Mapped[str]
    ip: Mapped[str]
    device_type: Mapped[str]
    driver: Mapped[str]
    building: Mapped[str | None]
    floor: Mapped[str | None]
    room: Mapped[str | None]
    driver_config: Mapped[dict[str, Any] | None]
    expectations: Mapped[dict[str, Any] | None]


class State(Base):
    __tablename__ = "device_states"
    device_id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    verdict: Mapped[str]
    detail: Mapped[str | None]
    metrics: Mapped[dict[str, Any]]
    observed_at: Mapped[datetime.datetime]
    last_seen: Mapped[datetime.datetime]
    last_ok_at: Mapped[datetime.datetime | None]
    status_since: Mapped[datetime.datetime]
    verdict_since: Mapped[datetime.datetime]
    recorded_at: Mapped[datetime.datetime]


class Observation(Base):
    __tablename__ = "observations"
    device_id: Mapped[int] = mapped_column(primary_key=True)
    observed_at: Mapped[datetime.datetime] = mapped_column(primary_key=True)
    site_id: Mapped[int]
    ip: Mapped[str]
    received_at: Mapped[datetime.datetime]
    status: Mapped[str]
    verdict: Mapped[str]
    detail: Mapped[str | None]
    metrics: Mapped[dict[str, Any]]


class Cursor(Base):
    __tablename__ = "report_cursors"
    site_id: Mapped[int] = mapped_column(primary_key=True)
    stream: Mapped[str] = mapped_column(primary_key=True)
    last_seq: Mapped[int]
    last_received_at: Mapped[datetime.datetime]


class ReportedDevice(BaseModel):
    ip: str
    name: str
    building: str | None
    floor: str | None
    room: str | None
    type: str
    driver: str
    status: Literal["online", "offline", "unknown"]
    detail: Annotated[str, Field(max_length=280)] | None
    metrics: dict[str, Any]
    verdict: Literal["ok", "fault", "expected_off", "doubt", "unknown"]
    observed_at: datetime.datetime | None = None


class ReportId(BaseModel):
    stream: str
    seq: int


class Report(BaseModel):
    site_name: str
    devices: list[ReportedDevice]
    report: ReportId | None = None


def site_of(session, token):
    digest = "sha256:" + hashlib.sha256(token.encode()).hexdigest()
    return session.scalar(sa.select(Site).where(Site.token == digest))


def hash_of(site, devices):
    document = {
        "site_name": site.name,
        "timezone": site.timezone,
        "doubt_after_days": site.doubt_after_days,
        "ok_interval_s": site.ok_interval_s,
        "ko_interval_s": site.ko_interval_s,
        "devices": [
            {
                "ip": device.ip,
                "name": device.name,
                "building": device.building or "",
                "floor": device.floor or "",
                "room": device.room or "",
                "type": device.device_type,
                "driver": device.driver,
                "driver_config": device.driver_config or {},
                "expectations": device.expectations or {},
            }
            for device in devices
        ],
    }
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    return hashlib.md5(text.encode()).hexdigest(), document["devices"]


@app.get("/config/{token}")
def config(token: str, response: Response, if_none_match: Annotated[str | None, Header()] = None):
    with Session(engine) as session:
        site = site_of(session, token)
        if site is None:
            raise HTTPException(404, "no site has this token")
        found = session.scalars(sa.select(Device).where(Device.site_id == site.id))
        config_hash, devices = hash_of(site, sorted(found, key=lambda device: device.ip))
        tag = f'"{config_hash}"'
        if if_none_match == tag:
            return Response(status_code=304, headers={"ETag": tag})
        response.headers["ETag"] = tag
        return {
            "config_hash": config_hash,
            "site_name": site.name,
            "timezone": site.timezone,
            "doubt_after_days": site.doubt_after_days,
            "reporting": {
                "ok_interval_s": site.ok_interval_s,
                "ko_interval_s": site.ko_interval_s,
            },
            "devices": [
                {
                    **{key: device[key] for key in (
                        "ip", "name", "building", "floor", "room", "type", "driver")},
                    "snmp": device["driver_config"].get("snmp", {}),
                    "pjlink": device["driver_config"].get("pjlink", {}),
                    "expectations": device["expectations"],
                    "driver_config": device["driver_config"],
                }
                for device in devices
            ],
        }


@app.post("/ingest")
def ingest(report: Report, x_site_token: Annotated[str | None, Header()] = None):
    now = datetime.datetime.now(datetime.timezone.utc)
    with Session(engine) as session:
        site = site_of(session, x_site_token or "")
        if site is None:
            raise HTTPException(401, "the site token is wrong")
        if site.name != report.site_name:
            raise HTTPException(404, "there is no such site")
        if report.report:
            place = insert(Cursor).values(
                site_id=site.id, stream=report.report.stream, last_seq=report.report.seq,
                last_received_at=now)
            place = place.on_conflict_do_update(
                index_elements=[Cursor.site_id, Cursor.stream],
                set_={"last_seq": place.excluded.last_seq,
                      "last_received_at": place.excluded.last_received_at},
                where=Cursor.last_seq < place.excluded.last_seq)
            if session.execute(place).rowcount == 0:
                return {"ok": True, "upserted": 0, "duplicate": True}
        devices = {
            device.ip: device
            for device in session.scalars(sa.select(Device).where(Device.site_id == site.id))
        }
        states = {
            state.device_id: state
            for state in session.scalars(
                sa.select(State).where(
                    State.device_id.in_([device.id for device in devices.values()])))
        }
        upserted = 0
        for seen in report.devices:
            device = devices.get(seen.ip)
            if device is None:
                continue
            upserted += 1
            at = seen.observed_at or now
            state = states.get(device.id)
            changed = state is None or (state.status, state.verdict, state.detail) != (
                seen.status, seen.verdict, seen.detail)
            recorded = changed or at >= state.recorded_at + datetime.timedelta(hours=1)
            if recorded:
                session.add(Observation(
                    site_id=site.id, device_id=device.id, ip=seen.ip, observed_at=at,
                    received_at=now, status=seen.status, verdict=seen.verdict,
                    detail=seen.detail, metrics=seen.metrics))
            if state is None:
                state = State(device_id=device.id, status_since=at, verdict_since=at,
                              last_seen=now, observed_at=at, recorded_at=at,
                              status=seen.status, verdict=seen.verdict)
                session.add(state)
            if state.status != seen.status:
                state.status_since = at
            if state.verdict != seen.verdict:
                state.verdict_since = at
            state.status, state.verdict = seen.status, seen.verdict
            state.detail, state.metrics = seen.detail, seen.metrics
            state.observed_at, state.last_seen = at, now
            if seen.status == "online":
                state.last_ok_at = at
            if recorded:
                state.recorded_at = at
        session.commit()
        return {"ok": True, "upserted": upserted}
