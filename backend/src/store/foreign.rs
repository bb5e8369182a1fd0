//! Whether a database has tables of another program where the migrations would
//! put theirs.
//!
//! `CREATE TABLE IF NOT EXISTS` passes over a table of the same name in silence,
//! and the statements after it fail, or work on another program's rows. So it is
//! looked first, at what the pending migrations make: each of these names is
//! free, or it is of that kind and has those columns, as after `psql -f`.

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
    let more = foreign.len().saturating_sub(NAMED);
    let mut said = foreign
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        said.push_str(&format!(" and {more} more"));
    }
    Err(StoreError::Foreign {
        names: said,
        is_python,
    })
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
}

impl Made<'_> {
    fn fits(&self, found: &There) -> bool {
        let has = |column: &&str| found.columns.iter().any(|there| there == column);
        match &self.kind {
            Kind::Table(columns) => {
                matches!(found.kind.as_str(), "r" | "p") && columns.iter().all(has)
            }
            Kind::Partition => found.kind == "r" && found.is_partition,
            Kind::View => found.kind == "v",
            Kind::Index(of) => {
                matches!(found.kind.as_str(), "i" | "I") && found.of.as_deref() == Some(*of)
            }
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
