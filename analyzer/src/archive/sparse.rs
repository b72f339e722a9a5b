//! Sparse files in tar archives: GNU's old format and the PAX formats 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse
//! Files"), in; a checked map of the pieces that are stored, out.

use std::io::BufRead;

use super::{Fault, exactly, padding, pax::decimal};

/// Which pieces of a file an archive stores. Pieces ascend and do not overlap, and lie within the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Map {
    /// Offset and length of each stored piece.
    pub(super) pieces: Vec<(u64, u64)>,
    /// Size of the file.
    pub(super) size: u64,
    /// Bytes stored for its body.
    pub(super) stored: u64,
}

impl Map {
    /// A file stored whole.
    pub(super) fn whole(size: u64) -> Self {
        Self { pieces: vec![(0, size)], size, stored: size }
    }

    /// A map from offsets and lengths in turn, for a file of `size` bytes whose pieces take `stored` bytes.
    pub(super) fn new(numbers: &[u64], size: u64, stored: u64) -> Result<Self, Fault> {
        if !numbers.len().is_multiple_of(2) {
            return Err(Fault::Bad("a sparse map is incomplete"));
        }
        let (mut end, mut sum, mut pieces) = (0u64, 0u64, Vec::new());
        for pair in numbers.chunks_exact(2) {
            let [offset, length] = *pair else { continue };
            let next = offset.checked_add(length).ok_or(Fault::Bad("a sparse piece ends above 2^64"))?;
            if offset < end || next > size {
                return Err(Fault::Bad("sparse pieces overlap or leave the file"));
            }
            end = next;
            sum = sum.saturating_add(length);
            if length > 0 {
                pieces.push((offset, length));
            }
        }
        if sum != stored {
            return Err(Fault::Bad("a sparse map does not fit the stored size"));
        }
        Ok(Self { pieces, size, stored })
    }
}

/// The map of GNU's old format: in the header and in blocks after it.
pub(super) fn read_gnu<R: BufRead>(input: &mut R, header: &tar::Header, stored: u64) -> Result<Map, Fault> {
    let gnu = header.as_gnu().ok_or(Fault::Bad("a sparse file without a GNU header"))?;
    let size = gnu.real_size().map_err(|_| Fault::Bad("a sparse file's size is no number"))?;
    let mut numbers = Vec::new();
    add_pieces(&gnu.sparse, &mut numbers)?;
    let mut more = gnu.is_extended();
    while more {
        let mut block = tar::GnuExtSparseHeader::new();
        exactly(input, block.as_mut_bytes())?;
        add_pieces(&block.sparse, &mut numbers)?;
        if numbers.len() > MAX_NUMBERS {
            return Err(Fault::Bad("a sparse map has too many pieces"));
        }
        more = block.is_extended();
    }
    Map::new(&numbers, size, stored)
}

/// The map of PAX format 1.0: decimal numbers, a line each, in front of the body, padded to a block.
pub(super) fn read_pax<R: BufRead>(input: &mut R, size: u64, stored: u64) -> Result<Map, Fault> {
    let mut bytes = 0u64;
    let mut line = || -> Result<u64, Fault> {
        let mut digits = Vec::new();
        loop {
            let mut byte = [0];
            exactly(input, &mut byte)?;
            bytes = bytes.saturating_add(1);
            match byte {
                [b'\n'] => break,
                [digit] if digits.len() < 20 => digits.push(digit),
                _ => return Err(Fault::Bad("a sparse map is malformed")),
            }
        }
        decimal(&digits).ok_or(Fault::Bad("a sparse map is malformed"))
    };
    let count = line()?.checked_mul(2).filter(|n| *n <= MAX_NUMBERS as u64);
    let count = count.ok_or(Fault::Bad("a sparse map has too many pieces"))?;
    let numbers = (0..count).map(|_| line()).collect::<Result<Vec<_>, _>>()?;
    super::skip(input, padding(bytes))?;
    let header = bytes.saturating_add(padding(bytes));
    Map::new(&numbers, size, stored.checked_sub(header).ok_or(Fault::Bad("a sparse map is larger than its entry"))?)
}

/// A file of a terabyte with a hole every 16 MiB.
const MAX_NUMBERS: usize = 1 << 17;

fn add_pieces(pieces: &[tar::GnuSparseHeader], numbers: &mut Vec<u64>) -> Result<(), Fault> {
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let number = |value: std::io::Result<u64>| value.map_err(|_| Fault::Bad("a sparse map is malformed"));
        numbers.push(number(piece.offset())?);
        numbers.push(number(piece.length())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_from_in_front_of_the_body() {
        let mut text = b"2\n0\n3\n1000\n2\n".to_vec();
        text.resize(512, 0);
        let map = read_pax(&mut &text[..], 1002, 512 + 5).expect("well formed");
        assert_eq!(map, Map { pieces: vec![(0, 3), (1000, 2)], size: 1002, stored: 5 });
    }

    #[test]
    fn maps_that_lie_are_refused() {
        for (numbers, size, stored) in [
            (&[0, 3, 2, 1][..], 10, 4),
            (&[0, 3], 2, 3),
            (&[u64::MAX, 2], u64::MAX, 2),
            (&[0, 3], 10, 4),
            (&[0], 10, 0),
        ] {
            assert!(Map::new(numbers, size, stored).is_err(), "{numbers:?}");
        }
    }
}
