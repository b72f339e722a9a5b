//! x86-64: bytes in, [`Step`]s and [`Effect`]s out. Decoding is iced-x86's.

use iced_x86::{
    Code, ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    InstructionInfoOptions, Mnemonic, OpAccess, OpKind, Register as Name,
};

use super::insn::{Effect, Flow, Register, Step, Use};

/// Sweeps code from its first byte to its last.
pub(super) fn sweep(bytes: &[u8], start: u64, mut on: impl FnMut(Step)) {
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        on(step(&instruction));
    }
}

/// Decodes code with what each instruction does to registers and stack.
pub(super) fn effects(bytes: &[u8], start: u64, mut on: impl FnMut(Step, &[Effect])) {
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut info = InstructionInfoFactory::new();
    let mut effects = Vec::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        effects.clear();
        effect(&instruction, &mut info, &mut effects);
        on(step(&instruction), &effects);
    }
}

fn step(instruction: &Instruction) -> Step {
    let flow = match instruction.code() {
        Code::Syscall => Flow::Syscall,
        Code::Int_imm8 if instruction.immediate8() == 0x80 => Flow::Syscall32,
        Code::Nopd | Code::Nopw | Code::Nopq | Code::Nop_rm16 | Code::Nop_rm32 | Code::Nop_rm64 | Code::Int3 => {
            Flow::Padding
        }
        Code::INVALID => Flow::Stop,
        _ => match instruction.flow_control() {
            FlowControl::Next | FlowControl::XbeginXabortXend => Flow::Next,
            FlowControl::UnconditionalBranch => Flow::Jump(instruction.near_branch_target()),
            FlowControl::ConditionalBranch => Flow::Branch(instruction.near_branch_target()),
            FlowControl::Call if instruction.code() == Code::Call_rel32_64 => {
                Flow::Call(instruction.near_branch_target())
            }
            FlowControl::Call | FlowControl::IndirectCall => Flow::CallIndirect,
            FlowControl::IndirectBranch => Flow::JumpIndirect,
            FlowControl::Return | FlowControl::Exception | FlowControl::Interrupt => Flow::Stop,
        },
    };
    let refers = if flow == Flow::Padding { None } else { refers(instruction) };
    Step::new(instruction.ip(), flow, refers)
}

fn refers(instruction: &Instruction) -> Option<(Use, u64)> {
    if instruction.memory_base() == Name::RIP {
        let used = if instruction.mnemonic() == Mnemonic::Lea { Use::Take } else { Use::Access };
        return Some((used, instruction.ip_rel_memory_address()));
    }
    for operand in 0..instruction.op_count() {
        let value = match instruction.op_kind(operand) {
            OpKind::Immediate32 => u64::from(instruction.immediate32()),
            OpKind::Immediate64 => instruction.immediate64(),
            OpKind::Immediate32to64 => u64::try_from(instruction.immediate32to64()).unwrap_or(0),
            // `table(,%rax,8)`, as code linked to a fixed place has it.
            OpKind::Memory if instruction.memory_displ_size() >= 4 => instruction.memory_displacement64(),
            _ => continue,
        };
        if value >= LOWEST_ADDRESS {
            return Some((Use::Constant, value));
        }
    }
    None
}

fn effect(instruction: &Instruction, info: &mut InstructionInfoFactory, out: &mut Vec<Effect>) {
    let register =
        |operand| (instruction.op_kind(operand) == OpKind::Register).then(|| instruction.op_register(operand));
    let wide = |name: Name| (name.is_gpr32() || name.is_gpr64()).then(|| number(name));
    let bits = |name: Name| if name.is_gpr32() { 32 } else { 64 };
    let memory = |operand: u32| {
        let is_plain = instruction.op_kind(operand) == OpKind::Memory && instruction.memory_index() == Name::None;
        let base = instruction.memory_base();
        (is_plain && base.is_gpr64()).then(|| (number(base), instruction.memory_displacement64().cast_signed()))
    };
    let constant = |operand: u32| match instruction.op_kind(operand) {
        OpKind::Immediate8
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32
        | OpKind::Immediate32to64
        | OpKind::Immediate64 => Some(instruction.immediate(operand)),
        _ => None,
    };
    let to = register(0).and_then(|name| Some((wide(name)?, bits(name))));
    match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movsxd => {
            if let (Some(name), OpKind::Immediate8) = (register(0).filter(|name| is_low(*name)), instruction.op1_kind())
            {
                let value = instruction.immediate8();
                out.push(Effect::SetByte { to: number(name), value });
                return;
            } else if let Some((to, width)) = to {
                let from = register(1).and_then(|name| Some((wide(name)?, bits(name))));
                if let Some(value) = constant(1) {
                    out.push(Effect::Set { to, value: truncate(value, width) });
                    return;
                } else if let Some((from, from_bits)) = from {
                    out.push(Effect::Copy { to, from, plus: 0, bits: from_bits.min(width) });
                    return;
                } else if let Some((base, offset)) = memory(1) {
                    let bits = if instruction.mnemonic() == Mnemonic::Movsxd { 32 } else { width };
                    out.push(Effect::Load { to, base, offset, bits });
                    return;
                } else if instruction.memory_base() == Name::RIP {
                    let from = instruction.ip_rel_memory_address();
                    out.push(Effect::LoadStatic {
                        to,
                        from,
                        bits: if instruction.mnemonic() == Mnemonic::Movsxd { 32 } else { width },
                    });
                    return;
                }
            } else if let Some((base, offset)) = memory(0) {
                if let Some(value) = constant(1) {
                    out.push(Effect::StoreConstant { value, base, offset });
                    return;
                } else if let Some(from) = register(1).and_then(wide) {
                    out.push(Effect::Store { from, base, offset });
                    return;
                }
            }
        }
        Mnemonic::Lea => {
            if let Some((to, _)) = to {
                if instruction.memory_base() == Name::RIP {
                    out.push(Effect::Set { to, value: instruction.ip_rel_memory_address() });
                    return;
                } else if let Some((from, plus)) = memory(1) {
                    out.push(Effect::Copy { to, from, plus, bits: 64 });
                    return;
                }
            }
        }
        Mnemonic::Xor | Mnemonic::Sub if register(0).is_some() && register(0) == register(1) => {
            if let Some((to, _)) = to {
                out.push(Effect::Set { to, value: 0 });
                return;
            }
        }
        Mnemonic::Add | Mnemonic::Sub => {
            if let (Some((to, width)), Some(value)) = (to, constant(1)) {
                let value = value.cast_signed();
                let plus = if instruction.mnemonic() == Mnemonic::Add { value } else { value.wrapping_neg() };
                out.push(Effect::Copy { to, from: to, plus, bits: width });
                return;
            }
        }
        Mnemonic::Or => {
            if let (Some((to, width)), Some(u64::MAX)) = (to, constant(1)) {
                out.push(Effect::Set { to, value: truncate(u64::MAX, width) });
                return;
            }
        }
        Mnemonic::Push => {
            out.push(Effect::Copy { to: STACK, from: STACK, plus: -8, bits: 64 });
            match (register(0).and_then(wide), constant(0)) {
                (Some(from), _) => out.push(Effect::Store { from, base: STACK, offset: 0 }),
                (None, Some(value)) => out.push(Effect::StoreConstant { value, base: STACK, offset: 0 }),
                _ => {}
            }
            return;
        }
        Mnemonic::Pop => {
            if let Some((to, _)) = to {
                out.push(Effect::Load { to, base: STACK, offset: 0, bits: 64 });
            }
            out.push(Effect::Copy { to: STACK, from: STACK, plus: 8, bits: 64 });
            return;
        }
        Mnemonic::Leave => {
            out.push(Effect::Copy { to: STACK, from: FRAME, plus: 0, bits: 64 });
            out.push(Effect::Load { to: FRAME, base: STACK, offset: 0, bits: 64 });
            out.push(Effect::Copy { to: STACK, from: STACK, plus: 8, bits: 64 });
            return;
        }
        Mnemonic::Xchg => {
            if let (Some((one, _)), Some(other)) = (to, register(1).and_then(wide)) {
                if one != other {
                    out.extend([one, other].map(|to| Effect::Either { to, one, other }));
                }
                return;
            }
        }
        Mnemonic::Call | Mnemonic::Syscall | Mnemonic::Ret => return,
        _ if instruction.condition_code() != ConditionCode::None => {
            if let (Some((to, _)), Some(from)) = (to, register(1).and_then(wide)) {
                out.push(Effect::Select { to, from });
                return;
            }
        }
        _ => {}
    }
    let registers = info.info_options(instruction, InstructionInfoOptions::NO_MEMORY_USAGE);
    for used in registers.used_registers() {
        let writes = matches!(
            used.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        if writes && used.register().is_gpr() {
            out.push(Effect::Forget { to: number(used.register()) });
        }
    }
}

/// The lowest byte of a register: not `ah` and its like.
fn is_low(name: Name) -> bool {
    name.is_gpr8() && !matches!(name, Name::AH | Name::BH | Name::CH | Name::DH)
}

fn number(name: Name) -> Register {
    u8::try_from(name.full_register().number()).unwrap_or(0)
}

fn truncate(value: u64, bits: u32) -> u64 {
    if bits == 32 { value & 0xffff_ffff } else { value }
}

const STACK: Register = 4;
const FRAME: Register = 5;
/// Nothing is linked below the first page of a usual program.
const LOWEST_ADDRESS: u64 = 0x1000;
