//! The schema brought up to date.
//!
//! Plain SQL files, applied in order, each in a transaction, under an
//! advisory lock: of two backends that start at once one waits for the other.
//! A database that was first made with `psql -f` is taken over, because each
//! file can be applied again without harm.

use postgres::Client;

use super::connector::Purpose;
use super::error::{describe, schema_is_missing};
use super::foreign;
use super::locks::Lock;
use super::{Condition, Store, StoreError};

/// Where the migrations are noted that were applied.
const NOTES: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version    INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
)";
/// PostgreSQL 14, in the form of `server_version_num`.
const LEAST_SERVER: i32 = 140_000;

/// One file of `migrations/`.
#[derive(Debug)]
pub struct Migration {
    /// The number at the start of its name.
    pub version: i32,
    /// Its name, without `.sql`.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal)*) => {
        /// Every migration, in order.
        pub const MIGRATIONS: &[Migration] = &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../../migrations/", $name, ".sql")),
        }),*];
    };
}

migrations! {
    1 "001_schema"
    2 "002_users"
    3 "003_versions"
    4 "004_alerts"
    5 "005_history"
    6 "006_versions_from"
    7 "007_suggestions"
    8 "008_enrolment"
    9 "009_attempts"
}

impl Store {
    /// Applies the migrations that are missing; answers their names.
    ///
    /// # Errors
    /// When the database is not there, is older than PostgreSQL 14, has tables
    /// of another program or lacks some of its own, or a file fails: then that
    /// file's changes are undone and the ones before it stay.
    pub fn migrate(&self) -> Result<Vec<&'static str>, StoreError> {
        let connection = self.connector.connect(Purpose::Migrate).map_err(|error| {
            self.condition
                .set(Condition::Unreachable(error.to_string()));
            StoreError::from(error)
        })?;
        self.bring_up_to_date(connection.client)
            .inspect_err(|error| {
                self.condition.set(match error {
                    StoreError::Unavailable(why) => Condition::Unreachable(why.clone()),
                    // Another program holds a lock for long.
                    StoreError::Busy(_) => Condition::Migrating(None),
                    StoreError::Refused(why)
                    | StoreError::BadValue(why)
                    | StoreError::Taken(why) => Condition::Blocked(why.clone()),
                    StoreError::Foreign { names, is_python } => Condition::Foreign {
                        names: names.clone(),
                        is_python: *is_python,
                    },
                    StoreError::Incomplete(what) => Condition::Incomplete(what.clone()),
                });
            })
    }

    fn bring_up_to_date(&self, mut client: Client) -> Result<Vec<&'static str>, StoreError> {
        self.condition.migrates(None);
        let server: i32 = client
            .query_one("SELECT current_setting('server_version_num')::int", &[])?
            .get(0);
        if server < LEAST_SERVER {
            return Err(StoreError::Refused(format!(
                "PostgreSQL 14 or newer is needed, this is {}",
                server / 10_000
            )));
        }
        // A session's lock: it ends with the connection, whatever happens.
        Lock::Schema.hold(&mut client)?;
        let known = known(&mut client)?;
        let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
        let newer = known
            .iter()
            .copied()
            .filter(|last| Some(*last) > newest)
            .max();
        if let Some(newer) = newer {
            log::warn!(
                "the schema has version {newer}, which this program does not know: a newer backend made it"
            );
        }
        let pending = pending(&mut client, &known)?;
        let mut applied = Vec::new();
        for migration in pending {
            self.condition.migrates(Some(migration.name));
            apply(&mut client, migration)?;
            applied.push(migration.name);
        }
        // A newer program's schema may do without some of it.
        if newer.is_none() {
            if let Some(missing) = foreign::missing(&mut client, MIGRATIONS)? {
                return Err(StoreError::Incomplete(missing));
            }
        }
        self.condition.set(Condition::Ready { newer });
        Ok(applied)
    }

    /// Looks whether [`Store::migrate`] would find tables of another program, and
    /// changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Foreign`], or that the database is not there.
    pub fn check_migrations(&self) -> Result<(), StoreError> {
        let mut client = self.connector.connect(Purpose::Migrate)?.client;
        let known = known(&mut client)?;
        pending(&mut client, &known).map(|_| ())
    }

    /// Keeps the history's partitions ahead of time and forgets spools that
    /// have not been heard of for a year; answers how many partitions it made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn housekeeping(&self) -> Result<i32, StoreError> {
        self.run(|client| {
            client.execute(
                "DELETE FROM report_cursors WHERE last_received_at < now() - interval '1 year'",
                &[],
            )?;
            Ok(client.query_one("SELECT av_make_partitions()", &[])?.get(0))
        })
    }
}

/// The versions of the migrations that the database has.
fn known(client: &mut Client) -> Result<Vec<i32>, StoreError> {
    if !foreign::is_noted(client)? {
        return Ok(Vec::new());
    }
    // One of another program may have the name: Rails, golang-migrate.
    foreign::refuse(client, &[])?;
    // It may have the columns too, with versions of another type or meaning.
    let rows = client.query(
        "SELECT version::text, name::text FROM schema_migrations",
        &[],
    )?;
    let noted: Option<Vec<i32>> = rows
        .iter()
        .map(|row| {
            let version: i32 = row.get::<_, Option<&str>>(0)?.parse().ok()?;
            let name: Option<&str> = row.get(1);
            let own = MIGRATIONS.iter().find(|own| own.version == version);
            // Of a newer program the name is not known here.
            own.is_none_or(|own| name == Some(own.name))
                .then_some(version)
        })
        .collect();
    noted.ok_or_else(|| StoreError::Foreign {
        names: "schema_migrations".to_owned(),
        is_python: false,
    })
}

/// The migrations that are missing; refuses what is in their way.
fn pending(client: &mut Client, known: &[i32]) -> Result<Vec<&'static Migration>, StoreError> {
    let pending: Vec<&Migration> = MIGRATIONS
        .iter()
        .filter(|migration| !known.contains(&migration.version))
        .collect();
    if !pending.is_empty() {
        foreign::refuse(client, &pending)?;
    }
    Ok(pending)
}

fn apply(client: &mut Client, migration: &Migration) -> Result<(), StoreError> {
    let mut transaction = client.transaction()?;
    // With the first of them: a database that refuses it is left as it was.
    transaction.batch_execute(NOTES)?;
    transaction.batch_execute(migration.sql).map_err(|error| {
        let refused = |why| StoreError::Refused(format!("migration {}: {why}", migration.name));
        // Here that is no database made anew, but one with other tables.
        if schema_is_missing(&error) {
            return refused(describe(&error));
        }
        match StoreError::from(error) {
            StoreError::Refused(why) | StoreError::BadValue(why) => refused(why),
            other => other,
        }
    })?;
    transaction.execute(
        "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)",
        &[&migration.version, &migration.name],
    )?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_embedded_once_and_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".sql").map(str::to_owned))
            .collect();
        files.sort();
        let embedded: Vec<&str> = MIGRATIONS.iter().map(|migration| migration.name).collect();
        assert_eq!(embedded, files);
        for (migration, expected) in MIGRATIONS.iter().zip(1..) {
            assert_eq!(migration.version, expected, "{}", migration.name);
            assert!(
                migration
                    .name
                    .starts_with(&format!("{:03}_", migration.version))
            );
            assert!(
                migration.sql.contains(&(Lock::Schema as i64).to_string()),
                "{} does not take the lock",
                migration.name
            );
        }
    }
}
