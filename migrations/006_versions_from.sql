-- An edit by hand says from where it came, too.
--
-- Like every file here it runs alone with `psql -f`, and again without harm.

-- One at a time, whoever runs it: the same lock as the backend's.
DO $$ BEGIN PERFORM pg_advisory_lock(7209411230417735); END $$;

-- The address of who is connected to the database; none over its local socket.
-- The backend says itself for whom it acts.
CREATE OR REPLACE FUNCTION av_version_from() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.ip := host(inet_client_addr());
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER config_versions_from BEFORE INSERT ON config_versions
    FOR EACH ROW WHEN (NEW.ip IS NULL AND NEW.origin = 'sql')
    EXECUTE FUNCTION av_version_from();

DO $$ BEGIN PERFORM pg_advisory_unlock(7209411230417735); END $$;
