-- The history of the configuration, and the renewal of site tokens.
--
-- Like every file here it runs alone with `psql -f`, and again without harm.
-- The triggers stand beside those of 001 and run after them, in the order of
-- their names: running 001 again takes nothing away.

-- One at a time, whoever runs it: the same lock as the backend's.
DO $$ BEGIN PERFORM pg_advisory_lock(7209411230417735); END $$;

-- ----------------------------------------------------------- the history

-- Rows with the revisions in which they were true: from `rev_from` up to, and
-- without, `rev_to`; NULL where they still are. No foreign keys: history
-- outlives what it is about.
CREATE TABLE IF NOT EXISTS site_history (
    site_id          BIGINT NOT NULL,
    rev_from         BIGINT NOT NULL,
    rev_to           BIGINT,
    name             TEXT NOT NULL,
    timezone         TEXT NOT NULL,
    doubt_after_days INTEGER NOT NULL,
    ok_interval_s    INTEGER NOT NULL,
    ko_interval_s    INTEGER NOT NULL,
    PRIMARY KEY (site_id, rev_from)
);

CREATE TABLE IF NOT EXISTS device_history (
    site_id       BIGINT NOT NULL,
    device_id     BIGINT NOT NULL,
    rev_from      BIGINT NOT NULL,
    rev_to        BIGINT,
    name          TEXT NOT NULL,
    ip            TEXT NOT NULL,
    device_type   TEXT NOT NULL,
    driver        TEXT NOT NULL,
    building      TEXT,
    floor         TEXT,
    room          TEXT,
    driver_config JSONB,
    expectations  JSONB,
    PRIMARY KEY (site_id, device_id, rev_from)
);

CREATE INDEX IF NOT EXISTS device_history_from ON device_history (site_id, rev_from);
CREATE INDEX IF NOT EXISTS device_history_to ON device_history (site_id, rev_to);
CREATE INDEX IF NOT EXISTS device_history_open ON device_history (device_id) WHERE rev_to IS NULL;

-- One version for each transaction that changed a site's configuration; its
-- revision is the one at the end of the transaction.
CREATE TABLE IF NOT EXISTS config_versions (
    site_id  BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    -- Transaction and time together: a restored dump starts with low numbers.
    tx       BIGINT NOT NULL,
    at       TIMESTAMPTZ NOT NULL,
    author   TEXT NOT NULL,
    -- web, api, import, rollback; sql where somebody edited by hand;
    -- migration for what was there before there was a history.
    origin   TEXT NOT NULL,
    ip       TEXT,
    -- NULL until somebody needs it.
    hash     TEXT,
    -- The site was deleted: there is no configuration.
    deleted  BOOLEAN NOT NULL DEFAULT false,
    PRIMARY KEY (site_id, revision),
    CONSTRAINT config_versions_once_per_transaction UNIQUE (site_id, tx, at)
);

CREATE INDEX IF NOT EXISTS config_versions_hash ON config_versions (site_id, hash);

-- Writes the present transaction's version of these sites down.
CREATE OR REPLACE FUNCTION av_note_versions(site_ids BIGINT[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO config_versions (site_id, revision, tx, at, author, origin, ip)
    SELECT s.id, s.config_revision, pg_current_xact_id()::text::bigint, now(),
           coalesce(nullif(current_setting('av.actor', true), ''), session_user),
           coalesce(nullif(current_setting('av.origin', true), ''), 'sql'),
           nullif(current_setting('av.ip', true), '')
      FROM sites s WHERE s.id = ANY (site_ids)
        ON CONFLICT (site_id, tx, at) DO UPDATE SET revision = EXCLUDED.revision;
END $$;

-- Ends everything that is true of these sites' devices.
CREATE OR REPLACE FUNCTION av_end_devices(site_ids BIGINT[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE device_history h SET rev_to = s.config_revision
      FROM sites s
     WHERE s.id = h.site_id AND s.id = ANY (site_ids) AND h.rev_to IS NULL;
END $$;

-- A site that is made anew under an old id goes on counting.
CREATE OR REPLACE FUNCTION av_site_continues() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.config_revision := greatest(
        NEW.config_revision,
        (SELECT max(revision) + 1 FROM config_versions WHERE site_id = NEW.id));
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION av_sites_inserted_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO site_history (site_id, rev_from, name, timezone, doubt_after_days,
                              ok_interval_s, ko_interval_s)
    SELECT s.id, s.config_revision, s.name, s.timezone, s.doubt_after_days,
           s.ok_interval_s, s.ko_interval_s
      FROM new_rows n JOIN sites s ON s.id = n.id
        ON CONFLICT DO NOTHING;
    PERFORM av_note_versions(ARRAY(SELECT id FROM new_rows));
    RETURN NULL;
END $$;

-- Most updates of sites only count: a token, a hash, a revision.
CREATE OR REPLACE FUNCTION av_sites_updated_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed BIGINT[] := ARRAY(
        SELECT n.id
          FROM new_rows n JOIN old_rows o ON o.id = n.id
         WHERE (n.name, n.timezone, n.doubt_after_days, n.ok_interval_s, n.ko_interval_s)
               IS DISTINCT FROM
               (o.name, o.timezone, o.doubt_after_days, o.ok_interval_s, o.ko_interval_s));
BEGIN
    IF EXISTS (SELECT 1 FROM new_rows n WHERE n.id NOT IN (SELECT id FROM old_rows)) THEN
        RAISE EXCEPTION 'the id of a site cannot change';
    END IF;
    IF cardinality(changed) = 0 THEN
        RETURN NULL;
    END IF;
    UPDATE site_history h SET rev_to = s.config_revision
      FROM sites s
     WHERE s.id = h.site_id AND s.id = ANY (changed) AND h.rev_to IS NULL
       AND h.rev_from < s.config_revision;
    INSERT INTO site_history (site_id, rev_from, name, timezone, doubt_after_days,
                              ok_interval_s, ko_interval_s)
    SELECT id, config_revision, name, timezone, doubt_after_days, ok_interval_s, ko_interval_s
      FROM sites WHERE id = ANY (changed)
        ON CONFLICT (site_id, rev_from) DO UPDATE
       SET rev_to = NULL, name = EXCLUDED.name, timezone = EXCLUDED.timezone,
           doubt_after_days = EXCLUDED.doubt_after_days,
           ok_interval_s = EXCLUDED.ok_interval_s, ko_interval_s = EXCLUDED.ko_interval_s;
    PERFORM av_note_versions(changed);
    RETURN NULL;
END $$;

-- The site is gone, and its devices with it: all that was true of it ends
-- with the version in which it does not exist.
CREATE OR REPLACE FUNCTION av_sites_deleted_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE site_history h SET rev_to = o.config_revision + 1
      FROM old_rows o WHERE h.site_id = o.id AND h.rev_to IS NULL;
    UPDATE device_history h SET rev_to = o.config_revision + 1
      FROM old_rows o WHERE h.site_id = o.id AND h.rev_to IS NULL;
    INSERT INTO config_versions (site_id, revision, tx, at, author, origin, ip, deleted)
    SELECT o.id, o.config_revision + 1, pg_current_xact_id()::text::bigint, now(),
           coalesce(nullif(current_setting('av.actor', true), ''), session_user),
           coalesce(nullif(current_setting('av.origin', true), ''), 'sql'),
           nullif(current_setting('av.ip', true), ''), true
      FROM old_rows o
        ON CONFLICT (site_id, tx, at) DO UPDATE
       SET revision = EXCLUDED.revision, deleted = true;
    RETURN NULL;
END $$;

-- TRUNCATE has no transition tables: what is still said to be true ends.
CREATE OR REPLACE FUNCTION av_sites_truncated_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ended RECORD;
BEGIN
    FOR ended IN
        SELECT h.site_id, (SELECT max(v.revision) + 1 FROM config_versions v
                            WHERE v.site_id = h.site_id) AS revision
          FROM site_history h
         WHERE h.rev_to IS NULL AND NOT EXISTS (SELECT 1 FROM sites s WHERE s.id = h.site_id)
    LOOP
        UPDATE site_history SET rev_to = ended.revision
         WHERE site_id = ended.site_id AND rev_to IS NULL;
        UPDATE device_history SET rev_to = ended.revision
         WHERE site_id = ended.site_id AND rev_to IS NULL;
        INSERT INTO config_versions (site_id, revision, tx, at, author, origin, deleted)
        VALUES (ended.site_id, ended.revision, pg_current_xact_id()::text::bigint, now(),
                session_user, 'sql', true)
            ON CONFLICT (site_id, tx, at) DO UPDATE
           SET revision = EXCLUDED.revision, deleted = true;
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION av_devices_inserted_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO device_history (site_id, device_id, rev_from, name, ip, device_type, driver,
                                building, floor, room, driver_config, expectations)
    SELECT n.site_id, n.id, s.config_revision, n.name, n.ip, n.device_type, n.driver,
           n.building, n.floor, n.room, n.driver_config, n.expectations
      FROM new_rows n JOIN sites s ON s.id = n.site_id
        ON CONFLICT (site_id, device_id, rev_from) DO UPDATE
       SET rev_to = NULL, name = EXCLUDED.name, ip = EXCLUDED.ip,
           device_type = EXCLUDED.device_type, driver = EXCLUDED.driver,
           building = EXCLUDED.building, floor = EXCLUDED.floor, room = EXCLUDED.room,
           driver_config = EXCLUDED.driver_config, expectations = EXCLUDED.expectations;
    PERFORM av_note_versions(ARRAY(SELECT DISTINCT site_id FROM new_rows));
    RETURN NULL;
END $$;

-- JSON is compared as text: JSONB finds 1 and 1.0 equal, the hash does not.
CREATE OR REPLACE FUNCTION av_devices_updated_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ended BIGINT[] := ARRAY(
        SELECT o.id
          FROM old_rows o LEFT JOIN new_rows n ON n.id = o.id
         WHERE n.id IS NULL
            OR (n.site_id, n.name, n.ip, n.device_type, n.driver, n.building, n.floor, n.room,
                n.driver_config::text, n.expectations::text)
               IS DISTINCT FROM
               (o.site_id, o.name, o.ip, o.device_type, o.driver, o.building, o.floor, o.room,
                o.driver_config::text, o.expectations::text));
    begun BIGINT[] := ARRAY(
        SELECT n.id
          FROM new_rows n LEFT JOIN old_rows o ON o.id = n.id
         WHERE o.id IS NULL OR n.id = ANY (ended));
BEGIN
    IF cardinality(ended) = 0 THEN
        RETURN NULL;
    END IF;
    UPDATE device_history h SET rev_to = s.config_revision
      FROM sites s
     WHERE s.id = h.site_id AND h.device_id = ANY (ended) AND h.rev_to IS NULL;
    INSERT INTO device_history (site_id, device_id, rev_from, name, ip, device_type, driver,
                                building, floor, room, driver_config, expectations)
    SELECT n.site_id, n.id, s.config_revision, n.name, n.ip, n.device_type, n.driver,
           n.building, n.floor, n.room, n.driver_config, n.expectations
      FROM new_rows n JOIN sites s ON s.id = n.site_id
     WHERE n.id = ANY (begun)
        ON CONFLICT (site_id, device_id, rev_from) DO UPDATE
       SET rev_to = NULL, name = EXCLUDED.name, ip = EXCLUDED.ip,
           device_type = EXCLUDED.device_type, driver = EXCLUDED.driver,
           building = EXCLUDED.building, floor = EXCLUDED.floor, room = EXCLUDED.room,
           driver_config = EXCLUDED.driver_config, expectations = EXCLUDED.expectations;
    PERFORM av_note_versions(ARRAY(
        SELECT site_id FROM old_rows WHERE id = ANY (ended)
         UNION
        SELECT site_id FROM new_rows WHERE id = ANY (begun)));
    RETURN NULL;
END $$;

-- Where the site goes with them, its own trigger ends them.
CREATE OR REPLACE FUNCTION av_devices_deleted_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE device_history h SET rev_to = s.config_revision
      FROM old_rows o JOIN sites s ON s.id = o.site_id
     WHERE h.site_id = o.site_id AND h.device_id = o.id AND h.rev_to IS NULL;
    PERFORM av_note_versions(ARRAY(SELECT DISTINCT site_id FROM old_rows));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION av_devices_truncated_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    site_ids BIGINT[] := ARRAY(
        SELECT DISTINCT h.site_id FROM device_history h JOIN sites s ON s.id = h.site_id
         WHERE h.rev_to IS NULL);
BEGIN
    PERFORM av_end_devices(site_ids);
    PERFORM av_note_versions(site_ids);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER sites_3_continues BEFORE INSERT ON sites
    FOR EACH ROW EXECUTE FUNCTION av_site_continues();
CREATE OR REPLACE TRIGGER sites_history_inserted AFTER INSERT ON sites
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION av_sites_inserted_history();
CREATE OR REPLACE TRIGGER sites_history_updated AFTER UPDATE ON sites
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION av_sites_updated_history();
CREATE OR REPLACE TRIGGER sites_history_deleted AFTER DELETE ON sites
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION av_sites_deleted_history();
CREATE OR REPLACE TRIGGER sites_history_truncated AFTER TRUNCATE ON sites
    FOR EACH STATEMENT EXECUTE FUNCTION av_sites_truncated_history();

-- Named to come after devices_inserted and its like, which raise the revision.
CREATE OR REPLACE TRIGGER devices_z_history_inserted AFTER INSERT ON devices
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION av_devices_inserted_history();
CREATE OR REPLACE TRIGGER devices_z_history_updated AFTER UPDATE ON devices
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION av_devices_updated_history();
CREATE OR REPLACE TRIGGER devices_z_history_deleted AFTER DELETE ON devices
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION av_devices_deleted_history();
CREATE OR REPLACE TRIGGER devices_z_history_truncated AFTER TRUNCATE ON devices
    FOR EACH STATEMENT EXECUTE FUNCTION av_devices_truncated_history();

-- What is there already is each site's first version. Nobody may change it
-- between the look and the note.
DO $$
BEGIN
    LOCK TABLE sites, devices IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO config_versions (site_id, revision, tx, at, author, origin)
    SELECT s.id, s.config_revision, pg_current_xact_id()::text::bigint, now(), session_user,
           'migration'
      FROM sites s
     WHERE NOT EXISTS (SELECT 1 FROM site_history h WHERE h.site_id = s.id AND h.rev_to IS NULL)
        ON CONFLICT DO NOTHING;
    INSERT INTO device_history (site_id, device_id, rev_from, name, ip, device_type, driver,
                                building, floor, room, driver_config, expectations)
    SELECT d.site_id, d.id, s.config_revision, d.name, d.ip, d.device_type, d.driver,
           d.building, d.floor, d.room, d.driver_config, d.expectations
      FROM devices d JOIN sites s ON s.id = d.site_id
     WHERE NOT EXISTS (SELECT 1 FROM site_history h WHERE h.site_id = s.id AND h.rev_to IS NULL)
        ON CONFLICT DO NOTHING;
    INSERT INTO site_history (site_id, rev_from, name, timezone, doubt_after_days,
                              ok_interval_s, ko_interval_s)
    SELECT s.id, s.config_revision, s.name, s.timezone, s.doubt_after_days, s.ok_interval_s,
           s.ko_interval_s
      FROM sites s
     WHERE NOT EXISTS (SELECT 1 FROM site_history h WHERE h.site_id = s.id AND h.rev_to IS NULL)
        ON CONFLICT DO NOTHING;
END $$;

-- ---------------------------------------------------- renewal of tokens

-- Tokens that open a site beside `sites.token`: the ones that were renewed,
-- until their grace is over, and the ones that agents fetched for themselves.
CREATE TABLE IF NOT EXISTS site_tokens (
    digest      TEXT PRIMARY KEY,
    site_id     BIGINT NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
    created_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- NULL: until the next renewal.
    valid_until TIMESTAMPTZ,
    -- It was renewed: whoever still comes with it is asked to fetch a new one.
    renewed     BOOLEAN NOT NULL DEFAULT false,
    -- The token with which an agent fetched this one: it ends when this one
    -- is first used, because then the agent has it safe.
    parent      TEXT,
    used_at     TIMESTAMPTZ,
    CONSTRAINT site_tokens_are_digests CHECK (digest ~ '^sha256:[0-9a-f]{64}$')
);

CREATE INDEX IF NOT EXISTS site_tokens_site ON site_tokens (site_id);

-- The site that this token, given as its digest, opens now.
CREATE OR REPLACE FUNCTION av_site_of_token(wanted TEXT) RETURNS BIGINT
LANGUAGE sql STABLE AS $$
    SELECT id FROM (
        SELECT id, 1 AS place FROM sites WHERE token = wanted
         UNION ALL
        SELECT site_id, 2 FROM site_tokens
         WHERE digest = wanted AND (valid_until IS NULL OR valid_until > now())
    ) found ORDER BY place LIMIT 1
$$;

-- Gives a site another token. The ones so far live on for the grace.
CREATE OR REPLACE FUNCTION av_renew_token(renewed_site BIGINT, new_digest TEXT, grace INTERVAL)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM sites WHERE id = renewed_site FOR NO KEY UPDATE;
    UPDATE site_tokens
       SET renewed = true, valid_until = least(valid_until, now() + grace)
     WHERE site_id = renewed_site;
    INSERT INTO site_tokens (digest, site_id, valid_until, renewed)
    SELECT token, id, now() + grace, true FROM sites WHERE id = renewed_site
        ON CONFLICT (digest) DO UPDATE
       SET site_id = EXCLUDED.site_id, valid_until = EXCLUDED.valid_until, renewed = true;
    DELETE FROM site_tokens WHERE site_id = renewed_site AND valid_until <= now();
    PERFORM set_config('av.renewed_site', renewed_site::text, true);
    UPDATE sites SET token = new_digest WHERE id = renewed_site;
    PERFORM set_config('av.renewed_site', '', true);
END $$;

-- A token that is changed by hand ends every other at once, as it always did.
CREATE OR REPLACE FUNCTION av_token_set_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('av.renewed_site', true) IS DISTINCT FROM NEW.id::text THEN
        DELETE FROM site_tokens WHERE site_id = NEW.id;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER sites_token_set AFTER UPDATE OF token ON sites
    FOR EACH ROW WHEN (OLD.token IS DISTINCT FROM NEW.token)
    EXECUTE FUNCTION av_token_set_by_hand();

DO $$ BEGIN PERFORM pg_advisory_unlock(7209411230417735); END $$;
