//! What a backup is held against: how many rows each table has, and each
//! site's configuration. And whether a database is empty.

use postgres::{Client, Row, Transaction};

use super::config::{SNAPSHOT, SiteSnapshot, snapshot_of};
use super::connector::Purpose;
use super::{Connector, StoreError};

/// A connection for a backup or a restore.
pub struct Session {
    client: Client,
}

/// One unchanging view of the database, which other connections may share.
pub struct View<'a> {
    transaction: Transaction<'a>,
}

/// How many rows a table has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TableRows {
    /// The table's name, in the schema `public`.
    pub table: String,
    /// Its rows.
    pub rows: i64,
}

/// What stands in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupied {
    /// Tables, views, sequences, routines and types of somebody's own.
    pub objects: i64,
    /// Connections of other `av-backend` programs.
    pub backends: i64,
}

impl Session {
    /// Opens it. Nothing is migrated.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(connector: &Connector) -> Result<Self, StoreError> {
        let mut client = connector.connect(Purpose::Migrate)?.client;
        // Another program works meanwhile.
        client.batch_execute(
            "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0",
        )?;
        Ok(Self { client })
    }

    /// Begins a view of the database as it is now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn view(&mut self) -> Result<View<'_>, StoreError> {
        let transaction = self
            .client
            .build_transaction()
            .isolation_level(postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()?;
        Ok(View { transaction })
    }

    /// What stands in the database beside PostgreSQL's own and that of
    /// extensions, and who else uses it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn occupied(&mut self) -> Result<Occupied, StoreError> {
        let row = self.client.query_one(
            "WITH spaces AS (
                 SELECT oid FROM pg_namespace
                  WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
             ), own AS (
                 SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM spaces)
                 UNION ALL SELECT oid FROM pg_proc WHERE pronamespace IN (SELECT oid FROM spaces)
                 UNION ALL SELECT oid FROM pg_type WHERE typnamespace IN (SELECT oid FROM spaces)
             )
             SELECT (SELECT count(*) FROM own
                      WHERE NOT EXISTS (SELECT FROM pg_depend d
                                         WHERE d.objid = own.oid AND d.deptype = 'e')),
                    (SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()
                        AND application_name LIKE 'av-backend%')",
            &[],
        )?;
        Ok(Occupied {
            objects: row.get(0),
            backends: row.get(1),
        })
    }

    /// The SQL that removes everything of the schema `public`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn emptying(&mut self) -> Result<String, StoreError> {
        let rows = self.client.query(
            "SELECT format('DROP %s IF EXISTS %s CASCADE;',
                           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                                          WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                           c.oid::regclass)
               FROM pg_class c
              WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r','p','v','m','S')
                -- Not what an extension has, nor a sequence that goes with its
                -- column, nor a partition that goes with its table.
                AND NOT EXISTS (SELECT FROM pg_depend d
                                 WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass
                                   AND (d.deptype = 'e'
                                        OR d.deptype IN ('i', 'a') AND c.relkind = 'S'))
                AND NOT c.relispartition
             UNION ALL
             SELECT format('DROP ROUTINE IF EXISTS %s CASCADE;', p.oid::regprocedure)
               FROM pg_proc p
              WHERE p.pronamespace = 'public'::regnamespace
                AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
             UNION ALL
             SELECT format('DROP TYPE IF EXISTS %s CASCADE;', t.oid::regtype)
               FROM pg_type t
              WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('e', 'd', 'r')
                AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')",
            &[],
        )?;
        Ok(rows
            .iter()
            .map(|row| row.get::<_, String>(0) + "\n")
            .collect())
    }
}

impl View<'_> {
    /// A name under which `pg_dump` sees the same.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn export(&mut self) -> Result<String, StoreError> {
        let row = self
            .transaction
            .query_one("SELECT pg_export_snapshot()", &[])?;
        Ok(row.get(0))
    }

    /// The newest migration that was applied; `None` where there is no schema
    /// of ours.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn schema_version(&mut self) -> Result<Option<i32>, StoreError> {
        let there: bool = self
            .transaction
            .query_one(
                "SELECT to_regclass('public.schema_migrations') IS NOT NULL",
                &[],
            )?
            .get(0);
        if !there {
            return Ok(None);
        }
        let row = self.transaction.query_one(
            "SELECT max(version)::int FROM public.schema_migrations",
            &[],
        )?;
        Ok(row.get(0))
    }

    /// The server's version, as it says it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn server_version(&mut self) -> Result<String, StoreError> {
        let row = self
            .transaction
            .query_one("SELECT current_setting('server_version')", &[])?;
        Ok(row.get(0))
    }

    /// How many rows each table has, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tables(&mut self) -> Result<Vec<TableRows>, StoreError> {
        let tables = self.transaction.query(
            "SELECT relname, format('SELECT count(*) FROM public.%I', relname) FROM pg_class
              WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
              ORDER BY relname COLLATE \"C\"",
            &[],
        )?;
        let mut found = Vec::with_capacity(tables.len());
        for row in &tables {
            let count: String = row.get(1);
            found.push(TableRows {
                table: row.get(0),
                rows: self.transaction.query_one(&count, &[])?.get(0),
            });
        }
        Ok(found)
    }

    /// Looks at the configuration of each site in turn, in the order of their
    /// names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn each_site(&mut self, mut look: impl FnMut(&SiteSnapshot)) -> Result<(), StoreError> {
        let ids = self.transaction.query(
            "SELECT id FROM public.sites ORDER BY name COLLATE \"C\"",
            &[],
        )?;
        let statement = self.transaction.prepare(&format!(
            "{SNAPSHOT} WHERE s.id = $1 ORDER BY d.ip COLLATE \"C\""
        ))?;
        for id in ids.iter().map(|row| row.get::<_, i64>(0)) {
            let rows: Vec<Row> = self.transaction.query(&statement, &[&id])?;
            if let Some(snapshot) = snapshot_of(&rows) {
                look(&snapshot);
            }
        }
        Ok(())
    }
}
