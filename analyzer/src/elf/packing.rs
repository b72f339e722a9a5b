//! Signs of packing: an ELF file's first bytes and executable segments in, what unpacks itself out.
//!
//! Either a packer's mark is there, or the code looks like noise and the file has next to nothing of what a linked program has.
//! Packers whose output looks like ordinary code are not seen.

use dna::Packing;
use goblin::elf::program_header;

use super::{Body, Dynamic, ElfError};

pub(super) fn read(body: &Body<'_>, head: &[u8], dynamic: &Dynamic) -> Result<Option<Packing>, ElfError> {
    // UPX's `l_info` stands right behind the program headers, linux.hpp of UPX.
    let is_upx = memchr::memmem::find(head.get(..UPX_BYTES).unwrap_or(head), b"UPX!").is_some();
    let is_bare = body.sections.is_empty() && dynamic.needed.len() < 2;
    if !is_upx && !is_bare {
        return Ok(None);
    }
    let entropy_centibits = entropy(body)?;
    if is_upx && body.sections.is_empty() {
        return Ok(Some(Packing { packer: Some("UPX".to_owned()), entropy_centibits }));
    }
    Ok((is_bare && entropy_centibits >= NOISE).then_some(Packing { packer: None, entropy_centibits }))
}

/// Shannon entropy of samples of the executable segments, in hundredths of a bit per byte.
fn entropy(body: &Body<'_>) -> Result<u16, ElfError> {
    let mut counts = [0u32; 256];
    let executable = body
        .segments
        .iter()
        .filter(|segment| segment.p_type == program_header::PT_LOAD && segment.p_flags & program_header::PF_X != 0);
    for segment in executable.take(SAMPLED_SEGMENTS) {
        let step = (segment.p_filesz / SAMPLES).max(SAMPLE_BYTES);
        for sample in 0..SAMPLES {
            let inside = step.saturating_mul(sample);
            if inside >= segment.p_filesz {
                break;
            }
            let len = SAMPLE_BYTES.min(segment.p_filesz.saturating_sub(inside));
            for byte in body.range(segment.p_offset.saturating_add(inside), len)? {
                if let Some(count) = counts.get_mut(usize::from(byte)) {
                    *count = count.saturating_add(1);
                }
            }
        }
    }
    Ok(centibits(&counts))
}

fn centibits(counts: &[u32; 256]) -> u16 {
    let total: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let share = |count: &u32| f64::from(*count) / total;
    let bits: f64 = counts.iter().filter(|count| **count > 0).map(share).map(|p| -p * p.log2()).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 800, clamped")]
    let centibits = (bits * 100.0).round().clamp(0.0, 800.0) as u16;
    centibits
}

/// Machine code has 5 to 6.7 bits per byte, compressed data above 7.9.
const NOISE: u16 = 720;
const UPX_BYTES: usize = 1 << 10;
const SAMPLED_SEGMENTS: usize = 4;
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_of_one_byte_is_none_and_of_all_is_eight_bits() {
        let mut counts = [0; 256];
        assert_eq!(centibits(&counts), 0);
        counts[7] = 9;
        assert_eq!(centibits(&counts), 0);
        assert_eq!(centibits(&[3; 256]), 800);
    }
}
