//! File capabilities: the value of `security.capability` in, sets of names out.
//!
//! Source: include/uapi/linux/capability.h, `struct vfs_cap_data` and `vfs_ns_cap_data`; all fields are little-endian.

use std::collections::BTreeSet;

use dna::{CAPABILITIES, FileCapabilities};

/// Reads the attribute's value; none where its revision or length is not one the kernel takes.
pub fn read_capabilities(value: &[u8]) -> Option<FileCapabilities> {
    let word = |at: usize| Some(u32::from_le_bytes(value.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let magic = word(0)?;
    let (words, len) = match magic & 0xff00_0000 {
        0x0100_0000 => (1, 12),
        0x0200_0000 => (2, 20),
        0x0300_0000 => (2, 24),
        _ => return None,
    };
    if value.len() != len {
        return None;
    }
    let set = |first: usize| {
        let low = u64::from(word(first)?);
        let high = if words == 2 { u64::from(word(first.checked_add(8)?)?) } else { 0 };
        Some(names(low | (high << 32)))
    };
    let root_uid = if len == 24 { Some(word(20)?) } else { None };
    Some(FileCapabilities { permitted: set(4)?, inheritable: set(8)?, effective: magic & 1 != 0, root_uid })
}

/// The names of all capabilities that we know.
#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = String> {
    CAPABILITIES.iter().map(|name| format!("CAP_{name}"))
}

fn names(bits: u64) -> BTreeSet<String> {
    let name = |bit: u32| {
        let known = usize::try_from(bit).ok().and_then(|bit| CAPABILITIES.get(bit));
        known.map_or_else(|| format!("CAP_{bit}"), |name| format!("CAP_{name}"))
    };
    (0..64).filter(|bit| bits >> bit & 1 == 1).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn each_revision_is_read() {
        let raw = BTreeSet::from(["CAP_NET_RAW".to_owned()]);
        let first = read_capabilities(&value(&[0x0100_0000, 1 << 13, 0])).expect("revision 1");
        assert_eq!((&first.permitted, first.effective, first.root_uid), (&raw, false, None));
        let second = read_capabilities(&value(&[0x0200_0001, 1 << 13, 1, 1 << 8, 1 << 31])).expect("revision 2");
        assert!(second.effective && second.permitted.contains("CAP_CHECKPOINT_RESTORE"));
        assert_eq!(second.inheritable, BTreeSet::from(["CAP_63".to_owned(), "CAP_CHOWN".to_owned()]));
        let third = read_capabilities(&value(&[0x0300_0000, 1 << 13, 0, 0, 0, 1000])).expect("revision 3");
        assert_eq!((third.permitted, third.root_uid), (raw, Some(1000)));
    }

    #[test]
    fn a_wrong_length_or_revision_is_refused() {
        assert_eq!(read_capabilities(&value(&[0x0200_0000, 1, 0])), None);
        assert_eq!(read_capabilities(&value(&[0x0400_0000, 1, 0, 0, 0])), None);
        assert_eq!(read_capabilities(b"\x01"), None);
    }
}
