//! Whether a database has tables of another program where the migrations would
//! put theirs.
//!
//! `CREATE TABLE IF NOT EXISTS` passes over a table of the same name in silence,
//! and the statements after it fail, or work on another program's rows. So it is
//! looked first, at what the pending migrations make: each of these names is
//! free, or it is of that kind and has those columns, as after `psql -f`.
//!
//! The same reading of the migrations tells what of them is not there any more:
//! no migration makes again what somebody dropped.

use postgres::Client;

use super::StoreError;
use super::migrate::Migration;

/// The tables by which the Python system is known.
const PYTHON: [&str; 4] = ["device_alerts", "device_events", "devices", "sites"];
/// How many names a message has.
const NAMED: usize = 8;

/// A relation that a migration makes.
#[derive(Debug, PartialEq, Eq)]
struct Made<'a> {
    name: &'a str,
    kind: Kind<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// With at least these columns.
    Table(Vec<&'a str>),
    Partition,
    View,
    /// Of this table.
    Index(&'a str),
}

/// A relation or a type that is there.
struct There {
    name: String,
    /// `pg_class.relkind`; `T` for a type that is no relation's.
    kind: String,
    is_partition: bool,
    columns: Vec<String>,
    /// The table, for an index.
    of: Option<String>,
}

/// Refuses a database in which something of another program is in the way
/// of these migrations. Only the schema in which they would work is looked at.
///
/// # Errors
/// [`StoreError::Foreign`], or what the database says.
pub(super) fn refuse(client: &mut Client, pending: &[&Migration]) -> Result<(), StoreError> {
    let made: Vec<Made<'_>> = pending
        .iter()
        .flat_map(|migration| made_by(migration.sql))
        .chain([Made {
            name: "schema_migrations",
            kind: Kind::Table(vec!["version", "name", "applied_at"]),
        }])
        .collect();
    let names: Vec<&str> = made.iter().map(|made| made.name).chain(PYTHON).collect();
    let there = look(client, &names)?;
    let mut foreign: Vec<String> = there
        .iter()
        .filter(|found| {
            let mut same_name = made.iter().filter(|made| made.name == found.name);
            same_name.any(|made| !made.fits(found))
        })
        .map(There::said)
        .collect();
    foreign.sort();
    foreign.dedup();
    if foreign.is_empty() {
        return Ok(());
    }
    let is_python = PYTHON
        .iter()
        .all(|name| there.iter().any(|found| found.name == *name))
        && foreign.iter().any(|name| name == "sites");
    Err(StoreError::Foreign {
        names: listed(&foreign),
        is_python,
    })
}

/// Names for a message: the first of them, and how many more there are.
fn listed(names: &[String]) -> String {
    let mut said = names[..names.len().min(NAMED)].join(", ");
    let more = names.len().saturating_sub(NAMED);
    if more > 0 {
        said.push_str(&format!(" and {more} more"));
    }
    said
}

/// What of the applied migrations is not there, for a person: tables, views,
/// functions, and columns of the tables that are there; `None` where it all is.
/// Partitions come and go,
/// and a missing index makes nothing fail.
///
/// # Errors
/// What the database says.
pub(super) fn missing(
    client: &mut Client,
    applied: &[Migration],
) -> Result<Option<String>, postgres::Error> {
    let made: Vec<Made<'_>> = applied
        .iter()
        .flat_map(|migration| made_by(migration.sql))
        .filter(|made| matches!(made.kind, Kind::Table(_) | Kind::View))
        .collect();
    let names: Vec<&str> = made.iter().map(|made| made.name).collect();
    let there = look(client, &names)?;
    let added: Vec<(&str, &str)> = applied
        .iter()
        .flat_map(|migration| added_by(migration.sql))
        .collect();
    let mut missing = Vec::new();
    for one in &made {
        match (there.iter().find(|found| one.is(found)), &one.kind) {
            (Some(found), Kind::Table(columns)) => {
                let of_table = added.iter().filter(|(table, _)| *table == one.name);
                let columns = columns.iter().chain(of_table.map(|(_, column)| column));
                missing.extend(
                    columns
                        .filter(|column| !found.has(column))
                        .map(|column| format!("column {}.{column}", one.name)),
                );
            }
            (Some(_), _) => {}
            (None, Kind::View) => missing.push(format!("view {}", one.name)),
            (None, _) => missing.push(format!("table {}", one.name)),
        }
    }
    let functions: Vec<&str> = applied
        .iter()
        .flat_map(|migration| functions_of(migration.sql))
        .collect();
    let rows = client.query(
        "SELECT DISTINCT f FROM unnest($1::text[]) f
          WHERE NOT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                             WHERE n.nspname = current_schema() AND p.proname::text = f)
          ORDER BY f",
        &[&functions],
    )?;
    missing.extend(
        rows.iter()
            .map(|row| format!("function {}", row.get::<_, &str>(0))),
    );
    Ok((!missing.is_empty()).then(|| listed(&missing)))
}

/// Whether the migrations have a table of their own to be noted in.
///
/// # Errors
/// What the database says.
pub(super) fn is_noted(client: &mut Client) -> Result<bool, postgres::Error> {
    let row = client.query_one(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                         WHERE n.nspname = current_schema() AND c.relname = 'schema_migrations')",
        &[],
    )?;
    Ok(row.get(0))
}

fn look(client: &mut Client, names: &[&str]) -> Result<Vec<There>, postgres::Error> {
    let rows = client.query(
        "SELECT c.relname::text, c.relkind::text, c.relispartition,
                ARRAY(SELECT a.attname::text FROM pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
                (SELECT t.relname::text FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
                  WHERE i.indexrelid = c.oid)
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = current_schema() AND c.relname::text = ANY ($1)
          UNION ALL
         SELECT t.typname::text, 'T', false, ARRAY[]::text[], NULL
           FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
          WHERE n.nspname = current_schema() AND t.typname::text = ANY ($1) AND t.typrelid = 0",
        &[&names],
    )?;
    Ok(rows
        .iter()
        .map(|row| There {
            name: row.get(0),
            kind: row.get(1),
            is_partition: row.get(2),
            columns: row.get(3),
            of: row.get(4),
        })
        .collect())
}

impl There {
    /// Its name, and what it is where that is no table.
    fn said(&self) -> String {
        let kind = match self.kind.as_str() {
            "v" | "m" => "view ",
            "i" | "I" => "index ",
            "S" => "sequence ",
            "T" | "c" => "type ",
            _ => "",
        };
        format!("{kind}{}", self.name)
    }

    fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|there| there == column)
    }
}

impl Made<'_> {
    /// Whether this is it, whatever its columns.
    fn is(&self, found: &There) -> bool {
        let kinds: &[&str] = match self.kind {
            Kind::Table(_) => &["r", "p"],
            Kind::Partition => &["r"],
            Kind::View => &["v"],
            Kind::Index(_) => &["i", "I"],
        };
        self.name == found.name && kinds.contains(&found.kind.as_str())
    }

    fn fits(&self, found: &There) -> bool {
        match &self.kind {
            Kind::Table(columns) => {
                self.is(found) && columns.iter().all(|column| found.has(column))
            }
            Kind::Partition => self.is(found) && found.is_partition,
            Kind::View => self.is(found),
            Kind::Index(of) => self.is(found) && found.of.as_deref() == Some(*of),
        }
    }
}

/// What a migration makes, by the statements that begin a line of its text:
/// those of functions are indented.
fn made_by(sql: &str) -> Vec<Made<'_>> {
    let mut made = Vec::new();
    let mut lines = sql.lines().peekable();
    while let Some(line) = lines.next() {
        let after = |start: &str| line.strip_prefix(start).and_then(first_word);
        if let Some(name) = after("CREATE TABLE IF NOT EXISTS ") {
            let kind = if line.contains(" PARTITION OF ") {
                Kind::Partition
            } else {
                let mut columns = Vec::new();
                while let Some(inside) = lines.next_if(|line| !line.starts_with(')')) {
                    columns.extend(column(inside));
                }
                Kind::Table(columns)
            };
            made.push(Made { name, kind });
        } else if let Some(name) = after("CREATE OR REPLACE VIEW ") {
            let kind = Kind::View;
            made.push(Made { name, kind });
        } else if let Some(name) = after("CREATE INDEX IF NOT EXISTS ")
            .or_else(|| after("CREATE UNIQUE INDEX IF NOT EXISTS "))
        {
            let of = on_table(line).or_else(|| on_table(lines.peek()?));
            if let Some(of) = of {
                let kind = Kind::Index(of);
                made.push(Made { name, kind });
            }
        }
    }
    made
}

/// The columns that a migration adds to tables that were there, each with its
/// table.
fn added_by(sql: &str) -> Vec<(&str, &str)> {
    let mut table = None;
    let mut added = Vec::new();
    for line in sql.lines() {
        if let Some(after) = line.strip_prefix("ALTER TABLE ") {
            table = first_word(after);
        } else if !line.starts_with("    ") {
            table = None;
        }
        let column = line
            .split_once("ADD COLUMN IF NOT EXISTS ")
            .and_then(|(_, after)| first_word(after));
        added.extend(table.zip(column));
    }
    added
}

/// The functions that a migration makes.
fn functions_of(sql: &str) -> impl Iterator<Item = &str> {
    sql.lines()
        .filter_map(|line| line.strip_prefix("CREATE OR REPLACE FUNCTION "))
        .filter_map(first_word)
}

/// The column that a line inside a `CREATE TABLE` begins; constraints are in
/// capitals, and what goes on from the line before is indented further.
fn column(line: &str) -> Option<&str> {
    let word = first_word(line.strip_prefix("    ")?)?;
    word.starts_with(|c: char| c.is_ascii_lowercase())
        .then_some(word)
}

fn on_table(line: &str) -> Option<&str> {
    let (_, after) = line
        .split_once("ON ")
        .filter(|(before, _)| before.is_empty() || before.ends_with(' '))?;
    first_word(after)
}

/// The name with which a text begins, if it does.
fn first_word(text: &str) -> Option<&str> {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrate::MIGRATIONS;

    #[test]
    fn what_a_text_makes() {
        let sql = "-- CREATE TABLE IF NOT EXISTS a (
CREATE TABLE IF NOT EXISTS sites (
    id BIGINT PRIMARY KEY,
    -- A token.
    token             TEXT NOT NULL,
    state TEXT
          CHECK (state <> ''),
    CONSTRAINT sites_token_key UNIQUE (token),
    UNIQUE (id, token)
) PARTITION BY RANGE (id);
CREATE TABLE IF NOT EXISTS sites_default PARTITION OF sites DEFAULT;
CREATE OR REPLACE VIEW site_current AS
CREATE UNIQUE INDEX IF NOT EXISTS sites_one
    ON sites (token) WHERE state = '';
CREATE INDEX IF NOT EXISTS sites_state ON sites (lower(state));
    CREATE TABLE IF NOT EXISTS in_a_function (
";
        let made = |name, kind| Made { name, kind };
        assert_eq!(
            made_by(sql),
            [
                made("sites", Kind::Table(vec!["id", "token", "state"])),
                made("sites_default", Kind::Partition),
                made("site_current", Kind::View),
                made("sites_one", Kind::Index("sites")),
                made("sites_state", Kind::Index("sites")),
            ]
        );
    }

    #[test]
    fn every_statement_of_the_migrations_is_read() {
        for migration in MIGRATIONS {
            let count = |text| migration.sql.matches(text).count();
            assert_eq!(
                added_by(migration.sql).len(),
                count("ADD COLUMN "),
                "{}: {:?}",
                migration.name,
                added_by(migration.sql)
            );
            assert_eq!(
                functions_of(migration.sql).count(),
                count("CREATE OR REPLACE FUNCTION "),
                "{}",
                migration.name
            );
            let statements = migration
                .sql
                .lines()
                .filter(|line| {
                    line.starts_with("CREATE ")
                        && !line.contains(" FUNCTION ")
                        && !line.contains(" TRIGGER ")
                })
                .count();
            let made = made_by(migration.sql);
            assert_eq!(made.len(), statements, "{}: {made:?}", migration.name);
            for one in &made {
                if let Kind::Table(columns) = &one.kind {
                    assert!(columns.len() >= 2, "{one:?}");
                }
            }
        }
    }
}
