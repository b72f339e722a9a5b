//! Small ELF files, built byte by byte for tests: 64-bit, little-endian, x86-64 unless told.

/// What to build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Build {
    pub(crate) interpreter: Option<&'static str>,
    pub(crate) needed: Vec<&'static str>,
    pub(crate) soname: Option<&'static str>,
    pub(crate) rpath: Option<&'static str>,
    pub(crate) runpath: Option<&'static str>,
    pub(crate) flags_1: u64,
    pub(crate) names: Vec<&'static str>,
    pub(crate) extra_segments: Vec<(u32, u32)>,
    pub(crate) machine: Option<u16>,
    pub(crate) is_fixed: bool,
    pub(crate) tail: Vec<u8>,
}

impl Build {
    /// The file's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut put = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.as_bytes());
            strings.push(0);
            at
        };
        let mut dynamic: Vec<(u64, u64)> = self.needed.iter().map(|name| (1, put(name))).collect();
        for (tag, text) in [(14, self.soname), (15, self.rpath), (29, self.runpath)] {
            dynamic.extend(text.map(|text| (tag, put(text))));
        }
        for name in &self.names {
            put(name);
        }
        let interpreter = self.interpreter.map(|text| [text.as_bytes(), b"\0"].concat()).unwrap_or_default();
        let count = 2 + u64::from(self.interpreter.is_some()) + self.extra_segments.len() as u64;
        let at_interpreter = 64 + 56 * count;
        let at_strings = at_interpreter + interpreter.len() as u64;
        let at_dynamic = at_strings + strings.len() as u64;
        dynamic.extend([(5, at_strings), (10, strings.len() as u64), (0x6fff_fffb, self.flags_1), (0, 0)]);
        let dynamic: Vec<u8> =
            dynamic.iter().flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat()).collect();
        let end = at_dynamic + dynamic.len() as u64 + self.tail.len() as u64;
        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(16, 0);
        out.extend(if self.is_fixed { 2u16 } else { 3 }.to_le_bytes());
        out.extend(self.machine.unwrap_or(62).to_le_bytes());
        out.extend(1u32.to_le_bytes());
        for word in [0u64, 64, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        for half in [64u16, 56, u16::try_from(count).expect("few"), 64, 0, 0] {
            out.extend(half.to_le_bytes());
        }
        let mut segment = |kind: u32, flags: u32, offset: u64, len: u64| {
            out.extend(kind.to_le_bytes());
            out.extend(flags.to_le_bytes());
            for word in [offset, offset, offset, len, len, 8] {
                out.extend(word.to_le_bytes());
            }
        };
        segment(1, 5, 0, end);
        segment(2, 6, at_dynamic, dynamic.len() as u64);
        if self.interpreter.is_some() {
            segment(3, 4, at_interpreter, interpreter.len() as u64);
        }
        for (kind, flags) in &self.extra_segments {
            segment(*kind, *flags, 0, 0);
        }
        for part in [&interpreter, &strings, &dynamic, &self.tail] {
            out.extend(part);
        }
        out
    }
}
