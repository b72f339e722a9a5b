//! Java: a process of the virtual machine in; the libraries that it maps, and what the constants of the main archive's classes name,
//! out.
//!
//! A class file names every class and method it uses in its constant pool (JVMS 4.4), so that the libraries behind the platform's
//! own classes follow. Only the application's classes are read: those in the main class's package. Ports are those that a
//! constant is passed as to a constructor of a socket.

use std::io::Read as _;

use dna::{Accounts, Confidence, Evidence, ImagePath, Known, Limits, Listen, Load, Protocol, Subject, Unknown, Write};

use super::{Command, Findings, known_env};
use crate::{Resolved, closure::Process, programs::jar, shell::World};

pub(super) fn findings(process: &Process, world: World<'_>, limits: &Limits) -> Findings {
    let mut findings = Findings::default();
    let options = options(process);
    let Some(home) = Home::of(process, world) else { return findings };
    let started = Evidence::Binary {
        path: process.program.clone(),
        offset: None,
        layer: None,
        detail: Some("start of the virtual machine".to_owned()),
    };
    for (name, confidence) in AT_START {
        home.load(name, *confidence, &started, &mut findings);
    }
    for (option, names) in BY_OPTION {
        if options.iter().any(|word| word.starts_with(option)) {
            for name in *names {
                home.load(name, Confidence::Likely, &started, &mut findings);
            }
        }
    }
    performance_data(process, world.accounts, &options, &started, &mut findings);
    told_ports(process, &options, &mut findings);
    let archives = archives(process, world);
    if !archives.is_empty() {
        home.load("libzip.so", Confidence::Likely, &started, &mut findings);
    }
    for (archive, main) in archives {
        match classes(&archive, main, world, limits) {
            Ok(application) => apply(&application, &archive, &home, world, &mut findings),
            Err(why) => {
                let place = archive.path.as_bytes().escape_ascii().to_string();
                findings.unknowns.insert(Unknown { place, subject: Subject::Program, why });
            }
        }
    }
    findings
}

/// Options of the command line and of the variables that the virtual machine reads itself.
fn options(process: &Process) -> Vec<String> {
    let env = known_env(process);
    let variables = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"].iter().filter_map(|name| env.get(name));
    let told = process.argv.iter().skip(1).flatten().cloned();
    told.chain(variables.flat_map(|line| line.split_whitespace().map(str::to_owned))).collect()
}

/// The folders of the runtime's libraries.
struct Home<'a> {
    world: World<'a>,
    folders: Vec<ImagePath>,
}

impl<'a> Home<'a> {
    fn of(process: &Process, world: World<'a>) -> Option<Self> {
        let root = process.program.parent()?.parent()?;
        // Java 8 has a folder for the architecture, and in a JDK the runtime in `jre`.
        let mut folders = Vec::new();
        for lib in ["lib", "jre/lib"] {
            let Ok(lib) = world.rootfs.resolve(&root.join(lib.as_bytes()).ok()?) else { continue };
            folders.push(lib.path.clone());
            folders.extend(["amd64", "aarch64"].iter().filter_map(|name| lib.path.join(name.as_bytes()).ok()));
        }
        Some(Self { world, folders })
    }

    fn find(&self, name: &str) -> Option<Resolved> {
        let found = self.folders.iter().find_map(|folder| self.world.resolve(folder, name).ok());
        found.filter(|found| self.world.rootfs.file(found.inode).is_some())
    }

    fn load(&self, name: &str, confidence: Confidence, evidence: &Evidence, findings: &mut Findings) {
        if let Some(found) = self.find(name) {
            let what = Load { path: found.path };
            findings.load.push(Known {
                what,
                confidence,
                probability: None,
                when: Vec::new(),
                evidence: vec![evidence.clone()],
            });
        }
    }
}

/// The virtual machine keeps counters in `/tmp/hsperfdata_USER/PID`, where its user has a name (`-XX:+UsePerfData`).
fn performance_data(
    process: &Process,
    accounts: &Accounts,
    options: &[String],
    evidence: &Evidence,
    findings: &mut Findings,
) {
    let user = accounts.users.iter().find(|user| Some(user.uid) == process.uid);
    let is_off = options.iter().any(|word| word == "-XX:-UsePerfData" || word == "-XX:+PerfDisableSharedMem");
    if let Some(user) = user.filter(|_| !is_off)
        && let Ok(path) = ImagePath::normalize(format!("/tmp/hsperfdata_{}/*", user.name.replace('/', "_")).as_bytes())
    {
        let evidence = vec![evidence.clone()];
        findings.write.push(Known {
            what: Write { path },
            confidence: Confidence::Likely,
            probability: None,
            when: Vec::new(),
            evidence,
        });
    }
}

/// Ports that options name: the debugger's, JMX's, and properties that servers take theirs from.
fn told_ports(process: &Process, options: &[String], findings: &mut Findings) {
    let mut push = |port: &str, confidence, key: &str| {
        if let Some(port) = port.parse::<u16>().ok().filter(|port| *port != 0) {
            let what = Listen { protocol: Protocol::Tcp, port, address: None, claimed: false };
            let evidence = vec![Evidence::Config { key: key.to_owned() }];
            findings.listen.push(Known { what, confidence, probability: None, when: Vec::new(), evidence });
        }
    };
    for word in options {
        if let Some(rest) = word.strip_prefix("-agentlib:jdwp=").or_else(|| word.strip_prefix("-Xrunjdwp:")) {
            let parts: Vec<&str> = rest.split(',').collect();
            let address = parts.iter().find_map(|part| part.strip_prefix("address="));
            if parts.contains(&"server=y") {
                push(
                    address.and_then(|address| address.rsplit(':').next()).unwrap_or_default(),
                    Confidence::Certain,
                    "jdwp",
                );
            }
        } else if let Some((key, port)) = word.strip_prefix("-D").and_then(|pair| pair.split_once('=')) {
            if matches!(key, "com.sun.management.jmxremote.port" | "com.sun.management.jmxremote.rmi.port") {
                push(port, Confidence::Certain, "jmxremote");
            } else if PORT_KEYS.contains(&key) {
                push(port, Confidence::Likely, key);
            }
        }
    }
    if let Some(port) = known_env(process).get("SERVER_PORT") {
        push(port, Confidence::Possible, "SERVER_PORT");
    }
}

/// The archives with the application's classes, and the main class where the command line names it.
fn archives(process: &Process, world: World<'_>) -> Vec<(Resolved, Option<String>)> {
    let words: Vec<&str> = process.argv.iter().skip(1).map(|word| word.as_deref().unwrap_or_default()).collect();
    let mut class_path = known_env(process).get("CLASSPATH").map(|path| (*path).to_owned()).unwrap_or_default();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let value = words.get(at + 1).copied().unwrap_or_default();
        match *word {
            "-jar" => {
                return world.resolve(&process.cwd, value).ok().map(|found| (found, None)).into_iter().collect();
            }
            "-cp" | "-classpath" | "--class-path" => {
                class_path = value.to_owned();
                at += 1;
            }
            "-p" | "--module-path" | "--add-modules" | "--add-opens" | "--add-exports" => at += 1,
            _ if word.starts_with('-') || word.starts_with('@') => {}
            main => {
                let main = main.replace('.', "/");
                return class_archives(&class_path, process, world)
                    .into_iter()
                    .map(|archive| (archive, Some(main.clone())))
                    .collect();
            }
        }
        at += 1;
    }
    Vec::new()
}

/// The archives of a class path; `folder/*` is every one in it.
fn class_archives(class_path: &str, process: &Process, world: World<'_>) -> Vec<Resolved> {
    let mut found = Vec::new();
    for entry in class_path.split(':') {
        if let Some(folder) = entry.strip_suffix('*') {
            let Ok(folder) = world.resolve(&process.cwd, folder) else { continue };
            for (name, _) in world.rootfs.children(folder.inode).filter(|(name, _)| name.ends_with(b".jar")) {
                found.extend(world.rootfs.resolve_from(&folder.path, name).ok());
            }
        } else if entry.ends_with(".jar") {
            found.extend(world.resolve(&process.cwd, entry).ok());
        }
    }
    found.truncate(ARCHIVES);
    found
}

/// What an application's classes and settings name.
#[derive(Debug, Default)]
struct Application {
    /// Classes and methods used, `java/net/Socket` and `java/lang/Runtime.exec`.
    uses: std::collections::BTreeSet<String>,
    strings: std::collections::BTreeSet<String>,
    ports: std::collections::BTreeSet<u16>,
    /// There are other classes, which were not read.
    has_others: bool,
}

fn classes(file: &Resolved, main: Option<String>, world: World<'_>, limits: &Limits) -> Result<Application, String> {
    let say = |error: jar::JarError| error.to_string();
    let mut archive = jar::open(world.rootfs, file.inode, limits).map_err(say)?;
    let manifest = jar::manifest(&mut archive).map_err(say)?.unwrap_or_default();
    // Spring Boot's launcher starts another class.
    let named = jar::attribute(&manifest, "Start-Class").or_else(|| jar::attribute(&manifest, "Main-Class"));
    let main = main.or(named).unwrap_or_default().replace('.', "/");
    let package = package(&main);
    let mut application = Application::default();
    let mut left = CLASS_BYTES;
    for index in 0..archive.len() {
        let Ok(member) = archive.by_index(index) else { continue };
        let Ok(name) = member.name().map(|name| name.into_owned()) else { continue };
        let own =
            name.strip_prefix("BOOT-INF/classes/").or_else(|| name.strip_prefix("WEB-INF/classes/")).unwrap_or(&name);
        let is_setting = SETTINGS.contains(&own);
        let is_own = own.ends_with(".class") && own.starts_with(package) && (!package.is_empty() || !own.contains('/'));
        if !is_setting && !is_own {
            application.has_others |= name.ends_with(".class") || name.ends_with(".jar");
            continue;
        }
        let mut body = Vec::new();
        if member.take(left.min(world.text_bytes)).read_to_end(&mut body).is_err() {
            continue;
        }
        left = left.saturating_sub(body.len() as u64);
        if left == 0 {
            return Err("more classes than are read".to_owned());
        }
        if is_setting {
            setting_ports(&String::from_utf8_lossy(&body), &mut application);
        } else if class(&body, &mut application).is_none() {
            return Err(format!("malformed class {}", name.escape_debug()));
        }
    }
    Ok(application)
}

/// The package that an application's classes share: the first two parts of the main class's, `org/example/`.
fn package(main: &str) -> &str {
    let ends: Vec<usize> = main.match_indices('/').map(|(at, _)| at + 1).take(2).collect();
    ends.last().and_then(|end| main.get(..*end)).unwrap_or_default()
}

/// `server.port=8081` in properties; `port: 8081` under `server:` in YAML.
fn setting_ports(text: &str, application: &mut Application) {
    let mut section = String::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        // `${PORT:8080}` falls back to its second part.
        let value = value.trim().trim_end_matches('}').rsplit(':').next().unwrap_or_default().trim();
        let name = if key.starts_with(' ') { format!("{section}.{}", key.trim()) } else { key.trim().to_owned() };
        if !key.starts_with(' ') {
            section = key.trim().to_owned();
        }
        if PORT_KEYS.contains(&name.as_str()) {
            application.ports.extend(value.parse::<u16>().ok().filter(|port| *port != 0));
        }
    }
}

/// An entry of a constant pool. Source: JVMS 4.4.
enum Constant<'a> {
    Text(&'a [u8]),
    Integer(i32),
    /// A class or string, by the place of its text.
    Named {
        tag: u8,
        at: u16,
    },
    /// A pair of places: a method of a class, or a name and a type.
    Pair(u16, u16),
    Other,
}

/// Notes what a class file uses; none where it is malformed.
fn class(body: &[u8], application: &mut Application) -> Option<()> {
    let number = |at: usize| -> Option<u16> {
        let bytes: [u8; 2] = body.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    if body.get(..4)? != [0xca, 0xfe, 0xba, 0xbe] {
        return None;
    }
    let count = usize::from(number(8)?);
    let mut pool: Vec<Constant<'_>> = vec![Constant::Other];
    let mut at = 10usize;
    while pool.len() < count {
        let tag = *body.get(at)?;
        at = at.checked_add(1)?;
        let (constant, len) = match tag {
            1 => {
                let len = usize::from(number(at)?);
                (Constant::Text(body.get(at + 2..at + 2 + len)?), len + 2)
            }
            3 => {
                let bytes: [u8; 4] = body.get(at..at + 4)?.try_into().ok()?;
                (Constant::Integer(i32::from_be_bytes(bytes)), 4)
            }
            7 | 8 | 16 | 19 | 20 => (Constant::Named { tag, at: number(at)? }, 2),
            9..=12 | 17 | 18 => (Constant::Pair(number(at)?, number(at + 2)?), 4),
            4 => (Constant::Other, 4),
            5 | 6 => (Constant::Other, 8),
            15 => (Constant::Other, 3),
            _ => return None,
        };
        at = at.checked_add(len)?;
        pool.push(constant);
        // Eight bytes take two places.
        if matches!(tag, 5 | 6) {
            pool.push(Constant::Other);
        }
    }
    let text = |index: u16| match pool.get(usize::from(index)) {
        Some(Constant::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    let class_name = |index: u16| match pool.get(usize::from(index)) {
        Some(Constant::Named { tag: 7, at }) => text(*at),
        _ => None,
    };
    let code = body.get(at..).unwrap_or_default();
    for (index, constant) in (0u16..).zip(&pool) {
        match constant {
            Constant::Named { tag: 7, at } => application.uses.extend(text(*at)),
            Constant::Named { tag: 8, at } => {
                application.strings.extend(text(*at).filter(|text| text.len() < STRING_BYTES));
            }
            Constant::Pair(class, pair) => {
                let Some(Constant::Pair(name, descriptor)) = pool.get(usize::from(*pair)) else { continue };
                let (Some(class), Some(name)) = (class_name(*class), text(*name)) else { continue };
                let descriptor = text(*descriptor).unwrap_or_default();
                if name == "<init>" && SOCKETS.contains(&(class.as_str(), descriptor.as_str())) {
                    application.ports.extend(passed(code, index, &pool));
                }
                application.uses.insert(format!("{class}.{name}"));
            }
            _ => {}
        }
    }
    Some(())
}

/// The constants passed to a constructor whose only or first whole-number argument is a port: `sipush`, `bipush` or `ldc`, then
/// `invokespecial`.
fn passed(code: &[u8], method: u16, pool: &[Constant<'_>]) -> Vec<u16> {
    let [high, low] = method.to_be_bytes();
    let call = [0xb7, high, low];
    let calls = memchr::memmem::find_iter(code, &call);
    let port = |call: usize| {
        let before = |back: usize| code.get(call.checked_sub(back)?).copied();
        let number = match (before(3), before(2), before(1)) {
            (Some(0x11), Some(high), Some(low)) => u16::from_be_bytes([high, low]),
            (_, Some(0x10), Some(low)) => u16::from(low),
            (_, Some(0x12), Some(index)) => match pool.get(usize::from(index))? {
                Constant::Integer(number) => u16::try_from(*number).ok()?,
                _ => return None,
            },
            _ => return None,
        };
        Some(number).filter(|port| *port != 0)
    };
    calls.take(CALLS).filter_map(port).collect()
}

/// What the uses and strings of the application's classes mean.
fn apply(application: &Application, file: &Resolved, home: &Home<'_>, world: World<'_>, findings: &mut Findings) {
    let layer = Some(world.rootfs.inode(file.inode).meta.layer);
    let evidence = |detail: &str| Evidence::Binary {
        path: file.path.clone(),
        offset: None,
        layer,
        detail: Some(dna::redact(detail).into_owned()),
    };
    let used = |prefix: &str| application.uses.iter().find(|name| name.starts_with(prefix));
    for (prefix, names) in BY_CLASS {
        let (confidence, class) = match used(prefix) {
            Some(class) => (Confidence::Likely, class.as_str()),
            None if application.has_others => (Confidence::Possible, "classes that were not read"),
            None => continue,
        };
        for name in *names {
            home.load(name, confidence, &evidence(class), findings);
        }
    }
    for port in &application.ports {
        let what = Listen { protocol: Protocol::Tcp, port: *port, address: None, claimed: false };
        let evidence = vec![evidence("a port that is constant")];
        findings.listen.push(Known {
            what,
            confidence: Confidence::Likely,
            probability: None,
            when: Vec::new(),
            evidence,
        });
    }
    let runs = used("java/lang/ProcessBuilder").or_else(|| used("java/lang/Runtime.exec"));
    if let Some(runs) = runs {
        // Since Java 13 a helper is spawned, which executes the command.
        let helper = home.find("jspawnhelper").map(|found| found.path.to_string_lossy().into_owned());
        let programs = application
            .strings
            .iter()
            .filter(|text| text.starts_with('/') && world.find_program(&ImagePath::root(), text, "").is_some());
        for program in helper.into_iter().chain(programs.cloned()).take(PROGRAMS) {
            let evidence = evidence(runs);
            let argv = vec![Some(program)];
            findings.runs.push(Command { argv, env: Vec::new(), confidence: Confidence::Possible, evidence });
        }
    }
    let writes = WRITERS.iter().find_map(|name| used(name));
    for text in application.strings.iter().filter(|text| text.starts_with('/') && text.len() > 1) {
        let (Some(writes), Ok(path)) = (writes, ImagePath::normalize(text.as_bytes())) else { continue };
        // A file that the image does not have, in a folder that it has: it is to be made.
        let above = path.parent().filter(|folder| !folder.is_root());
        let is_new = world.rootfs.resolve(&path).is_err()
            && above.is_some_and(|folder| world.rootfs.resolve(&folder).is_ok())
            && !text.contains(['*', '{', '%', ' ']);
        if is_new {
            let evidence = vec![evidence(writes)];
            findings.write.push(Known {
                what: Write { path },
                confidence: Confidence::Likely,
                probability: None,
                when: Vec::new(),
                evidence,
            });
        }
    }
    findings
        .connect
        .extend(application.strings.iter().filter_map(|text| super::effects::peer(text, &evidence("address"))));
}

/// Libraries that every virtual machine opens. Sources: OpenJDK's java.base, hotspot/share/runtime/threads.cpp and
/// hotspot/share/classfile/classLoader.cpp. Vector mathematics is there where the processor can do it.
const AT_START: &[(&str, Confidence)] = &[
    ("server/libjvm.so", Confidence::Certain),
    ("libjava.so", Confidence::Certain),
    ("libjimage.so", Confidence::Certain),
    ("libjsvml.so", Confidence::Likely),
];

/// Libraries behind the platform's classes, by the `loadLibrary` calls of its own sources. A channel brings the sockets and
/// their extended options.
const BY_CLASS: &[(&str, &[&str])] = &[
    ("java/net/", &["libnet.so", "libnio.so", "libextnet.so"]),
    ("com/sun/net/httpserver/", &["libnet.so", "libnio.so", "libextnet.so"]),
    ("java/nio/channels/", &["libnet.so", "libnio.so", "libextnet.so"]),
    ("java/nio/file/", &["libnio.so", "libnet.so"]),
    ("java/lang/management/", &["libmanagement.so", "libmanagement_ext.so"]),
    ("javax/management/", &["libmanagement.so", "libmanagement_ext.so"]),
    ("java/util/prefs/", &["libprefs.so"]),
    ("java/awt/", &["libawt.so", "libawt_headless.so"]),
    ("com/sun/nio/sctp/", &["libsctp.so"]),
    ("java/rmi/", &["librmi.so"]),
];

/// Libraries that options bring in.
const BY_OPTION: &[(&str, &[&str])] = &[
    ("-javaagent:", &["libinstrument.so"]),
    ("-agentlib:jdwp", &["libjdwp.so", "libdt_socket.so"]),
    ("-Xrunjdwp", &["libjdwp.so", "libdt_socket.so"]),
    (
        "-Dcom.sun.management.jmxremote",
        &["libmanagement.so", "libmanagement_ext.so", "libmanagement_agent.so", "librmi.so"],
    ),
];

/// Constructors that take a port to listen on, with their types.
const SOCKETS: &[(&str, &str)] = &[
    ("java/net/InetSocketAddress", "(I)V"),
    ("java/net/ServerSocket", "(I)V"),
    ("org/eclipse/jetty/server/Server", "(I)V"),
];

/// Classes and methods that write files.
const WRITERS: &[&str] = &[
    "java/io/FileOutputStream",
    "java/io/FileWriter",
    "java/io/RandomAccessFile",
    "java/nio/file/Files.write",
    "java/nio/file/Files.newBufferedWriter",
    "java/nio/file/Files.newOutputStream",
    "java/nio/file/Files.create",
    "java/nio/file/Files.copy",
    "java/nio/file/Files.move",
];

/// Keys of settings that name a port to listen on.
const PORT_KEYS: &[&str] =
    &["server.port", "management.server.port", "quarkus.http.port", "micronaut.server.port", "http.port"];
const SETTINGS: &[&str] = &["application.properties", "application.yml", "application.yaml"];

/// Bytes of classes read of one archive.
const CLASS_BYTES: u64 = 64 << 20;
const ARCHIVES: usize = 200;
const STRING_BYTES: usize = 4_096;
/// Calls of one constructor in one class.
const CALLS: usize = 64;
const PROGRAMS: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::super::fixture::found;
    use crate::Rootfs;

    /// A class file: its constant pool, then code.
    struct Class {
        pool: Vec<Vec<u8>>,
        code: Vec<u8>,
    }

    impl Class {
        fn new() -> Self {
            Self { pool: Vec::new(), code: Vec::new() }
        }

        fn put(&mut self, tag: u8, body: &[u8]) -> u16 {
            self.pool.push([&[tag], body].concat());
            u16::try_from(self.pool.len()).expect("a small pool")
        }

        fn text(&mut self, text: &str) -> u16 {
            let len = u16::try_from(text.len()).expect("short").to_be_bytes();
            self.put(1, &[&len, text.as_bytes()].concat())
        }

        fn string(&mut self, text: &str) {
            let at = self.text(text);
            self.put(8, &at.to_be_bytes());
        }

        fn method(&mut self, class: &str, name: &str, descriptor: &str) -> u16 {
            let class = self.text(class);
            let class = self.put(7, &class.to_be_bytes());
            let (name, descriptor) = (self.text(name), self.text(descriptor));
            let pair = self.put(12, &[name.to_be_bytes(), descriptor.to_be_bytes()].concat());
            self.put(10, &[class.to_be_bytes(), pair.to_be_bytes()].concat())
        }

        fn bytes(&self) -> Vec<u8> {
            let count = u16::try_from(self.pool.len() + 1).expect("a small pool").to_be_bytes();
            let head = [&[0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 61], count.as_slice()].concat();
            [head, self.pool.concat(), self.code.clone()].concat()
        }
    }

    fn tree(members: &[(&str, &[u8])]) -> Rootfs {
        let mut root = Rootfs::default();
        let home = "/usr/lib/jvm/java-17";
        root.put_file(&format!("{home}/bin/java"), 0o755, "\x7fELF");
        root.put_link("/usr/bin/java", &format!("{home}/bin/java"));
        for name in
            ["server/libjvm.so", "libjava.so", "libzip.so", "libnet.so", "libnio.so", "libprefs.so", "libjdwp.so"]
        {
            root.put_file(&format!("{home}/lib/{name}"), 0o644, "\x7fELF");
        }
        root.put_file(&format!("{home}/lib/jspawnhelper"), 0o755, "\x7fELF");
        root.put_file("/bin/ls", 0o755, "\x7fELF");
        root.put_file("/var/data/old", 0o644, "");
        root.put_file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n");
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, body) in members {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("memory");
            zip.write_all(body).expect("memory");
        }
        root.put_file("/app/app.jar", 0o644, zip.finish().expect("memory").into_inner());
        root
    }

    const MANIFEST: (&str, &[u8]) = ("META-INF/MANIFEST.MF", b"Main-Class: org.example.web.Main\n");

    #[test]
    fn constants_of_the_applications_classes_count() {
        let mut main = Class::new();
        let socket = main.method("java/net/InetSocketAddress", "<init>", "(I)V").to_be_bytes();
        main.code = [&[0xbb, 0, 1, 0x59, 0x11, 0x1f, 0x90, 0xb7], socket.as_slice()].concat();
        main.method("java/lang/ProcessBuilder", "<init>", "()V");
        main.method("java/nio/file/Files", "write", "()V");
        for text in ["/bin/ls", "/var/data/new", "/var/data/old", "/none/x", "http://u:p@peer:81/x"] {
            main.string(text);
        }
        let mut other = Class::new();
        other.method("java/util/prefs/Preferences", "get", "()V");
        let root = tree(&[MANIFEST, ("org/example/util/A.class", &main.bytes()), ("com/lib/B.class", &other.bytes())]);
        let lib = "/usr/lib/jvm/java-17/lib";
        assert_eq!(
            found(
                &root,
                &["java", "-Xmx1g", "-agentlib:jdwp=transport=dt_socket,server=y,address=*:5005", "-jar", "app.jar"],
                &[]
            )
            .0,
            [
                format!("load {lib}/libjava.so"),
                format!("~load {lib}/libjdwp.so"),
                format!("~load {lib}/libnet.so"),
                format!("~load {lib}/libnio.so"),
                format!("?load {lib}/libprefs.so"),
                format!("~load {lib}/libzip.so"),
                format!("load {lib}/server/libjvm.so"),
                format!("?run {lib}/jspawnhelper"),
                "?run /bin/ls".to_owned(),
                "listen 5005".to_owned(),
                "~listen 8080".to_owned(),
                "?connect peer Some(81)".to_owned(),
                "~write /tmp/hsperfdata_root/*".to_owned(),
                "~write /var/data/new".to_owned(),
            ]
        );
    }

    #[test]
    fn settings_and_class_paths_are_read() {
        let settings = b"name: x\nserver:\n  address: 0.0.0.0\n  port: ${PORT:8443}\n";
        let root = tree(&[MANIFEST, ("BOOT-INF/classes/application.yml", settings)]);
        let (lines, _) = found(&root, &["java", "-Dserver.port=9", "-cp", "/app/*", "org.example.Main"], &[]);
        let ports: Vec<&String> = lines.iter().filter(|line| line.contains("listen")).collect();
        assert_eq!(ports, ["~listen 9", "~listen 8443"]);
    }

    #[test]
    fn malformed_archives_and_classes_are_unknowns() {
        let mut main = Class::new();
        main.string("x");
        let bytes = main.bytes();
        for end in [4, 9, 11, bytes.len() - 1] {
            let root = tree(&[MANIFEST, ("org/example/A.class", bytes.get(..end).expect("shorter"))]);
            let (lines, _) = found(&root, &["java", "-jar", "app.jar"], &[]);
            assert_eq!(lines.last().map(String::as_str), Some("! /app/app.jar: malformed class org/example/A.class"));
        }
        let mut root = tree(&[]);
        root.put_file("/app/app.jar", 0o644, "no zip");
        let (lines, _) = found(&root, &["java", "-jar", "app.jar"], &[]);
        assert_eq!(lines.last().map(String::as_str), Some("! /app/app.jar: no end of the archive's directory"));
    }
}
