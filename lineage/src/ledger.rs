//! The ledger itself: connections, tables, and a bound on the time of every call.
//!
//! One text of SQL serves both stores, so that there is one schema and one meaning; the macros below compile it once
//! for each. SQLite has one writer in a process, which queues fairly where its own lock would make callers poll.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sqlx::{
    Connection as _, PgConnection, PgPool, Postgres, SqlStr, Sqlite, SqlitePool,
    error::DatabaseError,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    pool::PoolOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::OnceCell;

use crate::{Error, location::Location};

/// What is known of a digest at build, deploy and run. Clones share one set of connections; several processes may share one
/// ledger.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    name: String,
    pools: Pools,
    has_tables: OnceCell<()>,
}

/// Connections to either store.
pub(crate) enum Pools {
    Sqlite { write: SqlitePool, read: SqlitePool },
    Postgres(PgPool),
}

impl Ledger {
    /// A ledger at `sqlite:PATH` or `postgres://…`, which need not answer yet: its tables are made before the first call that
    /// reaches it. A server on another machine is spoken to over TLS unless the URL says otherwise by `sslmode`.
    ///
    /// # Errors
    /// [`Error::Url`]; [`Error::Place`] where the folder or file of an SQLite ledger cannot be made.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn new(url: &str) -> Result<Self, Error> {
        let location = Location::parse(url)?;
        let name = location.name();
        let pools = match location {
            Location::Sqlite(path) => sqlite(&path)?,
            Location::Postgres(options) => Pools::Postgres(postgres(*options)),
        };
        Ok(Self(Arc::new(Inner { name, pools, has_tables: OnceCell::new() })))
    }

    /// The same, once its tables are there. Several replicas may open one ledger at once: one makes the tables, under a lock.
    ///
    /// # Errors
    /// As [`Ledger::new`]; [`Error::Newer`] where a newer version made the tables; [`Error::Migrate`], [`Error::Deadline`].
    pub async fn open(url: &str) -> Result<Self, Error> {
        let ledger = Self::new(url)?;
        ledger.ready().await?;
        Ok(ledger)
    }

    /// Where it is, without user or password.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the store answers, and has its tables.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`], [`Error::Migrate`], [`Error::Newer`].
    pub async fn ping(&self) -> Result<(), Error> {
        read!(self, "a ping", |db| sqlx::query("SELECT 1").execute(db).await.map(|_| ()))
    }

    /// Ends its connections: an SQLite ledger is then one file.
    pub async fn close(&self) {
        match &self.0.pools {
            Pools::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    pub(crate) fn pools(&self) -> &Pools {
        &self.0.pools
    }

    /// Makes the tables, once.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        self.0.has_tables.get_or_try_init(|| self.migrate()).await.copied()
    }

    async fn migrate(&self) -> Result<(), Error> {
        let ledger = || self.name().to_owned();
        let migrated = async {
            match self.pools() {
                Pools::Sqlite { write, .. } => {
                    // The write lock of the file is the lock of the migrations: all of them are one transaction.
                    let mut transaction = begin_first(write).await?;
                    MIGRATOR.run_direct(None, &mut *transaction, false).await?;
                    Ok(transaction.commit().await?)
                }
                Pools::Postgres(pool) => {
                    // A connection of its own: the lock is the session's, and ends with it whatever happens here.
                    let options = pool.connect_options();
                    let connecting = tokio::time::timeout(CONNECT_LIMIT, PgConnection::connect_with(&options));
                    let mut connection = connecting.await.map_err(|_| sqlx::Error::PoolTimedOut)??;
                    MIGRATOR.run_direct(None, &mut connection, false).await?;
                    Ok(connection.close().await?)
                }
            }
        };
        match tokio::time::timeout(MIGRATE_LIMIT, migrated).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(MigrateError::VersionMissing(version))) => Err(Error::Newer { ledger: ledger(), version }),
            Ok(Err(source)) => Err(Error::Migrate { ledger: ledger(), advice: advice(&source), source: source.into() }),
            Err(_) => Err(Error::Deadline { what: "making its tables", ledger: ledger(), limit: MIGRATE_LIMIT }),
        }
    }

    /// The answer of `work`, or an error when it takes too long.
    pub(crate) async fn bounded<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Error> {
        self.ready().await?;
        match tokio::time::timeout(CALL_LIMIT, work).await {
            Ok(answer) => answer.map_err(|source| Error::Store { what, ledger: self.name().to_owned(), source }),
            Err(_) => Err(Error::Deadline { what, ledger: self.name().to_owned(), limit: CALL_LIMIT }),
        }
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger({})", self.name())
    }
}

/// `$body` with a connection to read by; its value is a `Result<_, sqlx::Error>`.
macro_rules! read {
    ($ledger:expr, $what:expr, |$db:ident| $body:expr) => {
        $ledger
            .bounded($what, async {
                match $ledger.pools() {
                    crate::ledger::Pools::Sqlite { read: $db, .. } => $body,
                    crate::ledger::Pools::Postgres($db) => $body,
                }
            })
            .await
    };
}

/// `$body` in a transaction that is committed when its value is `Ok`; `Db` is the store's type in it.
macro_rules! transact {
    ($ledger:expr, $what:expr, |$tx:ident| $body:expr) => {
        $ledger
            .bounded($what, async {
                match $ledger.pools() {
                    crate::ledger::Pools::Sqlite { write, .. } => {
                        #[allow(dead_code, clippy::allow_attributes, reason = "not every transaction names its store")]
                        type Db = sqlx::Sqlite;
                        // Not deferred: two readers that both go on to write would end in a failure no wait can mend.
                        let mut $tx = write.begin_with("BEGIN IMMEDIATE").await?;
                        let value = $body;
                        if value.is_ok() {
                            $tx.commit().await?;
                        }
                        value
                    }
                    crate::ledger::Pools::Postgres(pool) => {
                        #[allow(dead_code, clippy::allow_attributes, reason = "not every transaction names its store")]
                        type Db = sqlx::Postgres;
                        let mut $tx = pool.begin().await?;
                        let value = $body;
                        if value.is_ok() {
                            $tx.commit().await?;
                        }
                        value
                    }
                }
            })
            .await
    };
}

/// One statement in a transaction of its own; its value is the number of rows that changed.
macro_rules! change {
    ($ledger:expr, $what:expr, $query:expr) => {
        crate::ledger::transact!($ledger, $what, |tx| $query.execute(&mut *tx).await.map(|done| done.rows_affected()))
    };
}

pub(crate) use {change, read, transact};

/// Milliseconds since 1970, as the tables have it.
pub(crate) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// The time of a stored value.
pub(crate) fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `text` as both stores take it: no NUL, which PostgreSQL's text cannot hold, and at most [`MAX_TEXT_BYTES`].
pub(crate) fn clip(text: &str) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

fn sqlite(path: &Path) -> Result<Pools, Error> {
    let place = |path: &Path, source: io::Error| Error::Place { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|source| place(folder, source))?;
    }
    // Made by us for its mode, which SQLite gives to the files beside it; names of hosts and users are in it.
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path).map_err(|source| place(path, source))?;

    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // What was answered for is on disk, also when the power fails.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(CONNECT_LIMIT);
    Ok(Pools::Sqlite {
        write: pool::<Sqlite>(1).connect_lazy_with(options.clone()),
        read: pool::<Sqlite>(SQLITE_READERS).connect_lazy_with(options.pragma("query_only", "1")),
    })
}

/// The first transaction on a file. Its journal becomes a WAL by the first connection, and SQLite answers `SQLITE_BUSY` to
/// another that tries the same in that moment without the wait it was told of: two that both wait could never go on.
async fn begin_first(write: &SqlitePool) -> Result<sqlx::Transaction<'static, Sqlite>, sqlx::Error> {
    let begun = Instant::now();
    loop {
        match write.begin_with("BEGIN IMMEDIATE").await {
            Err(sqlx::Error::Database(error)) if is_busy(&*error) && begun.elapsed() < CONNECT_LIMIT => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            begun => return begun,
        }
    }
}

/// `SQLITE_BUSY`, whatever it is busy with.
fn is_busy(error: &dyn DatabaseError) -> bool {
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == SQLITE_BUSY)
}

fn postgres(options: PgConnectOptions) -> PgPool {
    pool::<Postgres>(POSTGRES_CONNECTIONS)
        .after_connect(|connection, _| {
            // The server ends what we no longer wait for. Not as start-up parameters, which poolers in between refuse.
            Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(|_| ()) })
        })
        .connect_lazy_with(options)
}

fn pool<Db: sqlx::Database>(connections: u32) -> PoolOptions<Db> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT_LIMIT)
        .idle_timeout(Duration::from_secs(300))
        .max_lifetime(Duration::from_secs(1800))
}

fn advice(error: &MigrateError) -> &'static str {
    match error {
        MigrateError::VersionMismatch(_) => {
            "its tables were made by a changed program; restore a copy, or begin a new ledger"
        }
        MigrateError::Execute(sqlx::Error::Tls(_)) => TLS_ADVICE,
        // A handshake that fails, as the certificate is another's.
        MigrateError::Execute(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::InvalidData => TLS_ADVICE,
        MigrateError::Execute(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => {
            "it cannot be reached; is the address right, and the server up?"
        }
        MigrateError::Execute(sqlx::Error::Database(_)) => "the store refused; look at user, password and database",
        _ => "look at the cause; nothing was changed",
    }
}

const TLS_ADVICE: &str = "its TLS is not there or not trusted; name its authority by sslrootcert=FILE, or, where the network is trusted, \
     sslmode=disable";

/// Named here, as the macro that reads the folder builds both stores a second time for the compiler's use.
static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let migration = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    Migrator::with_migrations(vec![
        migration(1, "dna", include_str!("../migrations/0001_dna.sql")),
        migration(2, "admission", include_str!("../migrations/0002_admission.sql")),
        migration(3, "work", include_str!("../migrations/0003_work.sql")),
        migration(4, "runtime", include_str!("../migrations/0004_runtime.sql")),
        migration(5, "images", include_str!("../migrations/0005_images.sql")),
        migration(6, "parts", include_str!("../migrations/0006_parts.sql")),
        migration(7, "incidents", include_str!("../migrations/0007_incidents.sql")),
        migration(8, "used", include_str!("../migrations/0008_used.sql")),
        migration(9, "ignored", include_str!("../migrations/0009_ignored.sql")),
        migration(10, "responses", include_str!("../migrations/0010_responses.sql")),
    ])
});

const SESSION: &str =
    "SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '30s'";
/// Of one call, with its wait for a connection: what waits longer is of no use to an admission.
const CALL_LIMIT: Duration = Duration::from_secs(15);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const MIGRATE_LIMIT: Duration = Duration::from_secs(60);
const SQLITE_READERS: u32 = 4;
const SQLITE_BUSY: u32 = 5;
/// Before a file that is busy is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// A replica's: PostgreSQL has 100 for all by default.
const POSTGRES_CONNECTIONS: u32 = 8;
/// Of one text in a row: longer than any name of Kubernetes, and than a reference by digest.
const MAX_TEXT_BYTES: usize = 1024;
