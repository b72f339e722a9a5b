//! rpm's own database, `Packages.db`: bytes in, header blobs out.
//!
//! Source: rpm, `lib/backend/ndb/rpmpkg.c`. The file is pages of 4096 bytes, the first ones full of slots of 16 bytes; each slot names
//! a blob by its block of 16 bytes. All integers are little-endian. Checksums are not compared: a spoiled blob shows as a spoiled
//! header.

/// Gives each blob of the database to `take`.
///
/// # Errors
/// [`NdbError`]; the blobs before it were given.
pub fn parse_ndb(bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), NdbError> {
    if u32_at(bytes, 0) != Some(DATABASE_MAGIC) {
        return Err(NdbError::Magic);
    }
    if u32_at(bytes, 4) != Some(VERSION) {
        return Err(NdbError::Version);
    }
    let pages = u32_at(bytes, 12).and_then(|pages| usize::try_from(pages).ok());
    let slots =
        pages.and_then(|pages| bytes.get(HEADER_BYTES..pages.checked_mul(PAGE_BYTES)?)).ok_or(NdbError::Slots)?;
    let mut given = 0_usize;
    for slot in slots.chunks_exact(SLOT_BYTES) {
        if u32_at(slot, 0) != Some(SLOT_MAGIC) {
            return Err(NdbError::Slots);
        }
        let field = |at| u32_at(slot, at).unwrap_or_default();
        let (package, block) = (field(4), field(8));
        // A slot that is not in use.
        if package == 0 || block == 0 {
            continue;
        }
        let blob = blob(bytes, package, block).ok_or(NdbError::Blob(package))?;
        // No two slots share a blob, so that together they are no larger than the file.
        given = given.saturating_add(blob.len());
        if given > bytes.len() {
            return Err(NdbError::Blob(package));
        }
        take(blob);
    }
    Ok(())
}

/// A database that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NdbError {
    /// It does not begin as one.
    #[error("not an rpm ndb database")]
    Magic,
    /// It is of another revision.
    #[error("rpm ndb database of another revision than {VERSION}")]
    Version,
    /// Its table of slots is cut off or spoiled.
    #[error("rpm ndb slots are malformed")]
    Slots,
    /// A slot leads to no blob of its package.
    #[error("rpm ndb blob of package number {0} is malformed")]
    Blob(u32),
}

/// `BlbS`, package number, generation, length; then the blob.
fn blob(bytes: &[u8], package: u32, block: u32) -> Option<&[u8]> {
    let start = usize::try_from(block).ok()?.checked_mul(BLOCK_BYTES)?;
    let rest = bytes.get(start..)?;
    let fits = u32_at(rest, 0) == Some(BLOB_MAGIC) && u32_at(rest, 4) == Some(package);
    let len = usize::try_from(u32_at(rest, 12)?).ok()?;
    rest.get(16..)?.get(..len).filter(|_| fits)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

const DATABASE_MAGIC: u32 = u32::from_le_bytes(*b"RpmP");
const SLOT_MAGIC: u32 = u32::from_le_bytes(*b"Slot");
const BLOB_MAGIC: u32 = u32::from_le_bytes(*b"BlbS");
const VERSION: u32 = 0;
const PAGE_BYTES: usize = 4096;
const SLOT_BYTES: usize = 16;
const BLOCK_BYTES: usize = 16;
/// The header takes the place of the first two slots.
const HEADER_BYTES: usize = 2 * SLOT_BYTES;

#[cfg(test)]
pub(super) mod fixture {
    use super::*;

    /// A database of one page of slots with these blobs.
    pub(in crate::inventory) fn database(blobs: &[Vec<u8>]) -> Vec<u8> {
        let le = |numbers: [u32; 4]| numbers.map(u32::to_le_bytes).concat();
        let mut slots = le([DATABASE_MAGIC, VERSION, 1, 1]);
        slots.extend([0; 16]);
        let mut data = Vec::new();
        for (number, blob) in (1..).zip(blobs) {
            let block = u32::try_from((PAGE_BYTES + data.len()) / BLOCK_BYTES).expect("small");
            slots.extend(le([SLOT_MAGIC, number, block, 0]));
            data.extend(le([BLOB_MAGIC, number, 1, u32::try_from(blob.len()).expect("small")]));
            data.extend(blob);
            data.resize(data.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        while slots.len() < PAGE_BYTES {
            slots.extend(le([SLOT_MAGIC, 0, 0, 0]));
        }
        [slots, data].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs(bytes: &[u8]) -> Result<Vec<Vec<u8>>, NdbError> {
        let mut found = Vec::new();
        parse_ndb(bytes, |blob| found.push(blob.to_vec()))?;
        Ok(found)
    }

    #[test]
    fn slots_lead_to_blobs() {
        let all = [b"first".to_vec(), b"second blob, longer than a block".to_vec()];
        assert_eq!(blobs(&fixture::database(&all)), Ok(all.to_vec()));
    }

    #[test]
    fn spoiled_databases_are_refused() {
        let good = fixture::database(&[b"first".to_vec()]);
        let spoil = |at: usize| {
            let mut bytes = good.clone();
            *bytes.get_mut(at).expect("inside") ^= 0x40;
            blobs(&bytes)
        };
        for (at, error) in [
            (0, NdbError::Magic),
            (4, NdbError::Version),
            (13, NdbError::Slots),
            (32, NdbError::Slots),
            (40, NdbError::Blob(1)),
            (PAGE_BYTES, NdbError::Blob(1)),
            (PAGE_BYTES + 4, NdbError::Blob(1)),
            (PAGE_BYTES + 13, NdbError::Blob(1)),
        ] {
            assert_eq!(spoil(at), Err(error), "byte {at}");
        }
    }
}
