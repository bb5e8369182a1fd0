-- The equipment of the demonstration in containers. Run once by demo-start;
-- anything may be changed or removed afterwards.
UPDATE sites SET ok_interval_s = 60, ko_interval_s = 15 WHERE name = :'site';

INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config, expectations)
SELECT sites.id, device.name, device.ip, device.type, device.driver,
       device.building, device.floor, device.room, device.driver_config::jsonb, device.expectations::jsonb
  FROM sites, (VALUES
    ('Projecteur Amphithéâtre', '127.0.1.11', 'projector', 'pjlink', 'Bâtiment A', 'RDC', 'Amphithéâtre Ampère',
     '{"pjlink": {"password": "demo"}}',
     '{"schedule": {"rules": [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "08:00", "end": "18:00"}]}}'),
    ('Projecteur Salle 101', '127.0.1.12', 'projector', 'pjlink', 'Bâtiment A', '1', 'Salle 101',
     NULL,
     '{"schedule": {"rules": [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "08:00", "end": "18:00"}]}}'),
    ('Projecteur Salle 204', '127.0.1.13', 'projector', 'pjlink', 'Bâtiment B', '2', 'Salle 204',
     NULL,
     '{"always_on": true, "alert_after_s": 60}'),
    ('Écran d''accueil', '127.0.1.30', 'display', 'ping', 'Bâtiment A', 'RDC', 'Hall',
     NULL,
     '{"always_on": true, "alert_after_s": 60}')
  ) AS device (name, ip, type, driver, building, floor, room, driver_config, expectations)
 WHERE sites.name = :'site';
