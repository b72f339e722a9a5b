//! The summary of one ELF file: its functions and data objects as nodes, what each refers to, and the system calls that each
//! makes by itself. It depends on nothing outside the file, so one summary serves every process that maps it.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};

use serde::{Deserialize, Serialize};

use super::{
    aarch64,
    binary::{Binary, Pointer, SymbolKind},
    insn::{Flow, Machine, Step, Use},
    loops::Loops,
    numbers,
    sites::{self, Site},
    tables::{self, Tables},
    x86,
};
use crate::words::Words;

/// A summary. Nodes are numbered: functions first, by address, then objects, by address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Module {
    pub(crate) machine: Machine,
    /// Functions, sorted.
    pub(super) functions: Vec<Function>,
    /// What each node refers to.
    pub(super) edges: Vec<Vec<Edge>>,
    /// What functions call inside their loops.
    pub(super) looped: BTreeMap<Node, Vec<Edge>>,
    /// Names that other files define.
    pub(super) imports: Vec<String>,
    /// Names that other files may bind to, with the node.
    pub(super) exports: BTreeMap<String, Vec<Export>>,
    /// Files it needs, and its own name, as the loader matches them.
    pub(super) needed: Vec<String>,
    pub(super) soname: Option<String>,
    /// The entry point.
    pub(super) entry: Option<Node>,
    /// Functions that the loader calls by itself.
    pub(super) initial: Vec<Node>,
    /// System calls by the function that makes them.
    pub(super) sites: BTreeMap<Node, Vec<Site>>,
    /// Arguments given to functions of interest, by the function that calls.
    pub(super) calls: Vec<sites::Call>,
    /// Arguments at the instructions themselves, of system calls of interest.
    pub(super) raw: Vec<sites::Call>,
    /// Paths that functions and objects name.
    pub(super) paths: Vec<sites::Named>,
    /// Command lines of a shell that functions and objects name.
    pub(super) lines: Vec<sites::Named>,
    /// Functions that the program looks up by a name it is called by.
    pub(super) tables: Vec<Table>,
    /// Functions of Python's modules, by the names that scripts use.
    pub(super) python: Vec<Table>,
    /// The words in the data of a file that is written for Python: it may look functions of others up by them.
    pub(super) words: Words,
    pub(super) scheduling: Scheduling,
}

/// Functions looked up by name: the object that holds the pointer, the name, the function; sorted.
pub(super) type Table = Vec<(Node, String, Node)>;

/// How a C library changes the scheduling of threads on behalf of attributes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Scheduling {
    /// The functions that make the system calls.
    pub(super) called: BTreeSet<Node>,
    /// The functions that call them only for attributes.
    pub(super) callers: BTreeSet<Node>,
    /// Places of functions that make such calls by themselves.
    pub(super) places: BTreeSet<u64>,
}

/// The number of a function or object.
pub(super) type Node = u32;

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Function {
    pub(super) at: u64,
    pub(super) end: u64,
    /// Where it stands in the file.
    pub(super) offset: u64,
    /// Its name, where a symbol or Go's table gives one.
    pub(super) name: Option<String>,
}

/// A name that others bind to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Export {
    pub(super) node: Node,
    /// Binding calls it, and takes what it returns.
    pub(super) is_resolver: bool,
    pub(super) is_old_version: bool,
}

/// What a node refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Edge {
    /// It calls, jumps or falls into a function.
    Call(Node),
    /// Its code takes the address of a function.
    Take(Node),
    /// It refers to a data object.
    Data(Node),
    /// An object holds a pointer to a function.
    Points(Node),
    /// Code binds to a name, to call it or to take its address.
    Import(u32),
    /// An object holds a pointer to a name.
    PointsImport(u32),
}

/// Summarizes a file; none where it has more code than memory should be given to.
pub(super) fn summarize(binary: &Binary) -> Option<Module> {
    let (starts, extents) = (known_starts(binary), extents(binary));
    let (steps, loops) = sweep(binary, &starts, &extents)?;
    let layout = Layout::new(binary, starts, &extents, &steps);
    let mut names = names(binary);
    let functions: Vec<Function> = layout
        .functions
        .iter()
        .map(|(at, end)| Function {
            at: *at,
            end: *end,
            offset: binary.offset_of(*at).unwrap_or(0),
            name: names.remove(at),
        })
        .collect();
    drop(names);
    let ((edges, looped, tables), found) = thread::scope(|scope| {
        let edges = scope.spawn(|| edges(binary, &layout, &steps, &loops));
        let found = sites::find(binary, &layout, &steps, &functions);
        (edges.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), found)
    });
    let sites::Found { sites, calls, raw, paths, lines } = found;
    let mut exports = BTreeMap::<String, Vec<Export>>::new();
    for symbol in binary.symbols.iter().filter(|symbol| symbol.is_exported) {
        let node = if symbol.kind == SymbolKind::Data && !binary.is_code(symbol.at) {
            layout.object(symbol.at)
        } else {
            layout.function(symbol.at)
        };
        let Some(node) = node else { continue };
        let is_resolver = symbol.kind == SymbolKind::Resolver;
        let list = exports.entry(symbol.name.clone()).or_default();
        list.push(Export { node, is_resolver, is_old_version: symbol.is_old_version });
    }
    let scheduling = scheduling(binary.machine, &exports, &sites, &functions);
    Some(Module {
        scheduling,
        machine: binary.machine,
        entry: layout.function(binary.entry).filter(|_| binary.entry != 0),
        initial: binary.initial.iter().filter_map(|at| layout.function(*at)).collect(),
        needed: binary.needed.clone(),
        soname: binary.soname.clone(),
        functions,
        edges,
        looped,
        imports: binary.imports.clone(),
        exports,
        sites,
        calls,
        raw,
        paths,
        lines,
        tables: tables.own.iter().map(|table| held(table, &layout)).collect(),
        python: tables.python.iter().map(|table| held(table, &layout)).collect(),
        words: python_words(binary),
    })
}

/// What each node refers to, what functions call inside their loops, and the functions that are looked up by name.
fn edges(
    binary: &Binary,
    layout: &Layout,
    steps: &[Step],
    loops: &Loops,
) -> (Vec<Vec<Edge>>, BTreeMap<Node, Vec<Edge>>, Tables) {
    let mut edges = vec![Vec::new(); layout.functions.len().saturating_add(layout.objects.len())];
    let tables = tables::find(binary, layout);
    let mut looped = BTreeMap::<Node, Vec<Edge>>::new();
    code_edges(binary, layout, steps, |at, node, edge| {
        if let Some(list) = edges.get_mut(node as usize) {
            list.push(edge);
        }
        if matches!(edge, Edge::Call(_) | Edge::Import(_)) && loops.contains(at) {
            looped.entry(node).or_default().push(edge);
        }
    });
    data_edges(binary, layout, &tables, &mut edges);
    for list in edges.iter_mut().chain(looped.values_mut()) {
        list.sort_unstable();
        list.dedup();
    }
    (edges, looped, tables)
}

/// glibc's functions that change how a thread is scheduled, and the places where other functions of it do so by themselves:
/// `pthread_create` by the attributes of the new thread, the mutexes by their protocol, `posix_spawn` by its attributes.
fn scheduling(
    machine: Machine,
    exports: &BTreeMap<String, Vec<Export>>,
    sites: &BTreeMap<Node, Vec<Site>>,
    functions: &[Function],
) -> Scheduling {
    // A program that brings its C library along exports nothing of it.
    let nodes = |is_meant: &dyn Fn(&str) -> bool| -> BTreeSet<Node> {
        let exported = exports.iter().filter(|(name, _)| is_meant(name)).flat_map(|(_, list)| list);
        let inner = functions.iter().zip(0..).filter(|(function, _)| function.name.as_deref().is_some_and(is_meant));
        exported.map(|export| export.node).chain(inner.map(|(_, node)| node)).collect()
    };
    if ["pthread_create", "sched_setscheduler"].iter().any(|name| nodes(&|found| found == *name).is_empty()) {
        return Scheduling::default();
    }
    let named = nodes(&|name| name.contains("sched") || name.contains("affinity"));
    let asks = |site: &Site| {
        let asked = |number: &u32| numbers::name(machine, *number).is_some_and(|name| SCHEDULING.contains(&name));
        !site.numbers.is_empty() && site.numbers.iter().all(asked)
    };
    let inlined = sites.iter().filter(|(node, _)| !named.contains(node));
    let places = inlined.flat_map(|(_, sites)| sites).filter(|site| asks(site)).map(|site| site.at).collect();
    let called = nodes(&|name| SCHEDULING.contains(&name));
    let callers = (0..).take(functions.len()).filter(|node| !named.contains(node)).collect();
    Scheduling { called, callers, places }
}

/// A table with the objects that hold its pointers.
fn held(table: &tables::Table, layout: &Layout) -> Table {
    let object = |(at, name, to): &(u64, String, Node)| Some((layout.object(*at)?, name.clone(), *to));
    let mut held: Table = table.entries.iter().filter_map(object).collect();
    held.sort_unstable();
    held
}

/// Texts that are names, in the data of a file that binds to Python.
fn python_words(binary: &Binary) -> Words {
    let is_for_python = binary.imports.iter().any(|name| name.starts_with("Py") || name.starts_with("_Py"));
    let segments = binary.segments.iter().filter(|segment| is_for_python && !segment.is_code);
    let texts = segments.flat_map(|segment| segment.bytes.split(|byte| *byte == 0));
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
    let names = texts.filter(|text| (3..=40).contains(&text.len()) && text.iter().all(is_part));
    names
        .flat_map(|text| text.split(|byte| *byte == b'.'))
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// Where functions and objects begin and end.
#[derive(Debug)]
pub(super) struct Layout {
    /// Start and end, sorted.
    pub(super) functions: Vec<(u64, u64)>,
    objects: Vec<u64>,
    /// Stubs that jump through a slot, by their addresses, sorted.
    stubs: Vec<(u64, u64)>,
}

/// The function that was asked for last: instructions are mostly looked at one after the other.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    layout: &'a Layout,
    last: Option<(Node, (u64, u64))>,
}

impl Cursor<'_> {
    /// The function that an address lies in, with its start and end.
    pub(super) fn function(&mut self, at: u64) -> Option<(Node, (u64, u64))> {
        if let Some((_, (start, end))) = self.last
            && (start..end).contains(&at)
        {
            return self.last;
        }
        let node = self.layout.function(at)?;
        self.last = self.layout.functions.get(node as usize).map(|extent| (node, *extent));
        self.last
    }
}

impl Layout {
    fn new(binary: &Binary, mut starts: Vec<u64>, extents: &[(u64, u64)], steps: &[Step]) -> Self {
        // What is called and lies in no function whose extent the file tells.
        let framed = |at: u64| extent_of(extents, at).is_some();
        // What is jumped to from a function that does not hold it: a call in last place, or a tail that several share.
        let leaves = |at: u64, to: u64| match extent_of(extents, at) {
            Some((start, end)) => !(start..end).contains(&to),
            None => starts.partition_point(|start| *start <= at) != starts.partition_point(|start| *start <= to),
        };
        let targets = steps.iter().filter_map(|step| match step.flow() {
            Flow::Call(to) => Some(to),
            Flow::Jump(to) if leaves(step.at, to) => Some(to),
            _ => None,
        });
        let pointed = binary.pointers.iter().filter_map(|(_, pointer)| match pointer {
            Pointer::Here(to) | Pointer::Resolved(to) => Some(*to),
            Pointer::Import(_) => None,
        });
        // In a program linked to a fixed place no relocation tells what is a pointer: each word and constant may be one.
        let fixed = Some(binary).filter(|binary| !binary.is_movable);
        let words = fixed.into_iter().flat_map(words).take(MAX_WORDS).map(|(_, to)| to);
        let constants = steps.iter().filter_map(|step| match step.refers() {
            Some((Use::Take, to)) => Some(to),
            Some((Use::Constant, to)) if fixed.is_some() => Some(to),
            _ => None,
        });
        let candidates = targets.chain(pointed).chain(words).chain(constants);
        let aligned = |at: &u64| binary.machine == Machine::X86_64 || at & 3 == 0;
        let known = starts.clone();
        let more: Vec<u64> = candidates.filter(|at| binary.is_code(*at) && aligned(at) && !framed(*at)).collect();
        starts.extend(more);
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).copied().chain([u64::MAX]);
        let is_data = |at: &u64| {
            let is_told = known.binary_search(at).is_ok();
            binary.machine == Machine::Aarch64 && !is_told && aarch64::is_data(binary.bytes_at(*at))
        };
        let functions: Vec<(u64, u64)> = starts
            .iter()
            .zip(ends)
            .filter(|(start, _)| !is_data(start))
            .map(|(start, next)| {
                let end = binary.segment_of(*start).map_or(*start, |segment| segment.start.saturating_add(segment.len));
                (*start, next.min(end))
            })
            .collect();
        let mut layout = Self { functions, objects: Vec::new(), stubs: stubs(binary, steps) };
        layout.objects = objects(binary, steps, &layout);
        layout
    }

    pub(super) fn cursor(&self) -> Cursor<'_> {
        Cursor { layout: self, last: None }
    }

    /// The function that an address lies in.
    pub(super) fn function(&self, at: u64) -> Option<Node> {
        let after = self.functions.partition_point(|(start, _)| *start <= at);
        let index = after.checked_sub(1)?;
        self.functions.get(index).filter(|(_, end)| at < *end)?;
        Node::try_from(index).ok()
    }

    fn is_start(&self, at: u64) -> bool {
        self.functions.binary_search_by_key(&at, |(start, _)| *start).is_ok()
    }

    /// An object begins at an address.
    pub(super) fn is_object(&self, at: u64) -> bool {
        self.objects.binary_search(&at).is_ok()
    }

    /// The object that an address lies in.
    pub(super) fn object(&self, at: u64) -> Option<Node> {
        let after = self.objects.partition_point(|start| *start <= at);
        Node::try_from(self.functions.len().checked_add(after.checked_sub(1)?)?).ok()
    }

    /// The slot that a stub at an address jumps through.
    pub(super) fn stub(&self, at: u64) -> Option<u64> {
        let ((first, _), (last, _)) = self.stubs.first().zip(self.stubs.last())?;
        if !(*first..=*last).contains(&at) {
            return None;
        }
        let index = self.stubs.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        self.stubs.get(index).map(|(_, slot)| *slot)
    }
}

/// Starts that the file tells.
fn known_starts(binary: &Binary) -> Vec<u64> {
    let symbols = binary.symbols.iter().filter(|symbol| symbol.kind != SymbolKind::Data).map(|symbol| symbol.at);
    let frames = binary.frames.iter().map(|(at, _)| *at);
    let go = binary.go.iter().map(|function| function.at);
    let mut starts: Vec<u64> = symbols.chain(frames).chain(go).chain(binary.initial.iter().copied()).collect();
    starts.push(binary.entry);
    starts.retain(|at| binary.is_code(*at));
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Start and end of the functions whose extent the file tells, sorted.
fn extents(binary: &Binary) -> Vec<(u64, u64)> {
    let frames = binary.frames.iter().map(|(at, len)| (*at, at.saturating_add(*len)));
    let symbols = binary.symbols.iter().filter(|symbol| symbol.kind != SymbolKind::Data && symbol.len != 0);
    let symbols = symbols.map(|symbol| (symbol.at, symbol.at.saturating_add(symbol.len)));
    let go = binary.go.iter().zip(binary.go.iter().skip(1)).map(|(one, next)| (one.at, next.at));
    let mut extents: Vec<(u64, u64)> = frames.chain(symbols).chain(go).collect();
    extents.sort_unstable();
    extents
}

/// The extent that an address lies in.
fn extent_of(extents: &[(u64, u64)], at: u64) -> Option<(u64, u64)> {
    let after = extents.partition_point(|(start, _)| *start <= at);
    extents.get(after.checked_sub(1)?).copied().filter(|(_, end)| at < *end)
}

/// Decodes all code once, in order, set right again at each known start.
fn sweep(binary: &Binary, starts: &[u64], extents: &[(u64, u64)]) -> Option<(Vec<Step>, Loops)> {
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    for segment in binary.code() {
        let end = segment.start.saturating_add(segment.bytes.len() as u64);
        let within = starts.partition_point(|at| *at < segment.start)..starts.partition_point(|at| *at < end);
        let inside = starts.get(within).unwrap_or_default().iter().copied();
        let mut cuts: Vec<u64> = [segment.start].into_iter().chain(inside).collect();
        cuts.dedup();
        let ends = cuts.iter().skip(1).copied().chain([end]);
        pieces.extend(cuts.iter().copied().zip(ends));
    }
    // One half beside the other.
    let bytes = |pieces: &[(u64, u64)]| pieces.iter().map(|(from, to)| to.saturating_sub(*from)).sum::<u64>();
    let all = bytes(&pieces);
    let mut before = 0u64;
    let half = pieces.partition_point(|(from, to)| {
        before = before.saturating_add(to.saturating_sub(*from));
        before <= all / 2
    });
    let (first, second) = pieces.split_at(half);
    // One instruction in three or four is kept; growing by doubling would hold three times the memory.
    let room = |bytes: u64| usize::try_from(bytes / 14).unwrap_or(0).min(MAX_STEPS);
    let mut steps = Vec::with_capacity(room(all));
    let (loops, (more, others)) = thread::scope(|scope| {
        let more = scope.spawn(|| {
            let mut steps = Vec::with_capacity(room(bytes(second)));
            let loops = decode(binary, second, extents, &mut steps);
            (steps, loops)
        });
        let loops = decode(binary, first, extents, &mut steps);
        (loops, more.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    steps.extend(more);
    (steps.len() < MAX_STEPS).then(|| (steps, loops.join(others)))
}

/// Decodes pieces of code, each from its start, and gives their loops.
fn decode(binary: &Binary, pieces: &[(u64, u64)], extents: &[(u64, u64)], steps: &mut Vec<Step>) -> Loops {
    let mut loops = Loops::default();
    for (from, to) in pieces {
        let bytes = binary.bytes_at(*from);
        let len = usize::try_from(to.saturating_sub(*from)).unwrap_or(0);
        let bytes = bytes.get(..len).unwrap_or(bytes);
        // What stays inside a function and refers to nothing says nothing; but the last instruction tells whether control
        // runs on.
        let inside = extent_of(extents, *from).map_or(*from..*from, |(start, end)| start..end);
        let mut last = None;
        let keep = |step: Step| {
            let stays = match step.flow() {
                Flow::Next | Flow::Padding => true,
                Flow::Jump(target) | Flow::Branch(target) => {
                    loops.note(*from, step.at, target);
                    inside.contains(&target)
                }
                _ => false,
            };
            if !stays || step.refers().is_some() {
                if steps.len() < MAX_STEPS {
                    steps.push(step);
                }
                last = None;
            } else if step.flow() != Flow::Padding {
                last = Some(step);
            }
        };
        match binary.machine {
            Machine::X86_64 => x86::sweep(bytes, *from, keep),
            Machine::Aarch64 => aarch64::sweep(bytes, *from, keep),
        }
        steps.extend(last);
        if steps.len() >= MAX_STEPS {
            break;
        }
    }
    loops
}

/// `jmp *slot`, alone or after a landing mark, is how code reaches another file (psABI, procedure linkage table).
fn stubs(binary: &Binary, steps: &[Step]) -> Vec<(u64, u64)> {
    let mut stubs = BTreeMap::new();
    for step in steps {
        let (Flow::JumpIndirect, Some((Use::Access, slot))) = (step.flow(), step.refers()) else { continue };
        if binary.slots.binary_search(&slot).is_err() {
            continue;
        }
        stubs.insert(step.at, slot);
        if binary.machine == Machine::Aarch64 {
            // adrp, ldr, add, br; a landing mark may stand first.
            stubs.extend([12, 16].map(|before| (step.at.saturating_sub(before), slot)));
            continue;
        }
        // endbr64, four bytes, stands before it where branch targets are marked.
        let before = step.at.saturating_sub(4);
        if binary.bytes_at(before).starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) {
            stubs.insert(before, slot);
        }
    }
    stubs.into_iter().collect()
}

/// Objects begin where a symbol does, where code takes an address, where a pointer leads, and at each slot.
fn objects(binary: &Binary, steps: &[Step], layout: &Layout) -> Vec<u64> {
    let is_data = |at: &u64| binary.segment_of(*at).is_some_and(|segment| !segment.is_code);
    let symbols = binary.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Data);
    let mut starts: Vec<u64> = symbols.flat_map(|symbol| [symbol.at, symbol.at.saturating_add(symbol.len)]).collect();
    starts.extend(steps.iter().filter_map(|step| match step.refers() {
        Some((Use::Take | Use::Constant, at)) => Some(at),
        _ => None,
    }));
    starts.extend(binary.pointers.iter().filter_map(|(_, pointer)| match pointer {
        Pointer::Here(to) => Some(*to),
        _ => None,
    }));
    starts.extend(binary.slots.iter().flat_map(|slot| [*slot, slot.saturating_add(8)]));
    starts.extend(binary.segments.iter().map(|segment| segment.start));
    if !binary.is_movable {
        starts.extend(fixed_pointers(binary, layout).filter(|(_, to)| !binary.is_code(*to)).map(|(_, to)| to));
    }
    starts.retain(is_data);
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Gives each edge with the instruction and the function that it stands in.
fn code_edges(binary: &Binary, layout: &Layout, steps: &[Step], mut note: impl FnMut(u64, Node, Edge)) {
    let mut last: Option<(Node, Flow, u64)> = None;
    let mut cursor = layout.cursor();
    for step in steps {
        let Some((node, (start, end))) = cursor.function(step.at) else { continue };
        let mut add = |edge: Edge| note(step.at, node, edge);
        if let Flow::Call(to) | Flow::Jump(to) | Flow::Branch(to) = step.flow()
            && !(start..end).contains(&to)
        {
            match layout.stub(to) {
                Some(slot) => through(binary, layout, slot, &mut add),
                None => layout.function(to).map(Edge::Call).into_iter().for_each(&mut add),
            }
        }
        match step.refers() {
            Some((_, at)) if binary.slots.binary_search(&at).is_ok() => {
                through(binary, layout, at, add);
            }
            Some((used, at)) if binary.is_code(at) => {
                // A constant counts only where it is the start of a function.
                let is_taken = used != Use::Access && !(start < at && at < end);
                if is_taken && let Some(slot) = layout.stub(at) {
                    through(binary, layout, slot, add);
                } else if is_taken
                    && (used == Use::Take || layout.is_start(at))
                    && let Some(to) = layout.function(at)
                {
                    add(Edge::Take(to));
                }
            }
            Some((used, at)) if used != Use::Constant || !binary.is_movable => {
                if binary.segment_of(at).is_some()
                    && let Some(object) = layout.object(at)
                {
                    add(Edge::Data(object));
                }
            }
            _ => {}
        }
        // The last instruction of a function decides whether it runs into the next.
        if let Some((before, flow, at)) = last
            && before != node
            && matches!(flow, Flow::Next | Flow::Branch(_) | Flow::Syscall | Flow::Syscall32)
            && before.checked_add(1) == Some(node)
            && !(flow == Flow::Syscall && ends(binary, at))
        {
            note(at, before, Edge::Call(node));
        }
        last = Some((node, step.flow(), step.at));
    }
}

/// Whether the system call at an address ends the thread, as the instruction before it tells: control does not come back.
fn ends(binary: &Binary, at: u64) -> bool {
    let before = |len: u64| binary.bytes_at(at.saturating_sub(len));
    let number = match binary.machine {
        // mov eax, imm32
        Machine::X86_64 => match before(5) {
            [0xb8, rest @ ..] => rest.first_chunk().copied().map(u32::from_le_bytes),
            _ => None,
        },
        // mov x8, #imm16
        Machine::Aarch64 => {
            let word = before(4).first_chunk().copied().map(u32::from_le_bytes);
            word.filter(|word| word & 0x7fe0_001f == 0x5280_0008).map(|word| word >> 5 & 0xffff)
        }
    };
    let name = number.and_then(|number| numbers::name(binary.machine, number));
    matches!(name, Some("exit" | "exit_group"))
}

/// What a reference through a slot of the global offset table comes to.
fn through(binary: &Binary, layout: &Layout, slot: u64, mut add: impl FnMut(Edge)) {
    match binary.pointer(slot) {
        Some(Pointer::Import(index)) => add(Edge::Import(index)),
        Some(Pointer::Here(to)) if !binary.is_code(to) => layout.object(to).map(Edge::Data).into_iter().for_each(add),
        Some(Pointer::Here(to) | Pointer::Resolved(to)) => {
            layout.function(to).map(Edge::Call).into_iter().for_each(add)
        }
        None => {}
    }
}

fn data_edges(binary: &Binary, layout: &Layout, tables: &Tables, edges: &mut [Vec<Edge>]) {
    // What is looked up by name is followed by name.
    let listed: BTreeSet<u64> = tables.pointers().collect();
    let mut add = |at: u64, edge: Edge| {
        if let Some(list) = layout.object(at).and_then(|node| edges.get_mut(node as usize)) {
            list.push(edge);
        }
    };
    let here = |to: u64| {
        if binary.is_code(to) { layout.function(to).map(Edge::Points) } else { layout.object(to).map(Edge::Data) }
    };
    for (at, pointer) in &binary.pointers {
        match pointer {
            Pointer::Here(_) if listed.contains(at) => {}
            Pointer::Here(to) => here(*to).into_iter().for_each(|edge| add(*at, edge)),
            Pointer::Resolved(to) => layout.function(*to).map(Edge::Call).into_iter().for_each(|edge| add(*at, edge)),
            Pointer::Import(index) => add(*at, Edge::PointsImport(*index)),
        }
    }
    if !binary.is_movable {
        for (at, to) in fixed_pointers(binary, layout).filter(|(at, _)| !listed.contains(at)) {
            here(to).into_iter().for_each(|edge| add(at, edge));
        }
    }
}

/// Words in the data of a program linked to a fixed place that are the start of a function or an address of its data.
pub(super) fn fixed_pointers<'a>(binary: &'a Binary, layout: &'a Layout) -> impl Iterator<Item = (u64, u64)> + 'a {
    words(binary).take(MAX_WORDS).filter(|(_, to)| !binary.is_code(*to) || layout.is_start(*to))
}

/// Aligned words of data whose value is an address of the program, with where they stand.
fn words(binary: &Binary) -> impl Iterator<Item = (u64, u64)> + '_ {
    binary.segments.iter().filter(|segment| !segment.is_code).flat_map(move |segment| {
        let skip = usize::try_from(segment.start.wrapping_neg() & 7).unwrap_or(0);
        let words = segment.bytes.get(skip..).unwrap_or_default().as_chunks::<8>().0;
        words.iter().enumerate().filter_map(move |(index, word)| {
            let to = u64::from_le_bytes(*word);
            binary.segment_of(to)?;
            Some((segment.start.saturating_add(skip.saturating_add(index.saturating_mul(8)) as u64), to))
        })
    })
}

fn names(binary: &Binary) -> BTreeMap<u64, String> {
    let symbols = binary.symbols.iter().filter(|symbol| symbol.kind != SymbolKind::Data);
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    for symbol in symbols {
        // The shortest of several names is the one people know: `open` rather than `__open64`.
        let name = names.entry(symbol.at).or_insert_with(|| symbol.name.clone());
        if symbol.name.len() < name.len() {
            name.clone_from(&symbol.name);
        }
    }
    names.extend(binary.go.iter().map(|function| (function.at, function.name.clone())));
    names
}

/// System calls that change or ask how a thread is scheduled.
const SCHEDULING: [&str; 7] = [
    "sched_getparam",
    "sched_setparam",
    "sched_getscheduler",
    "sched_setscheduler",
    "sched_get_priority_min",
    "sched_get_priority_max",
    "sched_setaffinity",
];
/// Instructions kept of one file: Node.js has two millions.
const MAX_STEPS: usize = 6_000_000;
/// Words that may be pointers in the data of a program linked to a fixed place: a large Go program has a million.
const MAX_WORDS: usize = 4_000_000;
