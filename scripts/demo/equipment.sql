-- The demonstration's equipment. Run once by demo.sh, which sets the
-- variables; anything may be changed or removed afterwards.

UPDATE sites
   SET ok_interval_s = 60, ko_interval_s = 15
 WHERE name = :'site';

INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config, expectations)
SELECT sites.id, device.name, :'net' || device.host, device.type, device.driver,
       device.building, device.floor, device.room, device.driver_config, device.expectations
  FROM sites, (VALUES
    ('Projecteur Amphithéâtre', '.11', 'projector', 'pjlink', 'Bâtiment A', 'RDC', 'Amphithéâtre Ampère',
     jsonb_build_object('pjlink', jsonb_build_object('password', :'password', 'port', :port, 'timeout_s', 2)),
     '{"always_on": false, "alert_after_s": 300, "schedule": {"timezone": "Europe/Paris",
       "rules": [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "08:00", "end": "18:00"}]}}'::jsonb),
    ('Projecteur Salle 101', '.12', 'projector', 'pjlink', 'Bâtiment A', '1', 'Salle 101',
     jsonb_build_object('pjlink', jsonb_build_object('port', :port)),
     '{"schedule": {"rules": [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "08:00", "end": "18:00"}]}}'),
    ('Projecteur Salle 204', '.13', 'projector', 'pjlink', 'Bâtiment B', '2', 'Salle 204',
     jsonb_build_object('pjlink', jsonb_build_object('port', :port)),
     '{"always_on": true, "alert_after_s": 60}'),
    ('Commutateur baie AV', '.20', 'switch', 'snmp', 'Bâtiment A', 'RDC', 'Local technique',
     jsonb_build_object('snmp', jsonb_build_object('community', :'community', 'port', :snmp_port)),
     '{"always_on": true, "alert_after_s": 60}'),
    ('Écran d''accueil', '.30', 'display', 'ping', 'Bâtiment A', 'RDC', 'Hall',
     NULL,
     '{"always_on": true, "alert_after_s": 60}')
  ) AS device (name, host, type, driver, building, floor, room, driver_config, expectations)
 WHERE sites.name = :'site';
