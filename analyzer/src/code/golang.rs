//! Go's own table of functions, `.gopclntab`, which `strip` leaves in place. Source: Go's `src/internal/abi/symtab.go`,
//! `src/debug/gosym/pclntab.go`.

use super::binary::Binary;

/// A function by its start and full name, `net/http.(*Server).Serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) at: u64,
    pub(super) name: String,
}

/// Reads the table; empty where there is none.
pub(super) fn functions(binary: &Binary, section: Option<u64>) -> Vec<Function> {
    let table = match section {
        Some(at) => Some(binary.bytes_at(at)),
        // No section headers: the header of the table is distinctive.
        None => binary.segments.iter().filter(|segment| !segment.is_code).find_map(|segment| {
            let found = MAGICS.iter().find_map(|magic| {
                let header = [&magic.to_le_bytes()[..], &[0, 0]].concat();
                memchr::memmem::find_iter(&segment.bytes, &header).find(|at| {
                    let rest = segment.bytes.get(at.saturating_add(6)..).unwrap_or_default();
                    matches!(rest.first_chunk(), Some([1 | 4, 8]))
                })
            })?;
            segment.bytes.get(found..)
        }),
    };
    table.and_then(|table| read(binary, table)).unwrap_or_default()
}

fn read(binary: &Binary, table: &[u8]) -> Option<Vec<Function>> {
    let word = |index: usize| {
        table.get(8usize.checked_add(index.checked_mul(8)?)?..)?.first_chunk().copied().map(u64::from_le_bytes)
    };
    let half = |at: usize| table.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let (count, text, names, lines) = match half(0)? {
        // Go 1.18 and 1.20: entries relative to the start of the text.
        MAGIC_118 | MAGIC_120 => (word(0)?, Some(word(2)?), word(3)?, word(7)?),
        MAGIC_116 => (word(0)?, None, word(2)?, word(6)?),
        _ => return None,
    };
    // Newer linkers leave the start of the text zero for the loader; the code segment's own start stands in.
    let (names, lines) = (usize::try_from(names).ok()?, usize::try_from(lines).ok()?);
    let text = match text {
        Some(0) => Some(section_start(binary)?),
        text => text,
    };
    let mut functions = Vec::new();
    let mut budget = ALL_NAMES_BYTES;
    for index in 0..usize::try_from(count).ok()?.min(FUNCTIONS) {
        let (entry, record) = match text {
            Some(text) => {
                let at = lines.checked_add(index.checked_mul(8)?)?;
                (text.checked_add(u64::from(half(at)?))?, half(at.checked_add(4)?)? as usize)
            }
            None => {
                let at = lines.checked_add(index.checked_mul(16)?)?;
                let word = |at: usize| table.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
                (word(at)?, usize::try_from(word(at.checked_add(8)?)?).ok()?)
            }
        };
        let name_at = lines.checked_add(record)?.checked_add(if text.is_some() { 4 } else { 8 })?;
        let name = table.get(names.checked_add(half(name_at)? as usize)?..)?;
        let name = name.get(..NAME_BYTES.min(budget)).unwrap_or(name);
        let name = memchr::memchr(0, name).and_then(|end| name.get(..end)).unwrap_or(name);
        budget = budget.saturating_sub(name.len());
        functions.push(Function { at: entry, name: String::from_utf8_lossy(name).into_owned() });
    }
    // The table closes with the end of Go's code; what C code is linked behind it is no part of the last function.
    let end = match text {
        Some(text) => half(lines.checked_add(usize::try_from(count).ok()?.checked_mul(8)?)?)
            .and_then(|offset| text.checked_add(u64::from(offset))),
        None => None,
    };
    if let Some(at) = end.filter(|at| functions.last().is_some_and(|last| last.at < *at)) {
        functions.push(Function { at, name: "runtime.etext".to_owned() });
    }
    functions.sort_by_key(|function| function.at);
    Some(functions)
}

/// Where the linker put `runtime.text`: the first code after the ELF headers.
fn section_start(binary: &Binary) -> Option<u64> {
    let named = binary.symbols.iter().find(|symbol| symbol.name == "runtime.text").map(|symbol| symbol.at);
    named.or_else(|| {
        binary.code().next().map(|segment| segment.start.saturating_add(if segment.offset == 0 { 0x1000 } else { 0 }))
    })
}

const MAGIC_116: u32 = 0xffff_fffa;
const MAGIC_118: u32 = 0xffff_fff0;
const MAGIC_120: u32 = 0xffff_fff1;
const MAGICS: [u32; 3] = [MAGIC_120, MAGIC_118, MAGIC_116];
/// The Kubernetes API server has some 150,000.
const FUNCTIONS: usize = 2_000_000;
const NAME_BYTES: usize = 4 << 10;
/// All names together: many functions may point into one long string.
const ALL_NAMES_BYTES: usize = 64 << 20;
