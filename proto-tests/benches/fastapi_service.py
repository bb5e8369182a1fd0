"""The contract's two routes as a FastAPI service would have them, written for
speed.py to compare with: SQLAlchemy's ORM over the backend's own tables.

    DATABASE_URL=postgresql+psycopg://... uvicorn fastapi_service:app
"""

import datetime
import hashlib
import json
import os
from typing import Any, Literal

from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, DateTime, ForeignKey, Text, create_engine, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSONB, str: Text, int: BigInteger,
                           datetime.datetime: DateTime(timezone=True)}


class Site(Base):
    __tablename__ = "sites"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    token: Mapped[str]
    timezone: Mapped[str]
    doubt_after_days: Mapped[int]
    ok_interval_s: Mapped[int]
    ko_interval_s: Mapped[int]
    devices: Mapped[list["Device"]] = relationship()


class Device(Base):
    __tablename__ = "devices"
    id: Mapped[int] = mapped_column(primary_key=True)
    site_id: Mapped[int] = mapped_column(ForeignKey("sites.id"))
    name: Mapped[str]
    ip: Mapped[str]
    device_type: Mapped[str]
    driver: Mapped[str]
    building: Mapped[str | None]
    floor: Mapped[str | None]
    room: Mapped[str | None]
    driver_config: Mapped[dict[str, Any] | None]
    expectations: Mapped[dict[str, Any] | None]


class DeviceState(Base):
    __tablename__ = "device_states"
    device_id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    verdict: Mapped[str]
    detail: Mapped[str | None]
    metrics: Mapped[dict[str, Any]]
    observed_at: Mapped[datetime.datetime]
    last_seen: Mapped[datetime.datetime]
    status_since: Mapped[datetime.datetime]
    verdict_since: Mapped[datetime.datetime]


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


class ReportedDevice(BaseModel):
    ip: str
    status: Literal["online", "offline", "unknown"]
    verdict: Literal["ok", "fault", "expected_off", "doubt", "unknown"]
    detail: str | None = Field(default=None, max_length=280)
    metrics: dict[str, Any]


class Report(BaseModel):
    site_name: str
    devices: list[ReportedDevice]


engine = create_engine(os.environ["DATABASE_URL"], pool_size=16)
app = FastAPI()


def site_of(session: Session, token: str, status: int) -> Site:
    digest = hashlib.sha256(token.encode()).hexdigest()
    site = session.scalars(
        select(Site).where(Site.token.in_([digest, "sha256:" + digest]))
        .options(selectinload(Site.devices))
    ).first()
    if site is None:
        raise HTTPException(status, "no site has this token")
    return site


@app.get("/config/{token}")
def config(token: str, if_none_match: str | None = Header(default=None)):
    with Session(engine) as session:
        site = site_of(session, token, 404)
        head = {"site_name": site.name, "timezone": site.timezone,
                "doubt_after_days": site.doubt_after_days}
        intervals = {"ok_interval_s": site.ok_interval_s, "ko_interval_s": site.ko_interval_s}
        devices = [
            {"ip": d.ip, "name": d.name, "building": d.building or "", "floor": d.floor or "",
             "room": d.room or "", "type": d.device_type, "driver": d.driver,
             "driver_config": d.driver_config or {}, "expectations": d.expectations or {}}
            for d in sorted(site.devices, key=lambda d: d.ip)
        ]
    hashed = json.dumps({**head, **intervals, "devices": devices}, sort_keys=True,
                        ensure_ascii=False)
    digest = hashlib.md5(hashed.encode()).hexdigest()
    etag = f'"{digest}"'
    if if_none_match == etag:
        return Response(status_code=304, headers={"ETag": etag})
    for device in devices:
        device["snmp"] = device["driver_config"].get("snmp", {})
        device["pjlink"] = device["driver_config"].get("pjlink", {})
    document = {"config_hash": digest, **head, "reporting": intervals, "devices": devices}
    return Response(json.dumps(document, ensure_ascii=False), media_type="application/json",
                    headers={"ETag": etag})


@app.post("/ingest")
def ingest(report: Report, x_site_token: str = Header()):
    now = datetime.datetime.now(datetime.timezone.utc)
    with Session(engine) as session:
        site = site_of(session, x_site_token, 401)
        known = {d.ip: d.id for d in site.devices}
        rows = [
            {"device_id": known[d.ip], "status": d.status, "verdict": d.verdict,
             "detail": d.detail, "metrics": d.metrics, "observed_at": now}
            for d in report.devices if d.ip in known
        ]
        states = [{**row, "last_seen": now, "status_since": now, "verdict_since": now}
                  for row in rows]
        statement = insert(DeviceState)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["device_id"],
                set_={name: statement.excluded[name] for name in
                      ("status", "verdict", "detail", "metrics", "observed_at", "last_seen")}),
            states)
        ips = {device_id: ip for ip, device_id in known.items()}
        session.execute(
            insert(Observation).on_conflict_do_nothing(),
            [{**row, "site_id": site.id, "ip": ips[row["device_id"]], "received_at": now}
             for row in rows])
        session.commit()
    return {"ok": True, "upserted": len(rows)}
