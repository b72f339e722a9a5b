//! The bytes of a batch. Pure.
//!
//! ```text
//! frame  = mark: 8 ‖ first offset: u64 ‖ records: u32 ‖ body's length: u32 ‖ body's CRC-32 ‖ CRC-32 of these 28 bytes ‖ body
//! body   = received: i64 microseconds ‖ flags: u8 ‖ length: u16 ‖ sensor ‖ length: u16 ‖ dialect ‖ (length: u32 ‖ item)*
//! ```
//!
//! Numbers are little-endian. The header has a sum of its own, so that a damaged body still says how much to pass by and which records
//! are lost. The mark is drawn at random for each log: a sensor cannot put a frame into a body that would be taken for one.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use jiff::Timestamp;

use super::{Batch, Error, Offset};

/// Bytes of a batch, framing included.
pub const MAX_BATCH_BYTES: usize = 32 << 20;

/// One item, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub offset: Offset,
    /// The sensor's id.
    pub sensor: Arc<str>,
    /// Its dialect's name.
    pub dialect: Arc<str>,
    /// When it came.
    pub received: Timestamp,
    /// Whether the sensor sent more than it should.
    pub is_over_limit: bool,
    /// The item: part of a larger piece of memory, to be copied by whoever keeps it.
    pub body: Bytes,
}

/// What begins every frame of one log.
pub(super) type Mark = [u8; 8];

/// A batch without its place.
#[derive(Debug)]
pub(super) struct Encoded {
    records: u32,
    crc: u32,
    body: Vec<u8>,
}

impl Encoded {
    /// # Errors
    /// [`Error::TooLarge`].
    pub(super) fn new(batch: &Batch<'_>) -> Result<Self, Error> {
        let items: usize = batch.items.iter().map(|item| 4 + item.len()).sum();
        let bytes = FIXED + batch.sensor.len() + batch.dialect.len() + items;
        let too_large = || Error::TooLarge { bytes, limit_bytes: MAX_BATCH_BYTES };
        let names = u16::try_from(batch.sensor.len()).ok().zip(u16::try_from(batch.dialect.len()).ok());
        let ((sensor, dialect), true) = (names.ok_or_else(too_large)?, bytes + HEADER <= MAX_BATCH_BYTES) else {
            return Err(too_large());
        };
        let mut body = Vec::with_capacity(bytes);
        body.extend(batch.received.as_microsecond().to_le_bytes());
        body.push(u8::from(batch.is_over_limit));
        body.extend(sensor.to_le_bytes());
        body.extend(batch.sensor.as_bytes());
        body.extend(dialect.to_le_bytes());
        body.extend(batch.dialect.as_bytes());
        for item in batch.items {
            body.extend(u32::try_from(item.len()).map_err(|_| too_large())?.to_le_bytes());
            body.extend(*item);
        }
        let records = u32::try_from(batch.items.len()).map_err(|_| too_large())?;
        Ok(Self { records, crc: crc32fast::hash(&body), body })
    }

    /// Bytes of the frame.
    pub(super) fn len(&self) -> usize {
        HEADER + self.body.len()
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// Appends the frame.
    pub(super) fn write(&self, mark: Mark, first: u64, to: &mut Vec<u8>) {
        let length = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        let header = Header { first, records: self.records, length, crc: self.crc };
        to.extend(header.encode(mark));
        to.extend(&self.body);
    }
}

/// What stands before a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) first: u64,
    pub(super) records: u32,
    pub(super) length: u32,
    crc: u32,
}

impl Header {
    fn encode(&self, mark: Mark) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(mark);
        bytes.extend(self.first.to_le_bytes());
        bytes.extend(self.records.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.crc.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// The header that these bytes begin with, if they do.
    pub(super) fn decode(mark: Mark, bytes: &[u8]) -> Option<Self> {
        let (summed, mut rest) = bytes.split_at_checked(HEADER - 4)?;
        let sum = rest.try_get_u32_le().ok()?;
        let mut fields = summed.strip_prefix(&mark)?;
        if crc32fast::hash(summed) != sum {
            return None;
        }
        let header = Self {
            first: fields.try_get_u64_le().ok()?,
            records: fields.try_get_u32_le().ok()?,
            length: fields.try_get_u32_le().ok()?,
            crc: fields.try_get_u32_le().ok()?,
        };
        (header.length as usize <= MAX_BATCH_BYTES && header.first.checked_add(header.records.into()).is_some())
            .then_some(header)
    }

    /// Bytes of the frame.
    pub(super) fn frame_bytes(&self) -> usize {
        HEADER + self.length as usize
    }

    /// The offset after its last record.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.records.into())
    }

    /// Whether this is its body.
    pub(super) fn is_whole(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize && crc32fast::hash(body) == self.crc
    }

    /// The records of a body whose sum is right; none where it was not written by this version of the program.
    pub(super) fn decode_body(&self, mut body: Bytes) -> Option<Vec<Record>> {
        let received = Timestamp::from_microsecond(body.try_get_i64_le().ok()?).ok()?;
        let flags = body.try_get_u8().ok()?;
        let mut name = || {
            let length = usize::from(body.try_get_u16_le().ok()?);
            let name = (length <= body.len()).then(|| body.split_to(length))?;
            Some(Arc::<str>::from(std::str::from_utf8(&name).ok()?))
        };
        let (sensor, dialect) = (name()?, name()?);
        let mut records = Vec::new();
        for offset in self.first..self.end() {
            let length = usize::try_from(body.try_get_u32_le().ok()?).ok()?;
            let item = (length <= body.len()).then(|| body.split_to(length))?;
            records.push(Record {
                offset: Offset(offset),
                sensor: Arc::clone(&sensor),
                dialect: Arc::clone(&dialect),
                received,
                is_over_limit: flags & 1 != 0,
                body: item,
            });
        }
        body.is_empty().then_some(records)
    }
}

/// Bytes of a header.
pub(super) const HEADER: usize = 32;

/// Bytes of a body besides its names and items.
const FIXED: usize = 8 + 1 + 2 + 2;
