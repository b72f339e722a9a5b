//! What the drivers of compilers run: a command line and the image in, the tools' command lines out. A driver does nothing itself: it runs
//! the compiler proper of each source's language, the assembler and the linker, one after the other, with temporary files between
//! them.
//!
//! Sources: Using the GNU Compiler Collection, "Overall Options", "Directory Options", "Environment Variables"; GNU Compiler
//! Collection Internals, "Collect2"; Clang's "Driver Design & Internals"; as(1), ld(1).

use std::collections::BTreeSet;

use dna::{Confidence, ImagePath};

use crate::{
    InodeKind,
    closure::Process,
    shell::{Arg, World},
};

/// A tool that is run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tool {
    pub(crate) argv: Vec<Arg>,
    /// No surer than this.
    pub(crate) confidence: Confidence,
}

/// What a compiler's driver or tool does.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Compiles {
    pub(crate) tools: Vec<Tool>,
    /// Files it writes; none where who runs it tells a name that is not known.
    pub(crate) written: Vec<Arg>,
}

/// How a driver works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// GCC: every step is a program of its own.
    Gcc,
    /// Clang: compiles and assembles by itself.
    Clang,
}

/// A driver.
#[derive(Debug)]
struct Driver {
    name: &'static str,
    kind: Kind,
    /// The language of sources whose name does not tell it.
    language: &'static str,
    /// The preprocessor's output is all it is asked for.
    is_preprocessor: bool,
}

const fn driver(name: &'static str, kind: Kind, language: &'static str) -> Driver {
    Driver { name, kind, language, is_preprocessor: false }
}

const DRIVERS: &[Driver] = &[
    driver("gcc", Kind::Gcc, "c"),
    driver("cc", Kind::Gcc, "c"),
    driver("g++", Kind::Gcc, "c++"),
    driver("c++", Kind::Gcc, "c++"),
    driver("gfortran", Kind::Gcc, "f95"),
    driver("gdc", Kind::Gcc, "d"),
    driver("gccgo", Kind::Gcc, "go"),
    Driver { name: "cpp", kind: Kind::Gcc, language: "c", is_preprocessor: true },
    driver("clang", Kind::Clang, "c"),
    driver("clang++", Kind::Clang, "c++"),
    Driver { name: "clang-cpp", kind: Kind::Clang, language: "c", is_preprocessor: true },
];

/// GCC's compilers proper by language, as `-x` names it, and the endings of its sources.
const LANGUAGES: &[(&str, &str, &[&str])] = &[
    ("c", "cc1", &["c", "h", "i"]),
    ("c++", "cc1plus", &["cc", "cp", "cxx", "cpp", "CPP", "c++", "C", "ii", "hh", "hpp", "tcc"]),
    ("objective-c", "cc1obj", &["m", "mi"]),
    ("objective-c++", "cc1objplus", &["mm", "M", "mii"]),
    ("f95", "f951", &["f", "for", "ftn", "F", "FOR", "fpp", "FPP", "FTN", "f90", "f95", "f03", "f08", "F90", "F95"]),
    ("ada", "gnat1", &["ads", "adb"]),
    ("d", "d21", &["d", "di", "dd"]),
    ("go", "go1", &["go"]),
    ("modula-2", "cc1gm2", &["mod"]),
    // The compiler proper of C has the preprocessor in it.
    ("assembler-with-cpp", "cc1", &["S", "sx"]),
    ("assembler", "", &["s"]),
];

/// Options of a driver that take the next word.
const VALUED: &[&str] = &[
    "-o",
    "-x",
    "-I",
    "-L",
    "-l",
    "-D",
    "-U",
    "-B",
    "-T",
    "-u",
    "-z",
    "-e",
    "-include",
    "-imacros",
    "-isystem",
    "-iquote",
    "-idirafter",
    "-iprefix",
    "-isysroot",
    "-MF",
    "-MT",
    "-MQ",
    "-Xlinker",
    "-Xassembler",
    "-Xpreprocessor",
    "-Xclang",
    "-mllvm",
    "-target",
    "-arch",
    "--param",
    "-aux-info",
    "-dumpdir",
    "-dumpbase",
    "-dumpbase-ext",
    "-wrapper",
];

/// The last step that a command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Compile,
    Assemble,
    Link,
}

/// A driver's command line.
#[derive(Debug)]
struct Asked {
    last: Step,
    /// Languages of the sources; an empty name is an input that is none.
    languages: BTreeSet<String>,
    /// An input; none where its name is not known.
    inputs: Vec<Arg>,
    /// `-o`.
    output: Option<Arg>,
    /// Only told on the standard output.
    is_printed: bool,
    /// Options that the linker's tools look at.
    linking: Vec<Arg>,
    assembles_apart: bool,
}

/// What a process does as a driver of compilers or as a tool of one; none where it is neither.
pub(crate) fn of(process: &Process, world: World<'_>) -> Option<Compiles> {
    let own = String::from_utf8_lossy(process.program.file_name()).into_owned();
    let names = [own.as_str(), process.called().unwrap_or_default()];
    if let Some(tool) = names.iter().find_map(|name| tool(name)) {
        return Some(as_tool(tool, process, world));
    }
    let (driver, machine, version) = names.iter().find_map(|name| find(name))?;
    let words = process.argv.get(1..).unwrap_or_default();
    // Clang as its own compiler proper.
    if words.first().is_some_and(|word| matches!(word.as_deref(), Some("-cc1" | "-cc1as"))) {
        return Some(Compiles { tools: Vec::new(), written: output(words).into_iter().collect() });
    }
    let mut asked = read(words, driver.language);
    if driver.is_preprocessor {
        (asked.last, asked.is_printed) = (Step::Compile, true);
    }
    let mut places = Places::of(process, machine, version, world);
    if driver.kind == Kind::Clang {
        // What is installed beside it comes first.
        places.folders.splice(0..0, process.program.parent());
    }
    Some(as_driver(driver, &asked, &places, process, world))
}

/// A driver by its name, with the machine and version that are part of it: `x86_64-linux-gnu-gcc-12`.
fn find(name: &str) -> Option<(&'static Driver, Option<&str>, Option<&str>)> {
    let is_version = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let (stem, version) = match name.rsplit_once('-').filter(|(_, version)| is_version(version)) {
        Some((stem, version)) => (stem, Some(version)),
        None => (name, None),
    };
    DRIVERS.iter().find_map(|driver| {
        let before = stem.strip_suffix(driver.name)?;
        let machine = if before.is_empty() { None } else { Some(before.strip_suffix('-')?) };
        Some((driver, machine, version))
    })
}

/// The tool that a name stands for: `x86_64-linux-gnu-ld.bfd` is a linker.
fn tool(name: &str) -> Option<&'static str> {
    let last = name.rsplit_once('-').map_or(name, |(_, last)| last);
    let is_compiler = LANGUAGES.iter().any(|(_, compiler, _)| !compiler.is_empty() && *compiler == name);
    match last {
        "collect2" => Some("collect2"),
        "as" => Some("as"),
        "ld" | "ld.bfd" | "ld.gold" | "ld.lld" | "ld.mold" | "gold" | "lld" | "mold" => Some("ld"),
        _ if is_compiler => Some("cc1"),
        _ => None,
    }
}

fn as_tool(tool: &str, process: &Process, world: World<'_>) -> Compiles {
    let words = process.argv.get(1..).unwrap_or_default();
    if tool != "collect2" {
        return Compiles { tools: Vec::new(), written: output(words).into_iter().collect() };
    }
    let linker = linker(words);
    let places = Places::of(process, None, None, world);
    let argv = places.find(&linker, process, world).map(|path| [&[Some(path)], words].concat());
    let tools = argv.into_iter().map(|argv| Tool { argv, confidence: Confidence::Certain }).collect();
    Compiles { tools, written: vec![temporary(process, "")] }
}

fn as_driver(driver: &Driver, asked: &Asked, places: &Places, process: &Process, world: World<'_>) -> Compiles {
    let mut does = Compiles::default();
    if asked.inputs.is_empty() {
        return does; // `gcc --version`.
    }
    let confidence = if places.is_open { Confidence::Possible } else { Confidence::Certain };
    let run = |name: &str, rest: Vec<Arg>| {
        let argv = [vec![Some(places.find(name, process, world)?)], rest].concat();
        Some(Tool { argv, confidence })
    };
    let told = |step: Step, ending: &str| {
        let word = if step < asked.last { Some(temporary(process, ending)) } else { asked.output.clone() };
        word.map(|word| vec![Some("-o".to_owned()), word]).unwrap_or_default()
    };
    let has_sources = asked.languages.iter().any(|language| !language.is_empty());
    match driver.kind {
        Kind::Gcc => {
            let languages = LANGUAGES.iter().filter(|(language, ..)| asked.languages.contains(*language));
            let compilers = languages.map(|(_, compiler, _)| *compiler).filter(|compiler| !compiler.is_empty());
            does.tools.extend(compilers.filter_map(|compiler| run(compiler, told(Step::Compile, ".s"))));
        }
        // It compiles within its own process, unless there is more than one thing to do.
        Kind::Clang if has_sources => {
            let itself = process.program.to_string_lossy().into_owned();
            let argv = [vec![Some(itself), Some("-cc1".to_owned())], told(Step::Assemble, ".o")].concat();
            does.tools.push(Tool { argv, confidence: Confidence::Possible });
        }
        Kind::Clang => {}
    }
    if has_sources && asked.last >= Step::Assemble && (driver.kind == Kind::Gcc || asked.assembles_apart) {
        does.tools.extend(run("as", told(Step::Assemble, ".o")));
    }
    if asked.last == Step::Link {
        let linker = if driver.kind == Kind::Gcc { "collect2".to_owned() } else { linker(&asked.linking) };
        does.tools.extend(run(&linker, [asked.linking.clone(), told(Step::Link, "")].concat()));
    }
    if !asked.is_printed {
        does.written.push(temporary(process, ""));
        does.written.extend(named_output(asked));
    }
    does
}

/// What a driver writes in the end: the file named by `-o`, else one named after each input.
fn named_output(asked: &Asked) -> Vec<Arg> {
    let ending = match asked.last {
        Step::Link => return vec![asked.output.clone().unwrap_or_else(|| Some("a.out".to_owned()))],
        Step::Assemble => "o",
        Step::Compile => "s",
    };
    if let Some(output) = &asked.output {
        return vec![output.clone()];
    }
    let name = |input: &Arg| {
        let name = input.as_deref()?.rsplit('/').next()?;
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        Some(format!("{stem}.{ending}"))
    };
    asked.inputs.iter().map(name).collect()
}

fn read(words: &[Arg], language: &str) -> Asked {
    let mut asked = Asked {
        last: Step::Link,
        languages: BTreeSet::new(),
        inputs: Vec::new(),
        output: None,
        is_printed: false,
        linking: Vec::new(),
        assembles_apart: false,
    };
    let mut given: Option<String> = None;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let Some(text) = word.as_deref() else {
            asked.inputs.push(None);
            asked.languages.insert(given.clone().unwrap_or_else(|| language.to_owned()));
            continue;
        };
        match text {
            "-E" | "-M" | "-MM" | "-fsyntax-only" => {
                asked.last = Step::Compile;
                asked.is_printed = true;
            }
            "-S" => asked.last = asked.last.min(Step::Compile),
            "-c" => asked.last = asked.last.min(Step::Assemble),
            "-o" => asked.output = rest.next().cloned(),
            "-x" => given = rest.next().cloned().flatten().filter(|language| language != "none"),
            "-no-integrated-as" | "-fno-integrated-as" => asked.assembles_apart = true,
            "-" => {
                asked.inputs.push(Some(text.to_owned()));
                asked.languages.insert(given.clone().unwrap_or_else(|| language.to_owned()));
            }
            _ if text.starts_with("-fuse-ld=") => asked.linking.push(word.clone()),
            _ if VALUED.contains(&text) => {
                rest.next();
            }
            _ if text.starts_with('-') => {}
            _ => {
                let ending = text.rsplit_once('.').map_or("", |(_, ending)| ending);
                let of_ending = LANGUAGES.iter().find(|(_, _, endings)| endings.contains(&ending));
                // `g++` takes C for C++.
                let by_name = of_ending.map(|(known, ..)| if *known == "c" { language } else { known });
                asked.languages.insert(given.clone().or(by_name.map(str::to_owned)).unwrap_or_default());
                asked.inputs.push(word.clone());
            }
        }
    }
    asked
}

/// The linker that options choose.
fn linker(words: &[Arg]) -> String {
    let chosen = words.iter().flatten().find_map(|word| word.strip_prefix("-fuse-ld="));
    chosen.filter(|name| !name.contains('/')).map_or_else(|| "ld".to_owned(), |name| format!("ld.{name}"))
}

/// The file that a tool's `-o` names.
fn output(words: &[Arg]) -> Option<Arg> {
    let at = words.iter().position(|word| word.as_deref() == Some("-o"))?;
    words.get(at.saturating_add(1)).cloned()
}

/// Where temporary files stand between the steps: libiberty's `make_temp_file` names them `ccXXXXXX`.
fn temporary(process: &Process, ending: &str) -> Arg {
    let given = |name: &&str| process.env.get(*name).cloned().flatten().filter(|folder| folder.starts_with('/'));
    let folder = ["TMPDIR", "TMP", "TEMP"].iter().find_map(given).unwrap_or_else(|| "/tmp".to_owned());
    Some(format!("{}/cc*{ending}", folder.trim_end_matches('/')))
}

/// Where a driver looks for its tools, before the path.
struct Places {
    folders: Vec<ImagePath>,
    /// There are several versions, and which one it is of is not known.
    is_open: bool,
}

impl Places {
    /// `PREFIX/libexec/gcc/MACHINE/VERSION`, `PREFIX/lib/gcc/MACHINE/VERSION`, `PREFIX/MACHINE/bin`, of the prefix that the program is
    /// installed under, or the folder of the tool.
    fn of(process: &Process, machine: Option<&str>, version: Option<&str>, world: World<'_>) -> Self {
        let mut places = Self { folders: Vec::new(), is_open: false };
        let Some(folder) = process.program.parent() else { return places };
        let of_version = |folder: &ImagePath| {
            let machine = folder.parent()?;
            let gcc = machine.parent().filter(|gcc| gcc.file_name() == b"gcc")?;
            Some((gcc.parent()?.parent()?, String::from_utf8_lossy(machine.file_name()).into_owned()))
        };
        let (prefix, machines) = match of_version(&folder) {
            Some((prefix, machine)) => {
                places.folders.push(folder.clone());
                (prefix, BTreeSet::from([machine]))
            }
            None => {
                let Some(prefix) = folder.parent() else { return places };
                let found = versions(&prefix, machine, version, world);
                let different: BTreeSet<_> = found.iter().map(|(machine, number, _)| (machine, number)).collect();
                places.is_open = different.len() > 1;
                let machines = found.iter().map(|(machine, ..)| machine.clone()).collect();
                places.folders.extend(found.into_iter().map(|(.., folder)| folder));
                (prefix, machines)
            }
        };
        let of_machine = machines.iter().filter_map(|machine| prefix.join(format!("{machine}/bin").as_bytes()).ok());
        places.folders.extend(of_machine);
        places
    }

    /// A tool by its path, or by its name where the path leads to it; none where the image does not have it.
    fn find(&self, name: &str, process: &Process, world: World<'_>) -> Option<String> {
        let here = self.folders.iter().find_map(|folder| {
            let path = folder.join(name.as_bytes()).ok()?.to_string_lossy().into_owned();
            world.find_program(&process.cwd, &path, "").map(|_| path)
        });
        here.or_else(|| world.find_program(&process.cwd, name, process.path()).map(|_| name.to_owned()))
    }
}

/// The folders of GCC's versions under a prefix, of one machine and of versions that begin so, where these are told.
fn versions(
    prefix: &ImagePath,
    machine: Option<&str>,
    version: Option<&str>,
    world: World<'_>,
) -> Vec<(String, String, ImagePath)> {
    let is_version = |number: &str| {
        let rest = version.map_or(Some(""), |version| number.strip_prefix(version));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let bases =
        ["libexec/gcc", "lib/gcc", "lib64/gcc"].into_iter().filter_map(|base| prefix.join(base.as_bytes()).ok());
    let machines = bases.flat_map(|base| subfolders(&base, world));
    let mut found = Vec::new();
    for (of, folder) in machines.filter(|(of, _)| machine.is_none_or(|machine| machine == of)) {
        let numbers = subfolders(&folder, world).into_iter().filter(|(number, _)| is_version(number));
        found.extend(numbers.map(|(number, folder)| (of.clone(), number, folder)));
    }
    found
}

fn subfolders(folder: &ImagePath, world: World<'_>) -> Vec<(String, ImagePath)> {
    let Ok(found) = world.rootfs.resolve(folder) else { return Vec::new() };
    let children = world.rootfs.children(found.inode).filter_map(|(name, inode)| {
        let is_folder = matches!(world.rootfs.inode(inode).kind, InodeKind::Directory(_));
        Some((String::from_utf8_lossy(name).into_owned(), found.path.join(name).ok()?)).filter(|_| is_folder)
    });
    children.take(MAX_FOLDERS).collect()
}

/// Machines and versions side by side: an image has a few.
const MAX_FOLDERS: usize = 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Rootfs;

    /// A distribution's GCC, with the names it goes by, and a Clang beside it.
    fn tree() -> Rootfs {
        let mut rootfs = Rootfs::default();
        for path in [
            "/usr/bin/x86_64-linux-gnu-gcc-12",
            "/usr/bin/x86_64-linux-gnu-g++-12",
            "/usr/bin/x86_64-linux-gnu-as",
            "/usr/bin/x86_64-linux-gnu-ld.bfd",
            "/usr/bin/x86_64-linux-gnu-ld.gold",
            "/usr/lib/gcc/x86_64-linux-gnu/12/cc1",
            "/usr/lib/gcc/x86_64-linux-gnu/12/cc1plus",
            "/usr/lib/gcc/x86_64-linux-gnu/12/collect2",
            "/usr/lib/gcc/x86_64-linux-gnu/11/cc1",
            "/usr/lib/gcc/arm-none-eabi/12/cc1",
            "/usr/lib/llvm-14/bin/clang",
            "/usr/lib/llvm-14/bin/ld.lld",
        ] {
            rootfs.put_file(path, 0o755, "\x7fELF");
        }
        for (name, target) in [("as", "x86_64-linux-gnu-as"), ("ld", "x86_64-linux-gnu-ld.bfd")] {
            rootfs.put_link(&format!("/usr/bin/{name}"), target);
        }
        rootfs
    }

    /// The tools' lines, `?` in front of a possible one; then what is written.
    fn does(program: &str, line: &str) -> (Vec<String>, Vec<String>) {
        let rootfs = tree();
        let accounts = dna::Accounts::default();
        let world = World { rootfs: &rootfs, accounts: &accounts, text_bytes: 1 << 20 };
        let word = |word: &str| (word != "?").then(|| word.to_owned());
        let process = Process {
            program: program.parse().expect("a path"),
            argv: line.split(' ').map(word).collect(),
            env: BTreeMap::from([("TMPDIR".to_owned(), None)]),
            uid: None,
            cwd: ImagePath::root(),
            confidence: Confidence::Certain,
            told: None,
        };
        let compiles = of(&process, world).unwrap_or_default();
        let shown = |word: &Arg| word.clone().unwrap_or_else(|| "?".to_owned());
        let tool = |tool: &Tool| {
            let mark = if tool.confidence == Confidence::Possible { "?" } else { "" };
            format!("{mark}{}", tool.argv.iter().map(shown).collect::<Vec<_>>().join(" "))
        };
        (compiles.tools.iter().map(tool).collect(), compiles.written.iter().map(shown).collect())
    }

    const GCC: &str = "/usr/bin/x86_64-linux-gnu-gcc-12";

    #[test]
    fn a_driver_runs_compiler_assembler_and_linker() {
        let (tools, written) = does(GCC, "x86_64-linux-gnu-gcc -g -O2 -shared -Wl,-x -o ? ?");
        let place = "/usr/lib/gcc/x86_64-linux-gnu/12";
        assert_eq!(
            tools,
            [format!("{place}/cc1 -o /tmp/cc*.s"), "as -o /tmp/cc*.o".to_owned(), format!("{place}/collect2 -o ?")]
        );
        assert_eq!(written, ["/tmp/cc*", "?"]);
        let (tools, written) = does("/usr/bin/x86_64-linux-gnu-g++-12", "g++ -I inc -c a.c b.o");
        assert_eq!(tools, [format!("{place}/cc1plus -o /tmp/cc*.s"), "as".to_owned()]);
        assert_eq!(written, ["/tmp/cc*", "a.o", "b.o"]);
        assert_eq!(does(GCC, "gcc -x c++ -S -").0, [format!("{place}/cc1plus")]);
        assert_eq!(
            does(GCC, "gcc a.o -o app"),
            (vec![format!("{place}/collect2 -o app")], vec!["/tmp/cc*".to_owned(), "app".to_owned()])
        );
    }

    #[test]
    fn a_driver_that_is_asked_for_nothing_runs_nothing() {
        assert_eq!(does(GCC, "gcc --version"), (Vec::new(), Vec::new()));
        assert_eq!(does(GCC, "gcc -E a.c"), (vec!["/usr/lib/gcc/x86_64-linux-gnu/12/cc1".to_owned()], Vec::new()));
        assert_eq!(does("/usr/bin/app", "app -c a.c"), (Vec::new(), Vec::new()));
        // The tools of another machine are none of its own.
        assert_eq!(does("/usr/bin/avr-gcc", "avr-gcc -S a.c").0, Vec::<String>::new());
    }

    #[test]
    fn of_several_versions_any_may_be_meant() {
        let tools = does("/usr/bin/gcc", "gcc -S a.c").0;
        assert_eq!(tools.len(), 1);
        assert!(tools.iter().all(|tool| tool.starts_with('?')), "{tools:?}");
    }

    #[test]
    fn collect2_runs_the_linker_that_is_chosen() {
        let place = "/usr/lib/gcc/x86_64-linux-gnu/12/collect2";
        assert_eq!(does(place, "collect2 -o ?"), (vec!["ld -o ?".to_owned()], vec!["/tmp/cc*".to_owned()]));
        assert_eq!(does(place, "collect2 -fuse-ld=gold -o a").0, Vec::<String>::new());
        assert_eq!(does("/usr/bin/x86_64-linux-gnu-ld.bfd", "ld -o ? x.o").1, ["?"]);
        assert_eq!(does("/usr/bin/x86_64-linux-gnu-as", "as -o /tmp/cc*.o a.s").1, ["/tmp/cc*.o"]);
    }

    #[test]
    fn clang_compiles_by_itself() {
        let clang = "/usr/lib/llvm-14/bin/clang";
        let (tools, _) = does(clang, "cc -fuse-ld=lld a.c -o app");
        let linker = "/usr/lib/llvm-14/bin/ld.lld -fuse-ld=lld -o app";
        assert_eq!(tools, [format!("?{clang} -cc1 -o /tmp/cc*.o"), linker.to_owned()]);
        assert_eq!(does(clang, "clang -cc1 -o a.o").1, ["a.o"]);
    }
}
