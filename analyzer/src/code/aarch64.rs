//! AArch64: bytes in, [`Step`]s and [`Effect`]s out. Words are told apart by masks; what is not known only forgets the register it
//! writes. Source: Arm Architecture Reference Manual for A-profile, section C4.1, "A64 instruction set encoding".

use super::insn::{Effect, Flow, Register, Step, Use};

/// Sweeps code from its first word to its last. An address that two instructions put together (`adrp`, then `add` or a load) is
/// known at the second.
pub(super) fn sweep(bytes: &[u8], start: u64, mut on: impl FnMut(Step)) {
    effects(bytes, start, |step, _| on(step));
}

/// Decodes code with what each instruction does to registers and stack.
pub(super) fn effects(bytes: &[u8], start: u64, mut on: impl FnMut(Step, &[Effect])) {
    let mut pages = Pages::default();
    let mut effects = Vec::new();
    for (index, word) in bytes.as_chunks::<4>().0.iter().enumerate() {
        let word = u32::from_le_bytes(*word);
        let at = start.wrapping_add((index as u64).wrapping_mul(4));
        effects.clear();
        effect(word, at, &mut effects);
        let flow = flow(word, at);
        pages.complete(word, &mut effects);
        let refers = pages.refers(word, at, flow);
        pages.pass(&effects, flow);
        // Memory at a known address may hold a constant: literals, variables that hold numbers.
        if let ([effect @ Effect::Load { .. }], Some((Use::Access, from))) = (effects.as_mut_slice(), refers)
            && let Effect::Load { to, bits, .. } = *effect
        {
            *effect = Effect::LoadStatic { to, from, bits };
        }
        on(Step::new(at, flow, refers), &effects);
    }
}

/// Whether what stands here is data among code: no processor gets from its first word to a jump or return, since a word before it is
/// in a group of encodings that stays unallocated ("Top-level encodings for A64"; a zero word is a trap, which ends code).
pub(super) fn is_data(bytes: &[u8]) -> bool {
    let words = bytes.as_chunks::<4>().0.iter().take(MAX_STRAIGHT).map(|word| u32::from_le_bytes(*word));
    for word in words {
        let group = word >> 25 & 0b1111;
        if matches!(group, 0b0001 | 0b0011) || group == 0 && word >> 31 == 0 && word >> 16 != 0 {
            return true;
        }
        if matches!(flow(word, 0), Flow::Jump(_) | Flow::JumpIndirect | Flow::Stop) {
            return false;
        }
    }
    false
}

fn flow(word: u32, at: u64) -> Flow {
    let near = |bits: u32, low: u32| at.wrapping_add_signed(signed(word >> low, bits).wrapping_mul(4));
    if word == NOP {
        Flow::Padding
    } else if word >> 26 == 0b000101 {
        Flow::Jump(near(26, 0))
    } else if word >> 26 == 0b100101 {
        Flow::Call(near(26, 0))
    } else if word & 0xff00_0010 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
        Flow::Branch(near(19, 5))
    } else if word & 0x7e00_0000 == 0x3600_0000 {
        Flow::Branch(near(14, 5))
    } else if word >> 25 == 0b110_1011 {
        // With and without pointer authentication.
        match word >> 21 & 0b0111 {
            0 => Flow::JumpIndirect,
            1 => Flow::CallIndirect,
            _ => Flow::Stop,
        }
    } else if word & 0xffe0_001f == 0xd400_0001 {
        Flow::Syscall
    } else if word & 0xff00_001c == 0xd400_0000 && word & 3 == 0 || word >> 16 == 0 {
        // brk, hlt, udf.
        Flow::Stop
    } else {
        Flow::Next
    }
}

fn effect(word: u32, at: u64, out: &mut Vec<Effect>) {
    let (to, base, second) = (register(word), register(word >> 5), register(word >> 16));
    let width = if word >> 31 == 1 { 64 } else { 32 };
    let half = |value: u64| if width == 32 { value & 0xffff_ffff } else { value };
    match word {
        // adr, adrp
        _ if word & 0x1f00_0000 == 0x1000_0000 => out.push(Effect::Set { to, value: pc_relative(word, at) }),
        // add and sub of a constant; the forms that set flags differ in one bit
        _ if word & 0x1f80_0000 == 0x1100_0000 => {
            let shift = if word >> 22 & 1 == 1 { 12 } else { 0 };
            let value = i64::from(word >> 10 & 0xfff) << shift;
            let plus = if word >> 30 & 1 == 0 { value } else { value.wrapping_neg() };
            let sets_flags = word >> 29 & 1 == 1;
            if sets_flags && to == ZERO {
                return;
            }
            out.push(Effect::Copy { to, from: base, plus, bits: width });
        }
        // movn, movz, movk
        _ if word & 0x1f80_0000 == 0x1280_0000 => {
            let value = u64::from(word >> 5 & 0xffff) << (word >> 21 & 3).wrapping_mul(16);
            match word >> 29 & 3 {
                0 => out.push(Effect::Set { to, value: half(!value) }),
                2 => out.push(Effect::Set { to, value: half(value) }),
                _ => out.push(Effect::Forget { to }),
            }
        }
        // mov register: orr with the zero register
        _ if word & 0x7fe0_ffe0 == 0x2a00_03e0 => match second {
            ZERO => out.push(Effect::Set { to, value: 0 }),
            from => out.push(Effect::Copy { to, from, plus: 0, bits: width }),
        },
        // mov of a bit pattern: orr of a constant with the zero register
        _ if word & 0x7f80_03e0 == 0x3200_03e0 => match bit_pattern(word, width) {
            Some(value) => out.push(Effect::Set { to, value }),
            None => out.push(Effect::Forget { to }),
        },
        // csel
        _ if word & 0x7fe0_0c00 == 0x1a80_0000 => out.push(Effect::Either { to, one: base, other: second }),
        // str and ldr with an unsigned offset, words and double words
        _ if word & 0xbfc0_0000 == 0xb900_0000 && to != ZERO => {
            out.push(Effect::Store { from: to, base, offset: scaled(word) });
        }
        _ if word & 0xbfc0_0000 == 0xb900_0000 => {
            out.push(Effect::StoreConstant { value: 0, base, offset: scaled(word) });
        }
        _ if word & 0xbfc0_0000 == 0xb940_0000 || word & 0xffc0_0000 == 0xb980_0000 => {
            let bits = if word >> 30 == 3 { 64 } else { 32 };
            out.push(Effect::Load { to, base, offset: scaled(word), bits });
        }
        // stp and ldp of words and double words: with an offset, and with the base changed before or after
        _ if word & 0x7e00_0000 == 0x2800_0000 => pair(word, out),
        // str and ldr with the base changed, or an offset that is not scaled
        _ if word & 0x3b20_0000 == 0x3800_0000 => unscaled(word, out),
        // ldr of a literal, a word or a double word
        _ if word & 0xbf00_0000 == 0x1800_0000 => {
            let bits = if word >> 30 == 1 { 64 } else { 32 };
            out.push(Effect::Load { to, base: ZERO, offset: 0, bits });
        }
        // Other loads; those of vectors leave the general registers alone, but for the base that a pair moves.
        _ if word & 0x3e00_0000 == 0x2c00_0000 => {
            let by = signed(word >> 15, 7) << (2 + (word >> 30 & 3));
            if word >> 23 & 1 == 1 {
                move_base(base, by, out);
            }
        }
        _ if word & 0x0a00_0000 == 0x0800_0000 && word >> 26 & 1 == 1 => {}
        // str of bytes and half words; prfm
        _ if word & 0x3bc0_0000 == 0x3900_0000 || word & 0xffc0_0000 == 0xf980_0000 => {}
        _ if word & 0x3a00_0000 == 0x2800_0000 => {
            out.extend([to, register(word >> 10)].map(|to| Effect::Forget { to }));
        }
        _ if word & 0x0a00_0000 == 0x0800_0000 => out.push(Effect::Forget { to }),
        // Other data processing, with constants and with registers.
        _ if word & 0x1c00_0000 == 0x1000_0000 || word & 0x0e00_0000 == 0x0a00_0000 => {
            out.extend(Some(to).filter(|to| *to != ZERO).map(|to| Effect::Forget { to }));
        }
        // Moves from vectors and system registers.
        _ if word & 0x7f20_fc00 == 0x1e20_0000 || word & 0xfff0_0000 == 0xd530_0000 => out.push(Effect::Forget { to }),
        _ => {}
    }
}

/// A load or store of any size with an offset of nine bits, which may change the base before or after.
fn unscaled(word: u32, out: &mut Vec<Effect>) {
    let (to, base, by) = (register(word), register(word >> 5), signed(word >> 12, 9));
    let (before, after, offset) = match word >> 10 & 3 {
        1 => (0, by, 0),
        3 => (by, 0, 0),
        _ => (0, 0, by),
    };
    move_base(base, before, out);
    let (size, operation, is_vector) = (word >> 30, word >> 22 & 3, word >> 26 & 1 == 1);
    match (size, operation) {
        _ if is_vector => {}
        (2 | 3, 0) if to == ZERO => out.push(Effect::StoreConstant { value: 0, base, offset }),
        (2 | 3, 0) => out.push(Effect::Store { from: to, base, offset }),
        (2, 1 | 2) => out.push(Effect::Load { to, base, offset, bits: 32 }),
        (3, 1) => out.push(Effect::Load { to, base, offset, bits: 64 }),
        // Stores of bytes and half words; prfum.
        (_, 0) | (3, 2) => {}
        _ => out.push(Effect::Forget { to }),
    }
    move_base(base, after, out);
}

fn pair(word: u32, out: &mut Vec<Effect>) {
    let (one, two, base) = (register(word), register(word >> 10), register(word >> 5));
    let (size, bits) = if word >> 31 == 1 { (8, 64) } else { (4, 32) };
    let by = signed(word >> 15, 7).wrapping_mul(size);
    let (before, after, offset) = match word >> 23 & 3 {
        1 => (0, by, 0),
        3 => (by, 0, 0),
        _ => (0, 0, by),
    };
    move_base(base, before, out);
    for (register, offset) in [(one, offset), (two, offset.wrapping_add(size))] {
        if word >> 22 & 1 == 1 {
            out.push(Effect::Load { to: register, base, offset, bits });
        } else if register == ZERO {
            out.push(Effect::StoreConstant { value: 0, base, offset });
        } else {
            out.push(Effect::Store { from: register, base, offset });
        }
    }
    move_base(base, after, out);
}

fn move_base(base: Register, by: i64, out: &mut Vec<Effect>) {
    if by != 0 {
        out.push(Effect::Copy { to: base, from: base, plus: by, bits: 64 });
    }
}

/// Addresses that are half put together, by register.
#[derive(Debug, Default)]
struct Pages {
    pages: [Option<u64>; 32],
    /// Where the register of a jump was loaded from.
    loaded: [Option<u64>; 32],
    /// Constants that further instructions may complete.
    constants: [Option<u64>; 32],
}

impl Pages {
    /// `movk` puts sixteen bits into a constant.
    fn complete(&self, word: u32, effects: &mut Vec<Effect>) {
        let to = register(word);
        let Some(known) = self.constants.get(usize::from(to)).copied().flatten() else { return };
        if word & 0x7f80_0000 == 0x7280_0000 && to != ZERO {
            let shift = (word >> 21 & 3).wrapping_mul(16);
            let value = known & !(0xffff << shift) | u64::from(word >> 5 & 0xffff) << shift;
            let value = if word >> 31 == 1 { value } else { value & 0xffff_ffff };
            *effects = vec![Effect::Set { to, value }];
        }
    }

    fn refers(&mut self, word: u32, at: u64, flow: Flow) -> Option<(Use, u64)> {
        let base = usize::from(register(word >> 5));
        let page = self.pages.get(base).copied().flatten();
        if matches!(flow, Flow::JumpIndirect | Flow::CallIndirect) {
            return self.loaded.get(base).copied().flatten().map(|slot| (Use::Access, slot));
        }
        if word & 0x9f00_0000 == 0x1000_0000 {
            return Some((Use::Take, pc_relative(word, at)));
        }
        if word & 0xbf00_0000 == 0x1800_0000 {
            return Some((Use::Access, at.wrapping_add_signed(signed(word >> 5, 19).wrapping_mul(4))));
        }
        let page = page?;
        // add of a constant, 64 bits
        if word & 0xff80_0000 == 0x9100_0000 {
            return Some((Use::Take, page.wrapping_add(u64::from(word >> 10 & 0xfff))));
        }
        // loads and stores with an unsigned offset, of any size
        if word & 0x3b00_0000 == 0x3900_0000 {
            let is_vector_of_16 = word >> 26 & 1 == 1 && word >> 23 & 1 == 1;
            let shift = if is_vector_of_16 { 4 } else { word >> 30 };
            return Some((Use::Access, page.wrapping_add(u64::from(word >> 10 & 0xfff) << shift)));
        }
        None
    }

    fn pass(&mut self, effects: &[Effect], flow: Flow) {
        for effect in effects {
            let constant = match *effect {
                Effect::Set { value, .. } => Some(value),
                _ => None,
            };
            let (to, page, loaded) = match *effect {
                Effect::Set { to, value } => (to, Some(value).filter(|value| value & 0xfff == 0), None),
                Effect::Load { to, base, offset, .. } => {
                    let page = self.pages.get(usize::from(base)).copied().flatten();
                    (to, None, page.map(|page| page.wrapping_add_signed(offset)))
                }
                // `mov` keeps what it copies.
                Effect::Copy { to, from, plus: 0, .. } => {
                    let index = usize::from(from);
                    (to, self.pages.get(index).copied().flatten(), self.loaded.get(index).copied().flatten())
                }
                Effect::SetByte { to, .. }
                | Effect::Copy { to, .. }
                | Effect::LoadStatic { to, .. }
                | Effect::Either { to, .. }
                | Effect::Select { to, .. }
                | Effect::Forget { to } => (to, None, None),
                Effect::Store { .. } | Effect::StoreConstant { .. } => continue,
            };
            if let (Some(slot), Some(known)) =
                (self.pages.get_mut(usize::from(to)), self.loaded.get_mut(usize::from(to)))
            {
                *slot = page;
                *known = loaded;
            }
            if let Some(known) = self.constants.get_mut(usize::from(to)) {
                *known = constant;
            }
        }
        match flow {
            Flow::Call(_) | Flow::CallIndirect => {
                self.pages.iter_mut().take(19).for_each(|page| *page = None);
                self.loaded = [None; 32];
                self.constants = [None; 32];
            }
            Flow::Jump(_) | Flow::JumpIndirect | Flow::Stop => *self = Self::default(),
            _ => {}
        }
    }
}

fn register(word: u32) -> Register {
    Register::try_from(word & 31).unwrap_or(0)
}

/// Sign-extends the low bits of a word.
fn signed(word: u32, bits: u32) -> i64 {
    let shift = 64u32.saturating_sub(bits);
    (u64::from(word) << shift).cast_signed() >> shift
}

fn scaled(word: u32) -> i64 {
    i64::from(word >> 10 & 0xfff) << (word >> 30)
}

fn pc_relative(word: u32, at: u64) -> u64 {
    let by = signed((word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3, 21);
    if word >> 31 == 1 { (at & !0xfff).wrapping_add_signed(by << 12) } else { at.wrapping_add_signed(by) }
}

/// The constant of a logical instruction: a run of ones, rotated and repeated (`DecodeBitMasks`).
fn bit_pattern(word: u32, width: u32) -> Option<u64> {
    let (n, rotate, ones) = (word >> 22 & 1, word >> 16 & 63, word >> 10 & 63);
    let len = 31u32.checked_sub((n << 6 | !ones & 63).leading_zeros())?;
    let size = 1u32.checked_shl(len)?;
    let levels = size.checked_sub(1)?;
    let (ones, rotate) = ((ones & levels).checked_add(1)?, rotate & levels);
    if ones == size || size > width {
        return None;
    }
    let run = (1u64 << ones) - 1;
    let element = if size == 64 {
        run.rotate_right(rotate)
    } else {
        let mask = (1u64 << size) - 1;
        (run >> rotate | run << (size.saturating_sub(rotate))) & mask
    };
    let mut value = element;
    let mut filled = size;
    while filled < 64 {
        value |= value << filled;
        filled = filled.saturating_mul(2);
    }
    Some(if width == 32 { value & 0xffff_ffff } else { value })
}

/// Words of straight code looked at.
const MAX_STRAIGHT: usize = 256;
const NOP: u32 = 0xd503_201f;
/// Number 31 is the zero register here, the stack pointer elsewhere.
const ZERO: Register = 31;
