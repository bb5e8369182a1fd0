-- Data that grows: availability by the day, kept for years, and the history's
-- old months dropped whole.
--
-- Like every file here it runs alone with `psql -f`, and again without harm.

-- One at a time, whoever runs it: the same lock as the backend's.
DO $$ BEGIN PERFORM pg_advisory_lock(7209411230417735); END $$;

-- How long each device was what, by the day of its site's time zone. No
-- foreign keys: what was, outlives the device.
CREATE TABLE IF NOT EXISTS device_days (
    device_id      BIGINT NOT NULL,
    day            DATE NOT NULL,
    site_id        BIGINT NOT NULL,
    ip             TEXT NOT NULL,
    ok_s           INTEGER NOT NULL,
    fault_s        INTEGER NOT NULL,
    expected_off_s INTEGER NOT NULL,
    doubt_s        INTEGER NOT NULL,
    unknown_s      INTEGER NOT NULL,
    PRIMARY KEY (device_id, day)
);

CREATE INDEX IF NOT EXISTS device_days_site ON device_days (site_id, day);

-- The days that are computed. A report that comes late takes its days out
-- again.
CREATE TABLE IF NOT EXISTS site_days (
    site_id     BIGINT NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
    day         DATE NOT NULL,
    computed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (site_id, day)
);

-- Its own name where PostgreSQL knows the zone, else UTC: the table takes any
-- text, and one bad site must not stop the others.
CREATE OR REPLACE FUNCTION av_zone(name TEXT) RETURNS TEXT LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM now() AT TIME ZONE name;
    RETURN name;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN 'UTC';
END $$;

-- Computes one day of one site; answers how many devices had one. Again with
-- the same history it writes the same.
--
-- An observation holds until the next one, but no longer than the history's
-- heartbeat of an hour and the silence limit: after that nothing is known.
CREATE OR REPLACE FUNCTION av_compute_day(of_site BIGINT, of_day DATE) RETURNS INTEGER
LANGUAGE plpgsql AS $$
DECLARE
    zone      TEXT;
    day_start TIMESTAMPTZ;
    day_end   TIMESTAMPTZ;
    holds     INTERVAL;
    devices   INTEGER;
BEGIN
    SELECT av_zone(timezone),
           greatest(make_interval(hours => 1),
                    make_interval(secs => av_report_interval_s(ok_interval_s, ko_interval_s)))
           + av_silence_limit(av_report_interval_s(ok_interval_s, ko_interval_s))
      INTO zone, holds FROM sites WHERE id = of_site;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    day_start := of_day::timestamp AT TIME ZONE zone;
    day_end := (of_day + 1)::timestamp AT TIME ZONE zone;

    DELETE FROM device_days WHERE site_id = of_site AND day = of_day;
    WITH seen AS (
        SELECT o.device_id, o.ip, o.verdict,
               greatest(o.observed_at, day_start) AS from_time,
               least(coalesce(lead(o.observed_at) OVER (PARTITION BY o.device_id ORDER BY o.observed_at),
                              day_end),
                     o.observed_at + holds, day_end) AS to_time
          FROM observations o
         WHERE o.site_id = of_site
           AND o.observed_at >= day_start - holds AND o.observed_at < day_end
    ), summed AS (
        SELECT device_id, max(ip) AS ip,
               coalesce(sum(extract(epoch FROM to_time - from_time)) FILTER (WHERE verdict = 'ok'), 0) AS ok,
               coalesce(sum(extract(epoch FROM to_time - from_time)) FILTER (WHERE verdict = 'fault'), 0) AS fault,
               coalesce(sum(extract(epoch FROM to_time - from_time)) FILTER (WHERE verdict = 'expected_off'), 0) AS off,
               coalesce(sum(extract(epoch FROM to_time - from_time)) FILTER (WHERE verdict = 'doubt'), 0) AS doubt
          FROM seen WHERE to_time > from_time
         GROUP BY device_id
    ), whole AS (
        -- A day counts from when the device was entered.
        SELECT coalesce(s.device_id, d.id) AS device_id, coalesce(d.ip, s.ip) AS ip,
               extract(epoch FROM day_end - least(greatest(coalesce(d.created_at, day_start), day_start), day_end)) AS seconds,
               round(coalesce(s.ok, 0))::int AS ok_s, round(coalesce(s.fault, 0))::int AS fault_s,
               round(coalesce(s.off, 0))::int AS off_s, round(coalesce(s.doubt, 0))::int AS doubt_s
          FROM summed s
          FULL JOIN (SELECT id, ip, created_at FROM devices
                      WHERE site_id = of_site AND created_at < day_end) d ON d.id = s.device_id
    )
    INSERT INTO device_days
           (device_id, day, site_id, ip, ok_s, fault_s, expected_off_s, doubt_s, unknown_s)
    SELECT device_id, of_day, of_site, ip, ok_s, fault_s, off_s, doubt_s,
           greatest(0, round(seconds)::int - ok_s - fault_s - off_s - doubt_s)
      FROM whole
        ON CONFLICT (device_id, day) DO UPDATE
       SET site_id = EXCLUDED.site_id, ip = EXCLUDED.ip, ok_s = EXCLUDED.ok_s,
           fault_s = EXCLUDED.fault_s, expected_off_s = EXCLUDED.expected_off_s,
           doubt_s = EXCLUDED.doubt_s, unknown_s = EXCLUDED.unknown_s;
    GET DIAGNOSTICS devices = ROW_COUNT;
    INSERT INTO site_days (site_id, day) VALUES (of_site, of_day)
        ON CONFLICT (site_id, day) DO UPDATE SET computed_at = EXCLUDED.computed_at;
    RETURN devices;
END $$;

-- The finished days that are not computed yet, oldest first. A day is
-- finished a quarter of an hour after its midnight: reports take their time.
CREATE OR REPLACE FUNCTION av_days_to_compute(most INTEGER)
RETURNS TABLE (site_id BIGINT, day DATE) LANGUAGE sql STABLE AS $$
    SELECT s.id, g::date
      FROM (SELECT id, (now() - interval '15 minutes') AT TIME ZONE av_zone(timezone) AS at,
                   av_zone(timezone) AS zone, created_at
              FROM sites) s
     CROSS JOIN LATERAL (
           -- No day before that is computed: the older months need not be asked.
           SELECT min(o.observed_at) AS first FROM observations o
            WHERE o.site_id = s.id AND o.observed_at >= now() - interval '400 days') f
     CROSS JOIN LATERAL generate_series(
           date_trunc('day', greatest(f.first, s.created_at, now() - interval '400 days') AT TIME ZONE s.zone),
           date_trunc('day', s.at) - interval '1 day', interval '1 day') g
     WHERE NOT EXISTS (SELECT 1 FROM site_days k WHERE k.site_id = s.id AND k.day = g::date)
     ORDER BY g, s.id
     LIMIT most
$$;

-- Takes the days from this time on out of the computed ones. Only of the last
-- four weeks, whose history is there whatever the retention: a day is never
-- computed anew from a month that was dropped.
CREATE OR REPLACE FUNCTION av_days_changed(of_site BIGINT, from_time TIMESTAMPTZ) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM site_days k
     WHERE k.site_id = of_site
       AND k.day > (now() - interval '28 days')::date
       AND k.day >= (from_time AT TIME ZONE
                     (SELECT av_zone(timezone) FROM sites WHERE id = of_site))::date
$$;

-- Drops the months of the history that ended more than `keep_months` whole
-- months before this one; answers their names. A month whose days are not all
-- computed yet stays.
CREATE OR REPLACE FUNCTION av_drop_partitions(keep_months INTEGER) RETURNS SETOF TEXT
LANGUAGE plpgsql AS $$
DECLARE
    oldest TIMESTAMP := date_trunc('month', now() AT TIME ZONE 'UTC')
                        - make_interval(months => greatest(keep_months, 1));
    part   TEXT;
BEGIN
    PERFORM pg_advisory_xact_lock(7209411230417736);
    IF EXISTS (SELECT 1 FROM av_days_to_compute(1) w WHERE w.day <= oldest) THEN
        RETURN;
    END IF;
    FOR part IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
         WHERE inhparent = 'observations'::regclass
           AND relname ~ '^observations_y[0-9]{4}m[0-9]{2}$'
           AND to_date(substr(relname, 15), 'YYYY"m"MM') < oldest
         ORDER BY relname
    LOOP
        EXECUTE format('DROP TABLE %I', part);
        RETURN NEXT part;
    END LOOP;
    DELETE FROM observations_default WHERE observed_at < oldest AT TIME ZONE 'UTC';
END $$;

DO $$ BEGIN PERFORM pg_advisory_unlock(7209411230417735); END $$;
