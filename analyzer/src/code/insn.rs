//! What an instruction means to us, whatever the machine: where control goes, what it refers to, and what it does to the
//! values that may become a system call's number or argument. A decoder gives these; nothing below knows a mnemonic.

/// A general register by its number in the machine's encoding.
pub(super) type Register = u8;

/// One instruction as the sweep sees it. A large program has millions, so that its parts stand packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Virtual address.
    pub(super) at: u64,
    /// Where control goes, or else what is referred to: no instruction does both.
    address: u64,
    kind: Kind,
    used: Option<Use>,
}

/// A [`Flow`] without its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Next,
    Padding,
    Call,
    CallIndirect,
    Jump,
    JumpIndirect,
    Branch,
    Stop,
    Syscall,
    Syscall32,
}

impl Step {
    pub(super) fn new(at: u64, flow: Flow, refers: Option<(Use, u64)>) -> Self {
        let (kind, target) = match flow {
            Flow::Next => (Kind::Next, None),
            Flow::Padding => (Kind::Padding, None),
            Flow::Call(to) => (Kind::Call, Some(to)),
            Flow::CallIndirect => (Kind::CallIndirect, None),
            Flow::Jump(to) => (Kind::Jump, Some(to)),
            Flow::JumpIndirect => (Kind::JumpIndirect, None),
            Flow::Branch(to) => (Kind::Branch, Some(to)),
            Flow::Stop => (Kind::Stop, None),
            Flow::Syscall => (Kind::Syscall, None),
            Flow::Syscall32 => (Kind::Syscall32, None),
        };
        let (used, address) = match (target, refers) {
            (Some(target), _) => (None, target),
            (None, Some((used, referred))) => (Some(used), referred),
            (None, None) => (None, 0),
        };
        Self { at, address, kind, used }
    }

    /// Where control goes.
    pub(super) fn flow(&self) -> Flow {
        match self.kind {
            Kind::Next => Flow::Next,
            Kind::Padding => Flow::Padding,
            Kind::Call => Flow::Call(self.address),
            Kind::CallIndirect => Flow::CallIndirect,
            Kind::Jump => Flow::Jump(self.address),
            Kind::JumpIndirect => Flow::JumpIndirect,
            Kind::Branch => Flow::Branch(self.address),
            Kind::Stop => Flow::Stop,
            Kind::Syscall => Flow::Syscall,
            Kind::Syscall32 => Flow::Syscall32,
        }
    }

    /// An address or address-like constant that stands in the instruction, and how it is used.
    pub(super) fn refers(&self) -> Option<(Use, u64)> {
        self.used.map(|used| (used, self.address))
    }
}

/// Where control goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// On to the next instruction.
    Next,
    /// No effect at all: padding between functions.
    Padding,
    /// A call of a known address; control comes back.
    Call(u64),
    /// A call through a register or memory.
    CallIndirect,
    /// A jump that is always taken.
    Jump(u64),
    /// A jump through a register or memory.
    JumpIndirect,
    /// A jump that may be taken.
    Branch(u64),
    /// Return, trap: control does not go on.
    Stop,
    /// The machine's native system call.
    Syscall,
    /// `int 0x80`: the system call table of 32-bit x86.
    Syscall32,
}

/// How an instruction uses an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Use {
    /// The address itself is computed: a pointer is taken.
    Take,
    /// Memory there is read or written.
    Access,
    /// A constant that may be an address, in code that is linked to a fixed place.
    Constant,
}

/// What an instruction does to registers and stack, for the evaluation of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// `to` becomes a constant.
    Set { to: Register, value: u64 },
    /// The lowest byte of `to` becomes a constant.
    SetByte { to: Register, value: u8 },
    /// `to` becomes what `from` is, at most `bits` wide, plus `plus`.
    Copy { to: Register, from: Register, plus: i64, bits: u32 },
    /// `to` may become what `from` is, or stays.
    Select { to: Register, from: Register },
    /// `to` becomes one of two registers' values.
    Either { to: Register, one: Register, other: Register },
    /// `to` becomes what memory at `base + offset` holds.
    Load { to: Register, base: Register, offset: i64, bits: u32 },
    /// `to` becomes what memory at a fixed address holds.
    LoadStatic { to: Register, from: u64, bits: u32 },
    /// Memory at `base + offset` becomes what `from` is.
    Store { from: Register, base: Register, offset: i64 },
    /// Memory at `base + offset` becomes a constant.
    StoreConstant { value: u64, base: Register, offset: i64 },
    /// `to` becomes something not followed.
    Forget { to: Register },
}

/// A machine: how its code is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) enum Machine {
    /// x86-64.
    X86_64,
    /// AArch64.
    Aarch64,
}

impl Machine {
    /// The machine of an ELF header's `e_machine`, where it is one we decode.
    pub(crate) fn of(e_machine: u16) -> Option<Self> {
        match e_machine {
            62 => Some(Self::X86_64),
            183 => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// How many general registers there are, the stack pointer among them.
    pub(super) fn registers(self) -> usize {
        match self {
            Self::X86_64 => 16,
            Self::Aarch64 => 32,
        }
    }

    /// The stack pointer.
    pub(super) fn stack(self) -> Register {
        match self {
            Self::X86_64 => 4,
            Self::Aarch64 => 31,
        }
    }

    /// The register that holds a system call's number at the instruction.
    pub(super) fn number(self) -> Register {
        match self {
            Self::X86_64 => 0,
            Self::Aarch64 => 8,
        }
    }

    /// The registers of a C function's first arguments (System V psABI; AAPCS64).
    pub(super) fn arguments(self) -> &'static [Register] {
        match self {
            Self::X86_64 => &[7, 6, 2, 1, 8, 9],
            Self::Aarch64 => &[0, 1, 2, 3, 4, 5, 6, 7],
        }
    }

    /// The registers of a system call's arguments (syscall(2)).
    pub(super) fn call_arguments(self) -> &'static [Register] {
        match self {
            Self::X86_64 => &[7, 6, 2, 10, 8, 9],
            Self::Aarch64 => &[0, 1, 2, 3, 4, 5],
        }
    }

    /// Registers whose value does not survive a call by the C conventions.
    pub(super) fn lost_in_calls(self) -> &'static [Register] {
        match self {
            Self::X86_64 => &[0, 1, 2, 6, 7, 8, 9, 10, 11],
            Self::Aarch64 => &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 30],
        }
    }

    /// Bytes that a call pushes on the stack.
    pub(super) fn pushed_by_call(self) -> i64 {
        match self {
            Self::X86_64 => 8,
            Self::Aarch64 => 0,
        }
    }
}
