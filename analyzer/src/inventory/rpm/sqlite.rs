//! rpm's database in SQLite form, `rpmdb.sqlite`: bytes in, header blobs out.
//!
//! Source: rpm, `lib/backend/sqlite.c`: table `Packages (hnum INTEGER PRIMARY KEY, blob BLOB)`. The bytes are opened in memory, so
//! SQLite touches no file. A schema is code, and this one is hostile until shown otherwise: it is not trusted, cannot be written,
//! `Packages` must be a plain table, and work and sizes are limited. A write-ahead log beside the file is not applied.

use std::io::{self, Cursor, Read};

use rusqlite::{Connection, MAIN_DB, OptionalExtension as _, config::DbConfig, limits::Limit};

/// Gives each blob of the database, `size` bytes long, to `take`, in the order of installation.
///
/// # Errors
/// [`SqliteError`]; the blobs before it were given.
pub fn parse_sqlite(mut file: impl Read, size: usize, take: &mut dyn FnMut(&[u8])) -> Result<(), SqliteError> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    // "File format versions": 2 asks for a write-ahead log, which a database in memory cannot have.
    for version in header.get_mut(18..20).into_iter().flatten() {
        *version = 1;
    }
    let mut database = Connection::open_in_memory()?;
    database.deserialize_read_exact(MAIN_DB, Cursor::new(header).chain(file), size, true)?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    database.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_BLOB_BYTES)?;
    database.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    let mut steps = 0_u32;
    database.progress_handler(
        STEP_INSTRUCTIONS,
        Some(move || {
            steps = steps.saturating_add(1);
            steps > MAX_STEPS
        }),
    )?;
    let schema: Option<String> = database
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'Packages' AND type = 'table'", [], |row| row.get(0))
        .optional()?;
    let schema = schema.ok_or(SqliteError::NoPackages)?.to_ascii_uppercase();
    // A computed column or a virtual table would run what the schema says.
    if !schema.starts_with("CREATE TABLE")
        || ["GENERATED", " AS", "\tAS", "\nAS"].iter().any(|word| schema.contains(word))
    {
        return Err(SqliteError::NoPackages);
    }
    let mut query = database.prepare("SELECT blob FROM Packages ORDER BY rowid")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(blob) = row.get_ref(0)?.as_blob() {
            take(blob);
        }
    }
    Ok(())
}

/// A database that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// No plain table `Packages` in it.
    #[error("no table `Packages` as rpm makes it")]
    NoPackages,
    /// SQLite refuses it.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Its bytes cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
}

/// The database header of SQLite's file format.
const HEADER_BYTES: usize = 100;
/// The largest headers, of packages with 100,000 files, are some 10 MiB.
const MAX_BLOB_BYTES: i32 = 64 << 20;
/// Reading a package takes some ten of SQLite's instructions; this allows a hundred million.
const STEP_INSTRUCTIONS: i32 = 100_000;
const MAX_STEPS: u32 = 1_000;

#[cfg(test)]
pub(super) mod fixture {
    use super::*;

    /// A database made by `sql`.
    pub(in crate::inventory) fn database(sql: &str, blobs: &[Vec<u8>]) -> Vec<u8> {
        let database = Connection::open_in_memory().expect("memory");
        database.execute_batch(sql).expect("valid SQL");
        for blob in blobs {
            database.execute("INSERT INTO Packages(blob) VALUES(?1)", [blob]).expect("a table of rpm's form");
        }
        database.serialize(MAIN_DB).expect("memory").to_vec()
    }

    pub(in crate::inventory) const RPM_TABLE: &str =
        "CREATE TABLE IF NOT EXISTS 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
        let mut found = Vec::new();
        parse_sqlite(bytes.as_slice(), bytes.len(), &mut |blob| found.push(blob.to_vec()))
            .map_err(|error| error.to_string())?;
        Ok(found)
    }

    #[test]
    fn rows_are_blobs() {
        let all = [b"first".to_vec(), b"second".to_vec()];
        let mut bytes = fixture::database(fixture::RPM_TABLE, &all);
        assert_eq!(blobs(bytes.clone()).expect("valid"), all);
        bytes.get_mut(18..20).expect("a header").fill(2);
        assert_eq!(blobs(bytes).expect("the log is not asked for"), all);
    }

    #[test]
    fn what_is_not_rpms_table_is_refused() {
        let refused = "no table `Packages` as rpm makes it";
        let view = "CREATE VIEW Packages AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x AS blob FROM c";
        assert_eq!(blobs(fixture::database(view, &[])), Err(refused.to_owned()));
        let computed = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB AS (zeroblob(1000000000)))";
        assert_eq!(blobs(fixture::database(computed, &[])), Err(refused.to_owned()));
        assert_eq!(blobs(fixture::database("CREATE TABLE x(y)", &[])), Err(refused.to_owned()));
    }

    #[test]
    fn spoiled_databases_are_refused() {
        let good = fixture::database(fixture::RPM_TABLE, &[vec![7; 10_000]]);
        assert!(blobs(b"not a database".to_vec()).is_err());
        assert!(blobs(good.get(..good.len() - 4096).expect("longer").to_vec()).is_err());
    }
}
