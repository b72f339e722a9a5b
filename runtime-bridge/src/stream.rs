//! Where events wait between the door and the loop.
//!
//! ```text
//! door, tail, pull ─append─► Log        one bridge: this disk, one loop
//!                        └─► JetStream  several: partitions by container, a loop for each    (`jet`, `place`)
//!                                │
//!                    Parts ─take, give─ ledger: who judges which      (`parts`)
//! ```
//!
//! Both promise the same: what [`Stream::append`] returned for is there after a kill, and is read in order, from any offset, for as
//! long as nobody said that it is judged. A loop does not know which of them it reads ([`Source`]).

mod jet;
mod parts;
mod place;
mod settings;

use std::sync::Arc;

pub use self::{
    jet::{JetStream, Partition},
    parts::{Duty, Group, share},
    settings::Settings,
};
use crate::log::{self, Batch, Cursor, Log, Offset, Read, Reader};

/// Records read again after a start, to know the processes that run.
const WARM: u64 = 200_000;

/// Where events are put.
#[derive(Debug, Clone)]
pub enum Stream {
    /// On this disk, for one bridge.
    Log(Log),
    /// In JetStream, for several.
    JetStream(Arc<JetStream>),
}

impl From<Log> for Stream {
    fn from(log: Log) -> Self {
        Self::Log(log)
    }
}

/// Why events are not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// By the log.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// There is no room for what is not judged yet.
    #[error("the stream {stream} is full of what is not judged yet: {reason}")]
    Full {
        /// Its name.
        stream: String,
        /// In the server's words.
        reason: String,
    },
    /// An item is larger than a message may be.
    #[error("an item is larger than the {limit_bytes} bytes of a message; raise `max_payload` of the NATS server")]
    TooLarge {
        /// What the server takes.
        limit_bytes: usize,
    },
    /// NATS does not answer, or refuses.
    #[error("the stream {stream} does not take events: {reason}")]
    Away {
        /// Its name.
        stream: String,
        /// Why.
        reason: String,
    },
}

impl Stream {
    /// Appends a batch, and resolves when all of it is kept. Dropping the future leaves open whether it is.
    ///
    /// # Errors
    /// [`Error`]: nothing was promised, though some of it may be kept.
    pub async fn append(&self, batch: &Batch<'_>) -> Result<(), Error> {
        match self {
            Self::Log(log) => log.append(batch).await.map(|_| ()).map_err(Error::Log),
            Self::JetStream(stream) => stream.append(batch).await,
        }
    }

    /// Which part of the room there is is taken by what is not judged yet, from 0 to 1.
    #[must_use]
    pub fn unread_part(&self) -> f64 {
        match self {
            Self::Log(log) => log.unread_part(),
            Self::JetStream(stream) => stream.unread_part(),
        }
    }
}

/// Where a loop reads.
#[derive(Debug)]
pub enum Origin {
    /// The whole log.
    Log(Log),
    /// A partition.
    Partition(Arc<JetStream>, u16),
}

/// A reader of events, in order.
#[derive(Debug)]
pub enum Source {
    /// Of the log.
    Log {
        /// Holds what is not judged yet.
        cursor: Box<Cursor>,
        /// Is ahead of it.
        reader: Box<Reader>,
    },
    /// Of a partition.
    Partition(Partition),
}

impl Origin {
    /// Reads from some way before `judged` on.
    ///
    /// # Errors
    /// The log's.
    pub fn open(self, judged: u64) -> Result<Source, log::Error> {
        Ok(match self {
            Self::Log(log) => {
                // The log removes nothing that this cursor has not passed.
                let cursor = Box::new(log.cursor("judge")?);
                Source::Log { cursor, reader: Box::new(log.reader(Offset(judged.saturating_sub(WARM)))) }
            }
            Self::Partition(stream, number) => {
                // Offsets number the records of all partitions.
                let warm = WARM.saturating_mul(u64::from(stream.partitions()).div_ceil(4));
                Source::Partition(Partition::open(stream, number, judged.saturating_sub(warm)))
            }
        })
    }
}

impl Source {
    /// Waits until there is more than was read.
    pub async fn wait(&mut self) {
        match self {
            Self::Log { reader, .. } => reader.wait().await,
            Self::Partition(partition) => partition.wait().await,
        }
    }

    /// The next records; none: all was read.
    ///
    /// # Errors
    /// The log's.
    pub fn read(&mut self) -> Result<Option<Read>, log::Error> {
        match self {
            Self::Log { reader, .. } => tokio::task::block_in_place(|| reader.read()),
            Self::Partition(partition) => Ok(partition.read()),
        }
    }

    /// Everything of this source before it was read.
    #[must_use]
    pub fn position(&self) -> u64 {
        match self {
            Self::Log { reader, .. } => reader.position().0,
            Self::Partition(partition) => partition.position(),
        }
    }

    /// Everything before an offset is judged, and may be removed.
    ///
    /// # Errors
    /// The log's.
    pub fn commit(&mut self, judged: u64) -> Result<(), log::Error> {
        match self {
            Self::Log { cursor, .. } => cursor.commit(Offset(judged)),
            Self::Partition(partition) => {
                partition.commit(judged);
                Ok(())
            }
        }
    }
}
