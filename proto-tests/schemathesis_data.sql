-- What schemathesis finds: of everything enough, with ids from 1 on. Those
-- from 101 on are there to be deleted; see schemathesis_hooks.py.

INSERT INTO sites (name, token, timezone)
SELECT 'Site ' || i, 'sha256:' || encode(sha256(convert_to('site ' || i, 'UTF8')), 'hex'), 'Europe/Paris'
  FROM generate_series(1, 160) i;

INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config, expectations)
SELECT 1 + i % 3, 'Device ' || i, '10.0.' || i / 250 || '.' || 1 + i % 250, 'projector', 'pjlink',
       'A', '1', 'Room ' || i, '{"pjlink": {"password": "geheim7"}}', '{"always_on": true}'
  FROM generate_series(1, 160) i;
UPDATE devices SET room = 'Hall' WHERE id % 10 = 0;
UPDATE devices SET floor = '2' WHERE id % 10 = 0;
UPDATE sites SET doubt_after_days = 3 WHERE id <= 100;

INSERT INTO device_states (device_id, status, verdict, observed_at, last_seen, status_since, verdict_since, recorded_at)
SELECT id, 'offline', 'fault', now(), now(), now(), now(), now() FROM devices;
INSERT INTO device_days (device_id, day, site_id, ip, ok_s, fault_s, expected_off_s, doubt_s, unknown_s)
SELECT id, current_date - 1, site_id, ip, 80000, 6400, 0, 0, 0 FROM devices;

INSERT INTO channels (name, kind, recipients)
SELECT 'Channel ' || i, 'mail', ARRAY['ops@example.org'] FROM generate_series(1, 160) i;
INSERT INTO alerts (site_id, device_id, device_ip, device_name, opened_at)
SELECT site_id, id, ip, name, now() FROM devices WHERE id <= 100;
INSERT INTO maintenance_windows (site_id, starts_at, ends_at)
SELECT 1, now(), now() + interval '1 hour' FROM generate_series(1, 160);

INSERT INTO users (name, password_hash, role)
SELECT 'User ' || i, '-', 'viewer' FROM generate_series(1, 160) i;
INSERT INTO api_tokens (user_id, name, digest)
SELECT u.id, 'Token ' || i, 'sha256:' || encode(sha256(convert_to('token ' || i, 'UTF8')), 'hex')
  FROM generate_series(1, 160) i, users u WHERE u.name = 'schemathesis';

INSERT INTO suggestions (site_id, ip, facts)
SELECT 1, '10.8.' || i / 200 || '.' || 1 + i % 200,
       jsonb_build_object('name', 'Found ' || i, 'type', 'projector', 'driver', 'ping')
  FROM generate_series(1, 160) i;
