//! Which programs run which: a start command and the tree in, edges and the set of programs executed out.
//!
//! A work list of (program, arguments, user). Scripts are walked by [`crate::shell`], wrappers and supervisors hand on their
//! argument, interpreters their script, whose own commands [`crate::scripts`] finds. What a compiled program executes by itself is
//! asked of an [`Oracle`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use dna::{Condition, Confidence, Evidence, Exec, ImagePath, Known, Limits, Run, Subject, Unknown};

use crate::{
    Resolved,
    acts::Acts,
    compilers, lines,
    operands::{self, How, Written},
    places, programs,
    scripts::{self, Findings, Scripts},
    sessions,
    shell::{self, Arg, Circumstances, DEFAULT_PATH, Source, World},
    start, supervisors,
    wrappers::{self, Inner},
};

/// Tells what compiled code does.
pub(crate) trait Oracle: Send {
    /// What the code of a process's program does by constants.
    fn acts(&mut self, process: &Process) -> Arc<Acts>;
}

/// Knows no code: what is told of programs elsewhere.
#[derive(Debug)]
pub(crate) struct Silent;

impl Oracle for Silent {
    fn acts(&mut self, _: &Process) -> Arc<Acts> {
        Arc::default()
    }
}

/// A command to start with.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) uid: Option<u32>,
    pub(crate) cwd: ImagePath,
    pub(crate) confidence: Confidence,
    pub(crate) evidence: Evidence,
}

/// What is reached.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    /// Edges by the program they start from.
    pub(crate) runs: BTreeMap<ImagePath, Vec<Run>>,
    /// Programs executed, sorted.
    pub(crate) exec: BTreeMap<ImagePath, Known<Exec>>,
    /// Environment each was first executed with, as far as it is known.
    pub(crate) env: BTreeMap<ImagePath, Vec<(String, String)>>,
    /// Files that interpreters are told to run.
    pub(crate) scripts: BTreeSet<ImagePath>,
    /// Every process followed: the same program with other arguments is another one.
    pub(crate) processes: Vec<Process>,
    /// What scripts of interpreters do, by the interpreter's program.
    pub(crate) findings: BTreeMap<ImagePath, Findings>,
    /// Environment variables that some script reads.
    pub(crate) reads: BTreeSet<String>,
    /// Commands that no folder holds.
    pub(crate) missing: BTreeSet<String>,
    /// Tools that are told where to write by somebody who is not heard, and the programs on whose behalf.
    pub(crate) outputs: BTreeMap<ImagePath, BTreeSet<ImagePath>>,
    /// Programs that users of a session may ask for: nothing of theirs but the names is worked out.
    pub(crate) offered: BTreeMap<ImagePath, Known<Exec>>,
    pub(crate) unknowns: BTreeSet<Unknown>,
}

impl Closure {
    /// The names that a program is called by; none where one of them is not known. A shell that is part of a program of many
    /// calls may take a command that stands in no folder for a call of its own (busybox's `FEATURE_SH_STANDALONE`).
    pub(crate) fn called(&self, program: &ImagePath) -> BTreeSet<String> {
        let processes = self.processes.iter().filter(|process| process.program == *program);
        let name = |process: &Process| process.called().map(str::to_owned);
        let mut called: BTreeSet<String> = processes.map(name).collect::<Option<_>>().unwrap_or_default();
        if called.iter().any(|name| is_shell(name)) {
            called.extend(self.missing.iter().cloned());
        }
        called
    }
}

/// A process about to be: an execve(2) with what is known of its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) program: ImagePath,
    pub(crate) argv: Vec<Arg>,
    pub(crate) env: BTreeMap<String, Arg>,
    pub(crate) uid: Option<u32>,
    pub(crate) cwd: ImagePath,
    pub(crate) confidence: Confidence,
    /// It comes of a line for a shell that compiled code has.
    pub(crate) told: Option<Told>,
}

/// Whose line for a shell, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) by: ImagePath,
    pub(crate) evidence: Evidence,
}

impl Process {
    /// The name it is called by, where that is known.
    pub(crate) fn called(&self) -> Option<&str> {
        Some(base_name(self.argv.first()?.as_deref()?).trim_start_matches('-'))
    }

    /// Where it looks programs up: its `PATH`, and where that is not known or not set the usual folders.
    pub(crate) fn path(&self) -> &str {
        self.env.get("PATH").and_then(Option::as_deref).unwrap_or(DEFAULT_PATH)
    }
}

/// Why a process comes about.
struct Edge {
    from: Option<ImagePath>,
    reason: String,
    evidence: Evidence,
    when: Vec<Condition>,
}

/// Follows the given commands.
pub(crate) fn reach(launches: &[Launch], world: World<'_>, limits: &Limits, oracle: &mut dyn Oracle) -> Closure {
    let mut reach = Reach {
        world,
        oracle,
        limits,
        closure: Closure::default(),
        ahead: VecDeque::new(),
        seen: BTreeMap::new(),
        scripts: Scripts::new(limits),
    };
    for launch in launches {
        let process = Process {
            program: ImagePath::root(),
            argv: launch.argv.iter().cloned().map(Some).collect(),
            env: launch.env.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
            uid: launch.uid,
            cwd: launch.cwd.clone(),
            confidence: launch.confidence,
            told: None,
        };
        let edge = Edge { from: None, reason: String::new(), evidence: launch.evidence.clone(), when: Vec::new() };
        reach.launch(process, edge);
    }
    while let Some(process) = reach.ahead.pop_front() {
        reach.closure.processes.push(process.clone());
        reach.follow(process);
    }
    reach.closure
}

type Key = (ImagePath, Vec<Arg>, Option<u32>, Option<ImagePath>);

struct Reach<'a> {
    world: World<'a>,
    oracle: &'a mut dyn Oracle,
    limits: &'a Limits,
    closure: Closure,
    ahead: VecDeque<Process>,
    /// Processes already followed, with the best confidence they were reached by.
    seen: BTreeMap<Key, Confidence>,
    scripts: Scripts,
}

impl Reach<'_> {
    /// Looks a process's program up by its first argument, as execvp(3) does, and notes it.
    fn launch(&mut self, process: Process, edge: Edge) {
        let Some(Some(name)) = process.argv.first() else {
            self.unknown(&edge, "the program's name is not known".to_owned());
            return;
        };
        let found = self.world.find_program(&process.cwd, name, process.path());
        if found.is_none() {
            self.closure.missing.insert(base_name(name).to_owned());
        }
        match found {
            Some(Resolved { path, .. }) => {
                // Under which of its names it is called, where that is not its own.
                let called = base_name(name).to_owned();
                let own = called.as_bytes() == path.file_name();
                let reason = if edge.reason == CALLS && !own { format!("{CALLS} as {called}") } else { edge.reason };
                let edge = Edge { reason: dna::redact(&reason).into_owned(), ..edge };
                self.execute(Process { program: path, ..process }, edge);
            }
            // The start command itself is reported where it is read.
            None if edge.from.is_none() || process.confidence == Confidence::Possible => {}
            None => {
                let name: String = name.chars().take(80).collect();
                self.unknown(&edge, format!("runs `{}`, which the image does not have", dna::redact(&name)));
            }
        }
    }

    /// Notes that a program is executed, and queues what follows from that.
    fn execute(&mut self, process: Process, edge: Edge) {
        let evidence = vec![edge.evidence];
        let item = Known {
            what: Exec { path: process.program.clone() },
            confidence: process.confidence,
            probability: None,
            when: Vec::new(),
            evidence: evidence.clone(),
        };
        let known = self.closure.exec.entry(process.program.clone()).or_insert_with(|| item.clone());
        if item.confidence < known.confidence {
            *known = item;
        }
        if let Some(from) = edge.from {
            let run = Run {
                program: process.program.clone(),
                called: called(&process),
                reason: edge.reason,
                confidence: process.confidence,
                when: edge.when,
                evidence,
            };
            self.run(from, run);
        }
        let env = process.env.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        self.closure.env.entry(process.program.clone()).or_insert_with(|| env.collect());
        self.queue(process);
    }

    fn queue(&mut self, process: Process) {
        let by = process.told.as_ref().map(|told| told.by.clone());
        let key = (process.program.clone(), process.argv.clone(), process.uid, by);
        let better = self.seen.get(&key).is_none_or(|known| process.confidence < *known);
        if !better {
            return;
        }
        if self.seen.len() as u64 >= self.limits.closure_programs {
            let why = format!(
                "more than {} processes; the rest was not followed (limit closure_programs)",
                self.limits.closure_programs
            );
            self.closure.unknowns.insert(Unknown { place: "start".to_owned(), subject: Subject::Exec, why });
            return;
        }
        self.seen.insert(key, process.confidence);
        self.ahead.push_back(process);
    }

    fn run(&mut self, from: ImagePath, run: Run) {
        let runs = self.closure.runs.entry(from).or_default();
        match runs.iter_mut().find(|known| known.program == run.program) {
            Some(known) => {
                if known.when != run.when {
                    // Under either: the part that both ask for.
                    known.when.retain(|condition| run.when.contains(condition));
                }
                known.confidence = known.confidence.min(run.confidence);
                known.called.extend(run.called);
                for evidence in run.evidence {
                    if known.evidence.len() < MAX_EVIDENCE && !known.evidence.contains(&evidence) {
                        known.evidence.push(evidence);
                    }
                }
            }
            None => runs.push(run),
        }
    }

    fn unknown(&mut self, edge: &Edge, why: String) {
        self.closure.unknowns.insert(Unknown { place: place(&edge.evidence), subject: Subject::Exec, why });
    }

    /// What a process runs in turn.
    fn follow(&mut self, process: Process) {
        let found = self.world.rootfs.resolve(&process.program);
        let head = found.ok().and_then(|found| self.world.rootfs.read_range(found.inode, 0, SHEBANG_BYTES).ok());
        let head = head.unwrap_or_default();
        if head.starts_with(b"#!") {
            self.follow_script(process, &head);
        } else if is_text(&head) && !head.is_empty() {
            // execvp(3) hands a text without `#!` to the shell.
            let mut argv = vec![Some("/bin/sh".to_owned()), Some(process.program.to_string_lossy().into_owned())];
            argv.extend(process.argv.iter().skip(1).cloned());
            let evidence = Evidence::File {
                path: process.program.clone(),
                line: None,
                layer: self.world.rootfs.layer_of(&process.program),
                detail: Some("text without #!".to_owned()),
            };
            let edge = Edge {
                from: Some(process.program.clone()),
                reason: "run by the shell".to_owned(),
                evidence,
                when: Vec::new(),
            };
            self.launch(Process { argv, ..process }, edge);
        } else {
            self.follow_binary(process);
        }
    }

    /// `#!`: the kernel runs the interpreter with at most one argument, then the script's path and arguments (execve(2)).
    fn follow_script(&mut self, process: Process, head: &[u8]) {
        let shebang = programs::split_shebang(head.get(2..).unwrap_or_default());
        let Some(interpreter) = shebang.first() else { return };
        let mut argv: Vec<Arg> = shebang.iter().cloned().map(Some).collect();
        let invoked = process.argv.first().cloned().flatten().filter(|name| name.contains('/'));
        argv.push(Some(invoked.unwrap_or_else(|| process.program.to_string_lossy().into_owned())));
        argv.extend(process.argv.iter().skip(1).cloned());
        let layer = self.world.rootfs.layer_of(&process.program);
        let evidence =
            Evidence::File { path: process.program.clone(), line: Some(1), layer, detail: Some("#!".to_owned()) };
        let edge = Edge {
            from: Some(process.program.clone()),
            reason: "#! interpreter".to_owned(),
            evidence,
            when: Vec::new(),
        };
        match self.world.resolve(&process.cwd, interpreter) {
            Ok(found) => {
                self.follow_namesakes(&process);
                let name = String::from_utf8_lossy(process.program.file_name()).into_owned();
                for service in supervisors::services(&name, &process.argv, &process.cwd, self.world) {
                    self.hand_on(&process, &name, service.inner, Some(service.evidence));
                }
                self.execute(Process { program: found.path, argv, ..process }, edge);
            }
            Err(error) => self.unknown(&edge, format!("its interpreter cannot run: {error}")),
        }
    }

    /// A script that links of other names lead to mostly chooses by its name what it runs: another program of that name, as
    /// wrappers for several installed versions do.
    fn follow_namesakes(&mut self, process: &Process) {
        let invoked = process.argv.first().cloned().flatten().unwrap_or_default();
        let called = base_name(&invoked).as_bytes();
        if called.is_empty() || called == process.program.file_name() {
            return;
        }
        let rootfs = self.world.rootfs;
        let evidence = Evidence::File {
            path: process.program.clone(),
            line: None,
            layer: rootfs.layer_of(&process.program),
            detail: Some("chosen by the name it is called by".to_owned()),
        };
        for found in rootfs.walk().filter(|found| found.path.file_name() == called).take(MAX_NAMESAKES) {
            let inode = rootfs.inode(found.inode);
            if rootfs.file(found.inode).is_some() && inode.meta.mode & 0o111 != 0 && found.path != process.program {
                let reason = "of the same name".to_owned();
                let (from, when) = (Some(process.program.clone()), Vec::new());
                let edge = Edge { from, reason, evidence: evidence.clone(), when };
                let next = Process { program: found.path, confidence: Confidence::Possible, ..process.clone() };
                self.execute(next, edge);
            }
        }
    }

    fn follow_binary(&mut self, process: Process) {
        let invoked = process.argv.first().cloned().flatten().unwrap_or_default();
        let invoked = base_name(&invoked).to_owned();
        let own = String::from_utf8_lossy(process.program.file_name()).into_owned();
        // A multi-call binary is what it is called, or what its first argument says.
        if is_multicall(&own) && invoked == own {
            let argv: Vec<Arg> = process.argv.iter().skip(1).skip_while(|word| is_option(word)).cloned().collect();
            if !argv.is_empty() {
                self.queue(Process { argv, ..process });
            }
            return;
        }
        if own.starts_with("ld-linux") || own.starts_with("ld-musl") || own.starts_with("ld.so") {
            let argv: Vec<Arg> = process.argv.iter().skip(1).skip_while(|word| is_option(word)).cloned().collect();
            self.hand_on(&process, "ld.so", Inner { argv, ..Inner::default() }, None);
            return;
        }
        for name in BTreeSet::from([invoked.as_str(), own.as_str()]) {
            self.write_operands(&process, name);
        }
        self.follow_compiler(&process);
        // `sh` may be a link to `dash` or to `busybox`; the file's own name decides where the link's says nothing.
        for name in [invoked.as_str(), own.as_str()] {
            let name = name.trim_start_matches('-');
            if is_shell(name) {
                self.follow_shell(&process);
                return;
            }
            let inner = wrappers::unwrap(name, &process.argv);
            let services = supervisors::services(name, &process.argv, &process.cwd, self.world);
            let script = interpreted(name, &process.argv);
            if inner.is_empty() && services.is_empty() && script.is_none() {
                continue;
            }
            for inner in inner {
                self.hand_on(&process, name, inner, None);
            }
            for service in services {
                self.hand_on(&process, name, service.inner, Some(service.evidence));
            }
            if let Some(script) = script {
                self.note_script(&process, &script);
            }
            break;
        }
        self.follow_interpreter(&process);
        self.follow_configuration(&process);
        // What a multi-call binary does depends on what it is called.
        if !is_multicall(&own) {
            self.follow_code(&process);
        }
    }

    /// What a program's code runs by itself.
    fn follow_code(&mut self, process: &Process) {
        let acts = self.oracle.acts(process);
        let lines = acts.lines.iter().filter(|line| self.has_program(process, line)).collect::<Vec<_>>();
        for scripts::Command { argv, env, confidence, evidence } in acts.commands.iter().chain(lines).cloned() {
            let is_line = argv.get(1).and_then(Option::as_deref) == Some("-c");
            let told = is_line.then(|| Told { by: process.program.clone(), evidence: evidence.clone() });
            let edge =
                Edge { from: Some(process.program.clone()), reason: EXECUTES.to_owned(), evidence, when: Vec::new() };
            let mut variables = process.env.clone();
            variables.extend(env);
            let confidence = confidence.max(process.confidence);
            let told = told.or_else(|| process.told.clone());
            self.launch(Process { argv, env: variables, confidence, told, ..process.clone() }, edge);
        }
        // An interpreter offers its scripts what a login service needs, and is none.
        let own = String::from_utf8_lossy(process.program.file_name()).into_owned();
        if let Some(evidence) = acts.sessions.as_ref().filter(|_| !scripts::is_interpreter(&own)) {
            self.follow_sessions(process, evidence, acts.runs_unknown);
        }
    }

    /// Whether the image has the program that a line begins with: what only reads as a line begins with other words.
    fn has_program(&self, process: &Process, line: &scripts::Command) -> bool {
        let program = line.argv.last().and_then(Option::as_deref).and_then(lines::program);
        program.is_some_and(|name| self.world.find_program(&process.cwd, name, process.path()).is_some())
    }

    /// The tools that a compiler's driver runs, and what it and they write.
    fn follow_compiler(&mut self, process: &Process) {
        let Some(compiles) = compilers::of(process, self.world) else { return };
        let evidence = |detail: &str| Evidence::Binary {
            path: process.program.clone(),
            offset: None,
            layer: self.world.rootfs.layer_of(&process.program),
            detail: Some(detail.to_owned()),
        };
        let (step, output) = (evidence(STEP), evidence("output of a compiler"));
        for path in compiles.written {
            match path.map(|path| process.cwd.join(path.as_bytes())) {
                Some(Ok(path)) => self.write(process, &path, Confidence::Likely, Vec::new(), output.clone()),
                Some(Err(_)) => {}
                // It is somewhere where whoever asks for it has its files.
                None => {
                    let by = process.told.iter().map(|told| told.by.clone());
                    self.closure.outputs.entry(process.program.clone()).or_default().extend(by);
                }
            }
        }
        for compilers::Tool { argv, confidence } in compiles.tools {
            let (from, reason) = (Some(process.program.clone()), STEP.to_owned());
            let edge = Edge { from, reason, evidence: step.clone(), when: Vec::new() };
            let confidence = confidence.max(process.confidence);
            self.launch(Process { argv, confidence, ..process.clone() }, edge);
        }
    }

    /// A program that starts sessions runs the shells of those who may log in, and these what their users ask for: any program on
    /// their path. Only the names of those are told. A seccomp profile of their system calls would allow everything; which of
    /// them a service's users need, nobody but its owner knows.
    fn follow_sessions(&mut self, process: &Process, evidence: &Evidence, has_shells: bool) {
        let sessions = sessions::of(self.world);
        for home in &sessions.homes {
            if let Ok(under) = home.join(b"**") {
                self.write(process, &under, Confidence::Possible, Vec::new(), evidence.clone());
            }
        }
        if !has_shells {
            return;
        }
        let edge = |evidence: &Evidence, reason: &str| Edge {
            from: Some(process.program.clone()),
            reason: reason.to_owned(),
            evidence: evidence.clone(),
            when: Vec::new(),
        };
        for shell in sessions.shells {
            let argv = vec![Some(shell.path)];
            let confidence = Confidence::Possible;
            let next = Process { argv, uid: Some(shell.uid), confidence, ..process.clone() };
            self.launch(next, edge(&shell.evidence, "login shell"));
        }
        for (argv, evidence) in sessions.subsystems {
            let argv = argv.into_iter().map(Some).collect();
            let next = Process { argv, confidence: Confidence::Possible, ..process.clone() };
            self.launch(next, edge(&evidence, "subsystem"));
        }
        for path in sessions.programs {
            let (confidence, evidence) = (Confidence::Possible, vec![evidence.clone()]);
            let item =
                Known { what: Exec { path: path.clone() }, confidence, probability: None, when: Vec::new(), evidence };
            self.closure.offered.entry(path).or_insert(item);
        }
        let place = process.program.as_bytes().escape_ascii().to_string();
        for (subject, what) in [(Subject::Exec, "runs"), (Subject::Syscalls, "needs")] {
            let why = format!("starts sessions: what a user of one {what} is not followed beyond the shell");
            self.closure.unknowns.insert(Unknown { place: place.clone(), subject, why });
        }
    }

    /// What the script of an interpreter does by itself: its commands are started, the rest is kept.
    fn follow_interpreter(&mut self, process: &Process) {
        let mut findings = self.scripts.findings(process, self.world);
        self.closure.reads.append(&mut findings.reads);
        self.closure.unknowns.append(&mut findings.unknowns);
        for scripts::Command { argv, env, confidence, evidence } in std::mem::take(&mut findings.runs) {
            let edge =
                Edge { from: Some(process.program.clone()), reason: CALLS.to_owned(), evidence, when: Vec::new() };
            let mut variables = process.env.clone();
            variables.extend(env);
            self.launch(Process { argv, env: variables, confidence, ..process.clone() }, edge);
        }
        self.closure.findings.entry(process.program.clone()).or_default().add(findings);
    }

    /// Programs that a configuration file on the command line names by their paths (`cgi.assign`, `url_rewrite_program`): which of its
    /// settings are commands only its own program knows.
    fn follow_configuration(&mut self, process: &Process) {
        for word in process.argv.iter().skip(1).flatten() {
            let path = word.split_once('=').map_or(word.as_str(), |(_, value)| value);
            let ending = path.rsplit_once('.').map(|(_, ending)| ending);
            if !path.starts_with('/') || !ending.is_some_and(|ending| CONFIGURATION.contains(&ending)) {
                continue;
            }
            let Ok(found) = self.world.resolve(&process.cwd, path) else { continue };
            let Ok(body) = self.world.rootfs.read(found.inode, self.world.text_bytes) else { continue };
            let layer = self.world.rootfs.layer_of(&found.path);
            for (number, program) in named_programs(&String::from_utf8_lossy(&body)) {
                if self.world.find_program(&process.cwd, program, "").is_none() {
                    continue;
                }
                let evidence = Evidence::File {
                    path: found.path.clone(),
                    line: Some(number),
                    layer,
                    detail: Some("named".to_owned()),
                };
                let (from, reason) = (Some(process.program.clone()), "named in its configuration".to_owned());
                let edge = Edge { from, reason, evidence, when: Vec::new() };
                let argv = vec![Some(program.to_owned())];
                self.launch(Process { argv, confidence: Confidence::Possible, ..process.clone() }, edge);
            }
        }
    }

    /// Starts what a wrapper or supervisor runs.
    fn hand_on(&mut self, process: &Process, name: &str, inner: Inner, written: Option<Evidence>) {
        let uid = match &inner.user {
            Some(user) => start::uid_of(user, self.world.accounts),
            None => process.uid,
        };
        let mut env = process.env.clone();
        env.extend(inner.env);
        let argv = match inner.line {
            Some(line) => {
                let shell = inner.user.as_ref().and_then(|user| {
                    let known = self.world.accounts.users.iter().find(|known| known.name == *user)?;
                    Some(known.shell.clone()).filter(|shell| !shell.is_empty())
                });
                vec![Some(shell.unwrap_or_else(|| "/bin/sh".to_owned())), Some("-c".to_owned()), Some(line)]
            }
            None => inner.argv,
        };
        let (reason, layer) = (format!("argument of {name}"), self.world.rootfs.layer_of(&process.program));
        let (reason, evidence) = match written {
            Some(Evidence::File { path, line, detail, .. }) => {
                let layer = self.world.rootfs.layer_of(&path);
                (format!("service of {name}"), Evidence::File { path, line, layer, detail })
            }
            _ => (
                reason.clone(),
                Evidence::Binary { path: process.program.clone(), offset: None, layer, detail: Some(reason) },
            ),
        };
        let edge = Edge { from: Some(process.program.clone()), reason, evidence, when: Vec::new() };
        self.launch(
            Process {
                program: process.program.clone(),
                argv,
                env,
                uid,
                cwd: process.cwd.clone(),
                confidence: process.confidence,
                told: process.told.clone(),
            },
            edge,
        );
    }

    /// Walks what a shell is told to run: `-c LINE`, or a script file.
    fn follow_shell(&mut self, process: &Process) {
        let mut words = process.argv.iter().skip(1);
        let mut line = false;
        let mut first = None;
        while let Some(word) = words.next() {
            match word.as_deref() {
                Some("-o" | "+o" | "-O" | "+O" | "--rcfile" | "--init-file") => {
                    words.next();
                }
                Some("--") => {
                    first = words.next().cloned();
                    break;
                }
                Some(option) if option.starts_with("--") => {}
                Some(option) if option.starts_with(['-', '+']) && option.len() > 1 => {
                    line |= option.starts_with('-') && option.contains('c')
                }
                _ => {
                    first = Some(word.clone());
                    break;
                }
            }
        }
        let rest: Vec<Arg> = words.cloned().collect();
        let Some(first) = first else { return };
        let edge =
            |evidence| Edge { from: Some(process.program.clone()), reason: String::new(), evidence, when: Vec::new() };
        let here = Evidence::Binary {
            path: process.program.clone(),
            offset: None,
            layer: None,
            detail: Some("shell command line".to_owned()),
        };
        let Some(first) = first else {
            self.unknown(&edge(here), "what the shell is told to run is not known".to_owned());
            return;
        };
        if line {
            let name = rest.first().cloned().flatten().unwrap_or_else(|| "sh".to_owned());
            let arguments = rest.get(1..).unwrap_or_default().to_vec();
            self.walk(process, Source { text: &first, path: None }, name, arguments, &process.program);
            return;
        }
        let here = self.world.resolve(&process.cwd, &first).ok();
        let found = here.or_else(|| self.world.find_program(&process.cwd, &first, process.path()));
        let Some(found) = found else { return };
        match self.world.rootfs.read(found.inode, self.limits.text_bytes).map(String::from_utf8) {
            Ok(Ok(text)) => {
                if !self.closure.exec.contains_key(&found.path) {
                    self.note_script(process, &first);
                }
                self.walk(process, Source { text: &text, path: Some(&found.path) }, first, rest, &found.path);
            }
            Ok(Err(_)) => self.unknown(&edge(file(&found.path)), "the script is no UTF-8 text".to_owned()),
            Err(error) => self.unknown(&edge(file(&found.path)), error.to_string()),
        }
    }

    /// Walks a script and starts what it calls.
    fn walk(&mut self, process: &Process, source: Source<'_>, name: String, arguments: Vec<Arg>, from: &ImagePath) {
        let circumstances =
            Circumstances { name, arguments, env: process.env.clone(), uid: process.uid, cwd: process.cwd.clone() };
        let outcome = shell::run(source, &circumstances, self.world);
        let own = process.told.as_ref().map(|told| told.evidence.clone());
        let own = own.unwrap_or_else(|| Evidence::Config { key: "command line".to_owned() });
        self.closure.reads.extend(outcome.reads);
        for (path, line, why) in outcome.open {
            let place = match (path, line) {
                (Some(path), Some(line)) => format!("{}:{line}", path.as_bytes().escape_ascii()),
                (Some(path), None) => path.as_bytes().escape_ascii().to_string(),
                (None, _) => format!("{} -c", from.as_bytes().escape_ascii()),
            };
            self.closure.unknowns.insert(Unknown { place, subject: Subject::Exec, why });
        }
        for shell::Written { path, file, line, confidence, when } in outcome.writes {
            let evidence = match file {
                Some(path) => Evidence::File { layer: self.world.rootfs.layer_of(&path), path, line, detail: None },
                None => own.clone(),
            };
            self.write(process, &path, confidence.max(Confidence::Likely), when, evidence);
        }
        for call in outcome.calls {
            let evidence = match call.file {
                Some(path) => {
                    Evidence::File { layer: self.world.rootfs.layer_of(&path), path, line: call.line, detail: None }
                }
                None => own.clone(),
            };
            let edge = Edge { from: Some(from.clone()), reason: CALLS.to_owned(), evidence, when: call.when };
            let confidence = process.confidence.max(call.confidence);
            let next = Process {
                program: from.clone(),
                argv: call.argv,
                env: call.env,
                uid: process.uid,
                cwd: call.cwd,
                confidence,
                told: process.told.clone(),
            };
            self.launch(next, edge);
        }
    }

    /// Notes a file that a process writes.
    fn write(
        &mut self,
        process: &Process,
        path: &ImagePath,
        confidence: Confidence,
        when: Vec<Condition>,
        evidence: Evidence,
    ) {
        let path = places::real(self.world.rootfs, path);
        let text = path.to_string_lossy();
        if !places::is_kept(&path) || dna::redact(&text) != text {
            return;
        }
        let confidence = confidence.max(process.confidence);
        let writes = &mut self.closure.findings.entry(process.program.clone()).or_default().write;
        if writes.len() < MAX_WRITES {
            writes.push(Known {
                what: dna::Write { path },
                confidence,
                probability: None,
                when,
                evidence: vec![evidence],
            });
        }
    }

    /// What a file tool writes by its operands.
    fn write_operands(&mut self, process: &Process, name: &str) {
        for Written { path, how } in operands::written(name, &process.argv) {
            let Ok(path) = process.cwd.join(path.as_bytes()) else { continue };
            if path.is_root() {
                continue;
            }
            let exists = self.world.rootfs.resolve(&path).is_ok();
            let evidence = Evidence::Binary {
                path: process.program.clone(),
                offset: None,
                layer: self.world.rootfs.layer_of(&process.program),
                detail: Some(format!("argument of {name}")),
            };
            // What is there already is not made, and what is not there is not removed.
            let is_expected = match how {
                How::Folder => !exists,
                How::Removed | How::Changed | How::Tree => exists,
                How::File => self.world.rootfs.resolve(&path).is_ok_and(|found| self.is_file(found.inode)) || !exists,
            };
            let confidence = if is_expected { Confidence::Likely } else { Confidence::Possible };
            if how == How::Folder {
                let mut above = path.parent();
                while let Some(folder) = above.filter(|folder| self.world.rootfs.resolve(folder).is_err()) {
                    self.write(process, &folder, confidence, Vec::new(), evidence.clone());
                    above = folder.parent();
                }
            }
            if how == How::Tree
                && let Ok(under) = path.join(b"**")
            {
                self.write(process, &under, Confidence::Possible, Vec::new(), evidence.clone());
            }
            self.write(process, &path, confidence, Vec::new(), evidence);
        }
    }

    fn is_file(&self, inode: crate::InodeId) -> bool {
        self.world.rootfs.file(inode).is_some()
    }

    /// Notes a file that an interpreter is told to run.
    fn note_script(&mut self, process: &Process, script: &str) {
        let Ok(found) = self.world.resolve(&process.cwd, script) else { return };
        if found.path == process.program {
            return;
        }
        let layer = self.world.rootfs.layer_of(&found.path);
        let run = Run {
            program: found.path.clone(),
            called: BTreeSet::new(),
            reason: TOLD.to_owned(),
            confidence: process.confidence,
            when: Vec::new(),
            evidence: vec![Evidence::File { path: found.path.clone(), line: None, layer, detail: None }],
        };
        // A `#!` script is executed itself; the edge back to it would say nothing new.
        if !self.closure.exec.contains_key(&found.path) {
            self.run(process.program.clone(), run);
            self.closure.scripts.insert(found.path);
        }
    }
}

/// The reason of an edge to a file that an interpreter reads: no execve(2).
pub(crate) const TOLD: &str = "script argument";

/// The reason of an edge from a compiled program.
const EXECUTES: &str = "executes";

/// The reason of an edge from a compiler's driver to the tools it documents to run.
const STEP: &str = "step of a compiler";

/// The reason of an edge from a script to what it calls.
const CALLS: &str = "calls";

/// Endings of files that set a program up.
const CONFIGURATION: [&str; 7] = ["conf", "cfg", "cnf", "cf", "ini", "config", "rc"];
/// Paths that are looked up of one file.
const MAX_PATHS: usize = 1_000;

/// Absolute paths in a text's lines, but for comments, with the lines' numbers.
fn named_programs(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let lines = (1u32..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with(['#', ';']));
    let words = lines.flat_map(|(number, line)| {
        line.split(|c: char| c.is_whitespace() || "\"'=(),;|{}[]<>".contains(c)).map(move |word| (number, word))
    });
    words.filter(|(_, word)| word.len() > 2 && word.starts_with('/')).take(MAX_PATHS)
}

const MAX_EVIDENCE: usize = 4;
/// Programs of one name: a few versions.
const MAX_NAMESAKES: usize = 20;
/// Files written that are kept of one program's processes: a start script writes some ten.
const MAX_WRITES: usize = 2_000;
/// The kernel reads this much of a file to find its interpreter (`BINPRM_BUF_SIZE`).
const SHEBANG_BYTES: u64 = 256;

fn file(path: &ImagePath) -> Evidence {
    Evidence::File { path: path.clone(), line: None, layer: None, detail: None }
}

fn place(evidence: &Evidence) -> String {
    match evidence {
        Evidence::File { path, line: Some(line), .. } => format!("{}:{line}", path.as_bytes().escape_ascii()),
        Evidence::File { path, .. } | Evidence::Binary { path, .. } => path.as_bytes().escape_ascii().to_string(),
        Evidence::Config { key } => format!("config {key}"),
        _ => "start".to_owned(),
    }
}

fn is_text(head: &[u8]) -> bool {
    std::str::from_utf8(head).is_ok_and(|text| !text.contains('\0')) && !head.starts_with(b"\x7fELF")
}

fn is_option(word: &Arg) -> bool {
    word.as_deref().is_some_and(|word| word.starts_with('-'))
}

/// Whether a program of this name takes its first argument for the name it is called by.
fn is_multicall(name: &str) -> bool {
    matches!(name, "busybox" | "toybox")
}

/// The name a process's program is called by, where it is not its file's own.
fn called(process: &Process) -> BTreeSet<String> {
    let own = process.program.file_name();
    let name = |word: &Arg| Some(base_name(word.as_deref()?).trim_start_matches('-').to_owned());
    let mut called = process.argv.first().and_then(name);
    if called.as_deref().is_some_and(|name| name.as_bytes() == own && is_multicall(name)) {
        called = process.argv.iter().skip(1).find(|word| !is_option(word)).and_then(name);
    }
    called.into_iter().filter(|name| !name.is_empty() && name.as_bytes() != own).collect()
}

fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

pub(crate) fn is_shell(name: &str) -> bool {
    matches!(
        name,
        "sh" | "ash"
            | "dash"
            | "bash"
            | "rbash"
            | "ksh"
            | "ksh93"
            | "mksh"
            | "lksh"
            | "oksh"
            | "yash"
            | "zsh"
            | "posh"
            | "hush"
    )
}

/// The script or archive that an interpreter is told to run, by its documented options.
fn interpreted(name: &str, argv: &[Arg]) -> Option<String> {
    // Versions are part of many interpreters' names.
    let family = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let (valued, stops): (&[&str], &[&str]) = match family {
        "python" | "pypy" => (&["-W", "-X", "--check-hash-based-pycs"], &["-c", "-m"]),
        "perl" => (&["-I"], &["-e", "-E"]),
        "ruby" => (&["-I", "-r", "-C", "-E"], &["-e"]),
        "node" | "nodejs" | "bun" | "deno" => {
            (&["-r", "--require", "--import", "--loader", "-C"], &["-e", "-p", "--eval", "--print"])
        }
        "php" => (&["-c", "-d", "-z", "-f"], &["-r", "-S", "-a"]),
        "lua" | "luajit" | "tclsh" | "Rscript" => (&["-l"], &["-e"]),
        "java" => return jar(argv),
        "dotnet" => (&["--fx-version", "--depsfile", "--runtimeconfig", "--additionalprobingpath"], &[]),
        _ => return None,
    };
    let mut words = argv.iter().skip(1);
    while let Some(word) = words.next() {
        let word = word.as_deref()?;
        if stops.contains(&word) {
            return None;
        }
        if family == "php" && word == "-f" {
            return words.next().cloned().flatten();
        }
        if valued.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word.to_owned());
        }
    }
    None
}

/// `java [options] -jar FILE`.
fn jar(argv: &[Arg]) -> Option<String> {
    let at = argv.iter().position(|word| word.as_deref() == Some("-jar"))?;
    argv.get(at.saturating_add(1)).cloned().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rootfs;

    fn reached(rootfs: &Rootfs, argv: &[&str], env: &[(&str, &str)], uid: u32) -> Closure {
        reached_by(rootfs, argv, env, uid, &mut Silent)
    }

    fn reached_by(rootfs: &Rootfs, argv: &[&str], env: &[(&str, &str)], uid: u32, oracle: &mut dyn Oracle) -> Closure {
        let limits = Limits::default();
        let accounts = crate::accounts::read(rootfs, &limits, &mut Vec::new());
        let world = World { rootfs, accounts: &accounts, text_bytes: limits.text_bytes };
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let launch = Launch {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: env.iter().map(owned).collect(),
            uid: Some(uid),
            cwd: ImagePath::root(),
            confidence: Confidence::Certain,
            evidence: Evidence::Config { key: "Cmd".to_owned() },
        };
        reach(&[launch], world, &limits, oracle)
    }

    /// Programs executed, `~` in front of a likely one, `?` of a possible one; and how many things stay open.
    fn executed(rootfs: &Rootfs, argv: &[&str], env: &[(&str, &str)], uid: u32) -> (Vec<String>, Vec<String>) {
        let closure = reached(rootfs, argv, env, uid);
        let shown = |item: &Known<Exec>| {
            let mark = match item.confidence {
                Confidence::Certain => "",
                Confidence::Likely => "~",
                Confidence::Possible => "?",
            };
            format!("{mark}{}", item.what.path)
        };
        let open = closure.unknowns.iter().map(|unknown| format!("{}: {}", unknown.place, unknown.why)).collect();
        (closure.exec.values().map(shown).collect(), open)
    }

    /// A tree with a shell, its usual programs, and one script as entrypoint.
    fn tree(script: &str) -> Rootfs {
        let mut rootfs = Rootfs::default();
        for name in ["dash", "env", "find", "sort", "id", "app", "other", "gosu", "chown", "sed", "tini", "xargs"] {
            rootfs.put_file(&format!("/bin/{name}"), 0o755, "\x7fELF");
        }
        rootfs.put_link("/bin/sh", "dash");
        rootfs.put_file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n");
        rootfs.put_file("/entry.sh", 0o755, format!("#!/bin/sh\n{script}"));
        rootfs
    }

    fn run(script: &str, arguments: &[&str]) -> Vec<String> {
        let argv: Vec<&str> = ["/entry.sh"].iter().chain(arguments).copied().collect();
        let (executed, open) = executed(&tree(script), &argv, &[], 0);
        assert!(open.is_empty(), "{open:?}");
        executed.into_iter().filter(|path| path != "/bin/dash" && path != "/entry.sh").collect()
    }

    #[test]
    fn a_script_runs_its_interpreter_and_what_it_calls() {
        let (executed, _) = executed(&tree("set -e\nexec \"$@\"\n"), &["/entry.sh", "app", "-x"], &[], 0);
        assert_eq!(executed, ["/bin/app", "/bin/dash", "/entry.sh"]);
    }

    /// A program whose code has a line for a shell.
    struct Has(&'static str);

    impl Oracle for Has {
        fn acts(&mut self, process: &Process) -> Arc<Acts> {
            let evidence = Evidence::Binary {
                path: process.program.clone(),
                offset: Some(0x40),
                layer: None,
                detail: Some("line".to_owned()),
            };
            let argv = [Some("/bin/sh"), Some("-c"), Some(self.0)].map(|word| word.map(str::to_owned)).to_vec();
            let env = vec![(shell::NOT_KNOWN.to_owned(), None)];
            let line = scripts::Command { argv, env, confidence: Confidence::Possible, evidence };
            let lines = if process.program.file_name() == b"app" { vec![line] } else { Vec::new() };
            Arc::new(Acts { lines, ..Acts::default() })
        }
    }

    #[test]
    fn a_line_for_a_compiler_leads_to_its_tools() {
        let mut rootfs = tree("");
        for path in ["bin/cc", "bin/x86_64-linux-gnu-ld.bfd", "lib/gcc/m/12/cc1", "lib/gcc/m/12/collect2", "bin/as"] {
            rootfs.put_file(&format!("/{path}"), 0o755, "\x7fELF");
        }
        rootfs.put_link("/bin/ld", "x86_64-linux-gnu-ld.bfd");
        let closure = reached_by(
            &rootfs,
            &["app"],
            &[],
            0,
            &mut Has("exec cc -g -shared -o \"${_not_known}\" \"${_not_known}\""),
        );
        let edges = |from: &str| {
            let runs = closure.runs.get(&from.parse().expect("a path")).map(Vec::as_slice).unwrap_or_default();
            runs.iter().map(|run| format!("{} {}", run.program, run.reason)).collect::<Vec<_>>()
        };
        assert_eq!(edges("/bin/app"), ["/bin/dash executes"]);
        assert_eq!(edges("/bin/dash"), ["/bin/cc calls"]);
        let tools = ["/lib/gcc/m/12/cc1", "/bin/as", "/lib/gcc/m/12/collect2"];
        assert_eq!(edges("/bin/cc"), tools.map(|tool| format!("{tool} step of a compiler")));
        assert_eq!(edges("/lib/gcc/m/12/collect2"), ["/bin/x86_64-linux-gnu-ld.bfd step of a compiler"]);
        assert!(
            closure
                .exec
                .iter()
                .all(|(path, item)| path.file_name() == b"app" || item.confidence == Confidence::Possible)
        );
        // Evidence is where the line stands, and what is written is its program's affair.
        let cc = closure.exec.get(&"/bin/cc".parse().expect("a path")).expect("executed");
        assert!(matches!(cc.evidence.as_slice(), [Evidence::Binary { offset: Some(0x40), .. }]), "{:?}", cc.evidence);
        let ld = closure.outputs.get(&"/bin/x86_64-linux-gnu-ld.bfd".parse().expect("a path"));
        assert_eq!(ld, Some(&BTreeSet::from(["/bin/app".parse().expect("a path")])));
        assert!(closure.missing.is_empty() && closure.unknowns.is_empty(), "{:?}", closure.unknowns);
    }

    #[test]
    fn a_line_of_a_program_that_is_not_there_is_nothing() {
        let closure = reached_by(&tree(""), &["app"], &[], 0, &mut Has("exec cc -g -o \"${_not_known}\""));
        assert_eq!(closure.exec.len(), 1);
        assert!(closure.missing.is_empty() && closure.unknowns.is_empty(), "{:?}", closure.unknowns);
    }

    #[test]
    fn functions_and_builtins_are_no_programs() {
        assert_eq!(run("id() { echo x; }\nid\necho app\nfoo() { app; }\nfoo\n", &[]), ["/bin/app"]);
    }

    #[test]
    fn a_way_this_start_does_not_take_is_only_possible() {
        let script = "if [ \"$1\" = serve ]; then app; else other; fi\n";
        assert_eq!(run(script, &["serve"]), ["/bin/app", "?/bin/other"]);
        assert_eq!(run(script, &["x"]), ["?/bin/app", "/bin/other"]);
        let case = "case \"$1\" in s*) app ;; *) other ;; esac\n";
        assert_eq!(run(case, &["serve"]), ["/bin/app", "?/bin/other"]);
    }

    #[test]
    fn a_way_that_cannot_be_decided_is_likely() {
        assert_eq!(
            run("if grep -q x /proc/1/status; then app; fi\nother\n".replace("grep", "sed").as_str(), &[]),
            ["~/bin/app", "~/bin/other", "/bin/sed"]
        );
    }

    #[test]
    fn set_options_leave_the_arguments_alone() {
        assert_eq!(run("set -Eeuo pipefail\nexec \"$@\"\n", &["app"]), ["/bin/app"]);
        assert_eq!(
            run("if [ \"${1#-}\" != \"$1\" ]; then set -- app \"$@\"; fi\nexec \"$@\"\n", &["-v"]),
            ["/bin/app"]
        );
    }

    #[test]
    fn a_script_that_drops_its_user_runs_again_as_that_user() {
        let script = "if [ \"$(id -u)\" = 0 ]; then exec gosu web \"$0\" \"$@\"; fi\nexec \"$@\"\n";
        assert_eq!(run(script, &["app"]), ["/bin/app", "/bin/gosu", "/bin/id"]);
    }

    #[test]
    fn wrappers_pipes_substitutions_and_traps_are_followed() {
        assert_eq!(
            run("x=$(sed -n 1p f | sort)\ntini -- app\n", &[]),
            ["/bin/app", "/bin/sed", "/bin/sort", "/bin/tini"]
        );
        assert_eq!(
            run("find . -exec chown web {} +\nfind . | xargs sed x\n", &[]),
            ["/bin/chown", "/bin/find", "/bin/sed", "/bin/xargs"]
        );
        assert_eq!(run("trap 'app' EXIT\n:\n", &[]), ["?/bin/app"]);
        assert_eq!(run("sh -c 'exec app'\n", &[]), ["/bin/app"]);
        assert_eq!(run("eval \"app x\"\n", &[]), ["/bin/app"]);
    }

    #[test]
    fn files_of_a_folder_are_run_as_a_loop_names_them() {
        let mut rootfs = tree(
            "for f in /init.d/*.sh; do \"$f\"; done\nfind /init.d -type f | sort | while read -r f; do [ -x \"$f\" ] && \"$f\"; done\n",
        );
        rootfs.put_file("/init.d/1.sh", 0o755, "#!/bin/sh\napp\n");
        rootfs.put_file("/init.d/2.txt", 0o755, "#!/bin/sh\nother\n");
        rootfs.put_file("/init.d/3.sh.off", 0o644, "#!/bin/sh\nchown\n");
        let (executed, open) = executed(&rootfs, &["/entry.sh"], &[], 0);
        assert!(open.is_empty(), "{open:?}");
        assert_eq!(
            executed.iter().filter(|path| !path.starts_with("/bin/d")).collect::<Vec<_>>(),
            ["/bin/app", "/bin/find", "/bin/other", "/bin/sort", "/entry.sh", "/init.d/1.sh", "/init.d/2.txt"]
        );
    }

    #[test]
    fn sourced_files_and_environment_count() {
        let mut rootfs = tree(". /etc/conf\n$PROGRAM x\n${OTHER:-other}\n");
        rootfs.put_file("/etc/conf", 0o644, "PROGRAM=app\n");
        let (executed, _) = executed(&rootfs, &["/entry.sh"], &[], 0);
        assert!(
            executed.contains(&"/bin/app".to_owned()) && executed.contains(&"/bin/other".to_owned()),
            "{executed:?}"
        );
    }

    #[test]
    fn a_name_that_stays_open_is_an_unknown() {
        let (_, open) = executed(&tree("x=$(date)\n$x run\n"), &["/entry.sh"], &[], 0);
        assert!(open.iter().any(|why| why.contains("/entry.sh:3") && why.contains("not known")), "{open:?}");
        let (_, open) = executed(&tree("nosuch x\n"), &["/entry.sh"], &[], 0);
        assert!(open.iter().any(|why| why.contains("`nosuch`, which the image does not have")), "{open:?}");
        let (_, open) = executed(&tree("if then fi (\n"), &["/entry.sh"], &[], 0);
        assert!(open.iter().any(|why| why.contains("shell parser")), "{open:?}");
    }

    #[test]
    fn circles_end() {
        assert_eq!(run("/entry.sh \"$@\" &\nf() { f; }\nf\nwhile :; do app; done\n", &["x"]), ["/bin/app"]);
    }

    #[test]
    fn a_multi_call_binary_is_what_it_is_called() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file("/bin/busybox", 0o755, "\x7fELF");
        rootfs.put_link("/bin/sh", "busybox");
        rootfs.put_file("/bin/app", 0o755, "\x7fELF");
        let first = executed(&rootfs, &["sh", "-c", "app"], &[], 0).0;
        let second = executed(&rootfs, &["busybox", "sh", "-c", "app"], &[], 0).0;
        assert_eq!(
            (first, second),
            (vec!["/bin/app".to_owned(), "/bin/busybox".into()], vec!["/bin/app".to_owned(), "/bin/busybox".into()])
        );
    }

    #[test]
    fn an_edge_to_a_multicall_program_has_the_names_it_is_called_by() {
        let mut rootfs = tree("");
        rootfs.put_file("/bin/busybox", 0o755, "\x7fELF");
        for name in ["ash", "mkdir", "id"] {
            rootfs.put_link(&format!("/bin/{name}"), "busybox");
        }
        rootfs.put_file("/entry", 0o755, "#!/bin/ash\nmkdir /x\nbusybox id\n");
        let closure = reached(&rootfs, &["/entry"], &[], 0);
        let runs = closure.runs.get(&"/entry".parse().expect("a path")).expect("edges");
        let called: Vec<_> = runs
            .iter()
            .map(|run| (run.program.to_string(), run.called.iter().cloned().collect::<Vec<_>>().join(" ")))
            .collect();
        assert_eq!(called, [("/bin/busybox".to_owned(), "ash id mkdir".to_owned())]);
    }

    #[test]
    fn a_supervisor_may_be_a_script() {
        let mut rootfs = tree("");
        rootfs.put_file("/usr/bin/python3.11", 0o755, "\x7fELF");
        rootfs.put_file("/usr/bin/supervisord", 0o755, "#!/usr/bin/python3.11\n");
        rootfs.put_file("/etc/supervisord.conf", 0o644, "[program:x]\ncommand=app --serve\n");
        assert_eq!(
            executed(&rootfs, &["/usr/bin/supervisord", "-c", "/etc/supervisord.conf"], &[], 0).0,
            ["/bin/app", "/usr/bin/python3.11", "/usr/bin/supervisord"]
        );
    }

    #[test]
    fn what_a_configuration_names_may_be_run() {
        let mut rootfs = tree("");
        rootfs.put_file("/served", 0o755, "\x7fELF");
        let text = "# /bin/other\ncgi = (\".x\" => \"/bin/app\")\npid = /run/served.pid\n";
        rootfs.put_file("/etc/served.conf", 0o644, text);
        assert_eq!(executed(&rootfs, &["/served", "-f", "/etc/served.conf"], &[], 0).0, ["?/bin/app", "/served"]);
        assert_eq!(executed(&rootfs, &["/served", "--config=/etc/served.conf"], &[], 0).0, ["?/bin/app", "/served"]);
    }

    #[test]
    fn text_that_is_known_in_part_is_evaluated() {
        let mut rootfs = tree("");
        rootfs.put_file("/entry", 0o755, "#!/bin/sh\nrun=/bin/app\neval exec \"\\\"$run\\\"\" $(date) \"$@\"\n");
        let (all, open) = executed(&rootfs, &["/entry"], &[], 0);
        assert_eq!((all.contains(&"/bin/app".to_owned()), open.len()), (true, 2), "{all:?} {open:?}");
    }

    #[test]
    fn a_text_without_interpreter_is_run_by_the_shell() {
        let mut rootfs = tree("");
        rootfs.put_file("/plain", 0o755, "app\n");
        assert_eq!(executed(&rootfs, &["/plain"], &[], 0).0, ["/bin/app", "/bin/dash", "/plain"]);
    }

    #[test]
    fn what_a_script_of_an_interpreter_calls_is_followed() {
        let mut rootfs = tree("");
        rootfs.put_file("/usr/bin/python3.11", 0o755, "\x7fELF");
        let script = "#!/usr/bin/python3.11\nimport subprocess\nsubprocess.run(['sh', '-c', 'app; other'])\nsubprocess.run(cmd, shell=True)\n";
        rootfs.put_file("/serve.py", 0o755, script);
        let (executed, open) = executed(&rootfs, &["/serve.py"], &[], 0);
        assert_eq!(executed, ["~/bin/app", "~/bin/dash", "~/bin/other", "/serve.py", "/usr/bin/python3.11"]);
        assert_eq!(open, ["/bin/dash: what the shell is told to run is not known"]);
    }

    #[test]
    fn an_interpreter_is_told_its_script() {
        assert_eq!(
            interpreted("python3.11", &["python3.11", "-W", "x", "app.py", "y"].map(|word| Some(word.to_owned()))),
            Some("app.py".to_owned())
        );
        assert_eq!(
            interpreted("java", &["java", "-Xmx1g", "-jar", "/a.jar"].map(|word| Some(word.to_owned()))),
            Some("/a.jar".to_owned())
        );
        assert_eq!(interpreted("python3", &["python3", "-m", "http.server"].map(|word| Some(word.to_owned()))), None);
    }
}
