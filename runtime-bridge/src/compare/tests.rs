//! A small web server's DNA, and events that are and are not expected of it.

use dna::Dna;
use serde_json::{Value, json};

use crate::{
    Class, Expected, History, judge,
    sensor::{Dialect, Told, decode},
};

/// A shell entry point that starts a server, in a Debian-like image with tools that nothing leads to.
pub(crate) fn dna() -> Dna {
    let digest = format!("sha256:{}", "0".repeat(64));
    let elf = json!({"architecture": "amd64", "linkage": "dynamic", "stripped": true, "hardening": {"pie": "yes", "relro": "full", "nx": "yes", "canary": "yes", "fortify": "yes"}});
    let program = |path: &str, package: &str, aliases: Value, runs: Value, behavior: Value| {
        let mut program = json!({"path": path, "sha256": digest, "size": 1, "layer": 0, "package": format!("pkg:deb/debian/{package}@1?arch=amd64"),
            "aliases": aliases, "uid": 0, "gid": 0, "mode": 0o755, "kind": "elf", "facts": elf, "runs": runs});
        if !behavior.is_null() {
            program["behavior"] = behavior;
        }
        program
    };
    let run = |program: &str, reason: &str| json!({"program": program, "reason": reason, "confidence": "certain", "evidence": []});
    let known = |value: Value| {
        let mut value = value;
        value["confidence"] = "certain".into();
        value["evidence"] = json!([]);
        value
    };
    let partial = json!({"state": "partial", "reason": "a test"});
    let complete = json!({"exec": partial, "load": partial, "syscalls": partial, "capabilities": partial, "listen": partial, "connect": partial, "write": partial, "read": partial});
    let server = json!({"listen": [known(json!({"protocol": "tcp", "port": 80}))], "write": [known(json!({"path": "/etc/served/**"}))],
        "syscalls": [known(json!({"name": "connect"}))], "completeness": complete});
    let mut script = program(
        "/entry.sh",
        "served",
        json!([]),
        json!([run("/usr/bin/dash", "#! interpreter"), run("/usr/sbin/served", "calls")]),
        json!({"completeness": complete}),
    );
    script["kind"] = "script".into();
    script["facts"] = json!({"shebang": ["/bin/sh"]});
    let dna = json!({
        "schema": dna::SCHEMA,
        "analyzer": {"name": "mayfly", "version": "0", "rules": digest},
        "image": {"platform": "linux/amd64"},
        "layers": [{}],
        "start": {"argv": ["/entry.sh"], "program": "/entry.sh", "uid": 0, "gid": 0},
        "programs": [
            script,
            program("/usr/bin/cat", "coreutils", json!([]), json!([]), Value::Null),
            program("/usr/bin/dash", "dash", json!(["/bin/sh", "/usr/bin/sh"]), json!([]), json!({"completeness": complete})),
            program("/usr/bin/served-ctl", "served-tools", json!([]), json!([]), Value::Null),
            program("/usr/sbin/served", "served", json!([]), json!([]), server.clone()),
        ],
        "accounts": {"users": [], "groups": []},
        "folders": [],
        "behavior": {"exec": [known(json!({"path": "/entry.sh"})), known(json!({"path": "/usr/bin/dash"})), known(json!({"path": "/usr/sbin/served"}))],
            "listen": server["listen"], "write": server["write"], "syscalls": server["syscalls"], "completeness": complete},
        "unknowns": [],
    });
    serde_json::from_value(dna).expect("a DNA")
}

/// A container under events that differ only in what is given.
struct Container {
    expected: Expected,
    history: History,
    clock: i64,
    messages: Vec<String>,
}

impl Container {
    fn new() -> Self {
        Self { expected: Expected::of_image(&dna()), history: History::default(), clock: 0, messages: Vec::new() }
    }

    /// One that has started and serves, as process 10.
    fn serving() -> Self {
        let mut container = Self::new();
        let starts = json!({"evt.type": "execve", "proc.pid": 10, "proc.ppid": 1, "proc.pname": "runc", "proc.exepath": "/usr/bin/dash", "proc.exe": "/bin/sh", "proc.args": "/entry.sh", "evt.arg.filename": "/entry.sh"});
        assert_eq!(container.see(starts), []);
        let server = json!({"evt.type": "execve", "proc.pid": 10, "proc.ppid": 1, "proc.pname": "runc", "proc.exepath": "/usr/sbin/served", "proc.exe": "served"});
        assert_eq!(container.see(server), []);
        assert_eq!(container.see(json!({"evt.type": "listen", "proc.pid": 10, "proc.exepath": "/usr/sbin/served", "fd.l4proto": "tcp", "fd.lip": "0.0.0.0", "fd.lport": 80})), []);
        container
    }

    fn see(&mut self, mut fields: Value) -> Vec<Class> {
        self.clock += 1_000_000;
        fields["evt.time"] = (1_700_000_000_000_000_000_i64 + self.clock).into();
        fields["container.id"] = "0123456789ab".into();
        let item = json!({"output_fields": fields, "source": "syscall"}).to_string();
        let Ok(Told::Activity(activity)) = decode(Dialect::Falco, item.as_bytes()) else {
            panic!("an activity: {item}")
        };
        let found = judge(&self.expected, &mut self.history, &activity);
        self.messages = found.iter().map(|deviation| deviation.message.clone()).collect();
        found.into_iter().map(|deviation| deviation.class).collect()
    }
}

/// An execution by the server.
fn executes(pid: u32, exe: &str, args: &str) -> Value {
    json!({"evt.type": "execve", "proc.pid": pid, "proc.ppid": 10, "proc.pname": "served", "proc.pexepath": "/usr/sbin/served", "proc.exepath": exe, "proc.exe": exe, "proc.args": args})
}

#[test]
fn what_the_image_does_by_itself_is_expected() {
    let mut container = Container::serving();
    for (path, is_write) in
        [("/var/lib/served/data", true), ("/tmp/x", true), ("/etc/served/state", true), ("/etc/hosts", false)]
    {
        let opens = json!({"evt.type": "openat", "proc.pid": 10, "proc.exepath": "/usr/sbin/served", "fd.name": path, "evt.is_open_write": is_write, "evt.is_open_read": !is_write});
        assert_eq!(container.see(opens), [], "{path}");
    }
}

#[test]
fn programs_are_told_by_where_they_come_from() {
    let mut container = Container::serving();
    assert_eq!(container.see(executes(20, "/usr/bin/cat", "/etc/hosts")), [Class::ProgramNotReachable]);
    assert_eq!(container.see(executes(21, "/tmp/x", "")), [Class::ProgramNotInImage]);
    let mut written = executes(22, "/usr/sbin/served", "");
    written["proc.is_exe_upper_layer"] = true.into();
    assert_eq!(container.see(written), [Class::ProgramNotInImage]);
    let mut memory = executes(23, "memfd:x", "");
    memory["proc.is_exe_from_memfd"] = true.into();
    assert_eq!(container.see(memory), [Class::ProgramNotInImage]);
    assert_eq!(container.see(executes(24, "/usr/bin/dash", "-c id")), [Class::StepNotPredicted]);
    // A worker.
    assert_eq!(container.see(executes(25, "/usr/sbin/served", "--worker")), []);
}

#[test]
fn what_descends_from_a_stray_step_has_strayed() {
    let mut container = Container::serving();
    assert_eq!(container.see(executes(20, "/usr/bin/cat", "")), [Class::ProgramNotReachable]);
    let calls = json!({"evt.type": "connect", "proc.pid": 20, "proc.exepath": "/usr/bin/cat", "fd.l4proto": "tcp", "fd.rip": "10.0.0.1", "fd.rport": 4444});
    assert_eq!(container.see(calls.clone()), [Class::Connect]);
    let mut server = calls;
    server["proc.pid"] = 10.into();
    server["proc.exepath"] = "/usr/sbin/served".into();
    assert_eq!(container.see(server.clone()), [], "the server may call within the cluster");
    server["fd.rip"] = "169.254.169.254".into();
    assert_eq!(container.see(server.clone()), [Class::Connect], "the cloud's metadata");
    server["fd.rip"] = "93.184.216.34".into();
    assert_eq!(container.see(server), [Class::Connect], "the internet");
}

/// A server forks a process that executes something, and then another one: that one is a copy of the server, not of what the first became.
#[test]
fn who_strayed_is_no_model_for_the_next_one_alike() {
    for parent in [
        json!({"proc.ppid": 10, "proc.pname": "served", "proc.pexepath": "/usr/sbin/served"}),
        json!({"proc.pname": "served", "proc.pexepath": "/usr/sbin/served"}),
    ] {
        let mut container = Container::serving();
        let calls = |pid: u32| {
            let mut event = json!({"evt.type": "connect", "proc.pid": pid, "proc.exepath": "/usr/sbin/served", "proc.exe": "served", "fd.l4proto": "tcp", "fd.rip": "10.0.0.1", "fd.rport": 5432});
            event.as_object_mut().expect("fields").extend(parent.as_object().cloned().expect("fields"));
            event
        };
        assert_eq!(container.see(calls(20)), []);
        assert_eq!(container.see(executes(20, "/usr/bin/cat", "")), [Class::ProgramNotReachable]);
        assert_eq!(container.see(calls(21)), []);
    }
}

#[test]
fn a_command_from_outside_is_told_but_for_the_server_s_own_check() {
    let from_outside = |pid: u32, exe: &str, args: &str| json!({"evt.type": "execve", "proc.pid": pid, "proc.ppid": 2, "proc.pname": "runc", "proc.exepath": exe, "proc.exe": exe, "proc.args": args});
    let mut container = Container::serving();
    assert_eq!(container.see(from_outside(30, "/usr/bin/dash", "-c id; uname")), [Class::CommandFromOutside]);
    assert_eq!(container.see(from_outside(31, "/usr/bin/served-ctl", "ping")), []);
    assert_eq!(container.see(from_outside(32, "/usr/bin/dash", "-c served-ctl ping")), []);
    let child = json!({"evt.type": "execve", "proc.pid": 33, "proc.ppid": 32, "proc.pname": "sh", "proc.exepath": "/usr/bin/served-ctl", "proc.exe": "served-ctl", "proc.args": "ping"});
    assert_eq!(container.see(child), []);
    assert_eq!(
        container.see(from_outside(34, "/usr/bin/dash", "-c served-ctl ping; cat /etc/shadow")),
        [Class::CommandFromOutside, Class::SensitiveRead]
    );
}

#[test]
fn ports_files_and_calls_that_nothing_leads_to() {
    let mut container = Container::serving();
    let by_server = |fields: Value| {
        let mut fields = fields;
        fields["proc.pid"] = 10.into();
        fields["proc.exepath"] = "/usr/sbin/served".into();
        fields
    };
    let listens = |port: u16| {
        by_server(json!({"evt.type": "listen", "fd.l4proto": "tcp", "fd.lip": "0.0.0.0", "fd.lport": port}))
    };
    assert_eq!(container.see(listens(80)), []);
    assert_eq!(container.see(listens(31337)), [Class::Listen]);
    assert_eq!(container.see(listens(40000)), [], "a port of the range that the kernel gives");
    let writes = |path: &str| by_server(json!({"evt.type": "openat", "fd.name": path, "evt.is_open_write": true}));
    assert_eq!(container.see(writes("/etc/passwd")), [Class::Write]);
    assert_eq!(container.see(writes("/srv/www/shell.php")), [Class::Write]);
    assert_eq!(container.see(writes("/usr/bin/ls")), [Class::Write]);
    assert_eq!(container.see(writes("/srv/www/picture.png")), []);
    let reads = |path: &str| by_server(json!({"evt.type": "openat", "fd.name": path, "evt.is_open_read": true}));
    assert_eq!(container.see(reads("/etc/shadow")), [Class::SensitiveRead]);
    assert_eq!(container.see(reads("/proc/1/environ")), [Class::SensitiveRead]);
    assert_eq!(container.see(reads("/proc/self/environ")), []);
    assert_eq!(container.see(by_server(json!({"evt.type": "ptrace"}))), [Class::Syscall]);
    assert_eq!(container.see(by_server(json!({"evt.type": "socket", "evt.args": "0x2 0x3 0x1"}))), [Class::Syscall]);
    assert_eq!(container.see(by_server(json!({"evt.type": "socket", "evt.args": "0x2 0x1 0x0"}))), []);
}

#[test]
fn configuration_may_be_written_on_the_way_to_serving() {
    let mut container = Container::new();
    let starts = json!({"evt.type": "execve", "proc.pid": 10, "proc.ppid": 1, "proc.pname": "runc", "proc.exepath": "/usr/bin/dash", "proc.exe": "/bin/sh", "proc.args": "/entry.sh", "evt.arg.filename": "/entry.sh"});
    assert_eq!(container.see(starts), []);
    let writes = |path: &str| json!({"evt.type": "openat", "proc.pid": 10, "proc.exepath": "/usr/bin/dash", "fd.name": path, "evt.is_open_write": true});
    assert_eq!(container.see(writes("/etc/other.conf")), []);
    assert_eq!(container.see(writes("/etc/ld.so.preload")), [Class::Write], "that is never usual");
}

#[test]
fn a_command_line_tells_what_the_kernel_refused() {
    let mut container = Container::serving();
    assert_eq!(
        container.see(executes(20, "/bin/sh", "-c echo 'x:0:0' >> /etc/passwd")),
        [Class::StepNotPredicted, Class::Write]
    );
}

#[test]
fn a_dimension_that_is_not_known_raises_nothing() {
    let mut dna = dna();
    dna.behavior.completeness = dna::Completenesses::default();
    let mut container = Container { expected: Expected::of_image(&dna), ..Container::serving() };
    assert_eq!(container.see(executes(20, "/usr/bin/cat", "/etc/hosts")), []);
    assert_eq!(
        container.see(executes(21, "/tmp/x", "")),
        [Class::ProgramNotInImage],
        "what the image does not have needs no DNA"
    );
    assert!(container.expected.unknown_dimensions().contains(&"exec"));
}

/// The same image with busybox in the place of all its tools: the entry point calls `mkdir` of it, and the server a shell for `date`.
fn multicall() -> Container {
    let mut dna = serde_json::to_value(dna()).expect("JSON");
    let programs = dna["programs"].as_array_mut().expect("programs");
    programs.retain(|program| program["path"] != "/usr/bin/cat");
    let shell = programs.iter_mut().find(|program| program["path"] == "/usr/bin/dash").expect("the shell");
    shell["path"] = "/bin/busybox".into();
    let names = ["sh", "mkdir", "date", "nc", "wget", "id"];
    shell["aliases"] = names.iter().map(|name| format!("/bin/{name}")).collect();
    let run = |called: Value| json!({"program": "/bin/busybox", "called": called, "reason": "calls", "confidence": "certain", "evidence": []});
    shell["runs"] = json!([run(json!(["date"]))]);
    for program in programs.iter_mut() {
        match program["path"].as_str() {
            Some("/entry.sh") => program["runs"][0] = run(json!(["sh", "mkdir"])),
            Some("/usr/sbin/served") => program["runs"] = json!([run(json!(["sh"]))]),
            _ => {}
        }
    }
    dna["behavior"]["exec"][1]["path"] = "/bin/busybox".into();
    let mut container = Container::new();
    container.expected = Expected::of_image(&serde_json::from_value::<Dna>(dna).expect("a DNA"));
    let starts = json!({"evt.type": "execve", "proc.pid": 10, "proc.ppid": 1, "proc.pname": "runc", "proc.exepath": "/bin/busybox", "proc.exe": "/bin/sh", "proc.args": "/entry.sh", "evt.arg.filename": "/entry.sh"});
    assert_eq!(container.see(starts), []);
    container
}

#[test]
fn a_multicall_program_is_what_it_is_called_by() {
    let applet = |pid: u32, name: &str, args: &str| json!({"evt.type": "execve", "proc.pid": pid, "proc.ppid": 10, "proc.pname": "sh", "proc.exepath": "/bin/busybox", "proc.exe": name, "proc.args": args});
    let mut container = multicall();
    assert_eq!(container.see(applet(11, "mkdir", "-p /run/served")), []);
    assert_eq!(container.see(applet(12, "busybox", "mkdir /run/other")), []);
    assert_eq!(container.see(applet(13, "/bin/id", "")), [Class::StepNotPredicted]);
    assert_eq!(container.see(applet(14, "busybox", "nc -l -p 1")), [Class::StepNotPredicted]);

    let mut container = multicall();
    let server = json!({"evt.type": "execve", "proc.pid": 10, "proc.ppid": 1, "proc.pname": "runc", "proc.exepath": "/usr/sbin/served", "proc.exe": "served"});
    assert_eq!(container.see(server), []);
    // `sh -c date` of the server, and what the shell runs then; another name is another program.
    let shell = json!({"evt.type": "execve", "proc.pid": 20, "proc.ppid": 10, "proc.pname": "served", "proc.pexepath": "/usr/sbin/served", "proc.exepath": "/bin/busybox", "proc.exe": "sh", "proc.args": "-c date"});
    assert_eq!(container.see(shell), []);
    let below = |pid: u32, name: &str| json!({"evt.type": "execve", "proc.pid": pid, "proc.ppid": 20, "proc.pname": "sh", "proc.exepath": "/bin/busybox", "proc.exe": name});
    assert_eq!(container.see(below(21, "date")), []);
    assert_eq!(container.see(below(22, "wget")), [Class::StepNotPredicted]);
    // A shell of its own starts no other by itself.
    let direct = json!({"evt.type": "execve", "proc.pid": 23, "proc.ppid": 10, "proc.pname": "served", "proc.pexepath": "/usr/sbin/served", "proc.exepath": "/bin/busybox", "proc.exe": "nc"});
    assert_eq!(container.see(direct), [Class::StepNotPredicted]);
}

/// The kubelet runs a probe of a container that runc has begun to start, before its start command has got to its first step.
#[test]
fn a_probe_may_come_before_the_start_command() {
    let spec = dna::PodSpec::read(&json!({"containers": [{"name": "app", "image": "served"}]})).expect("a spec");
    let argv = ["served-ctl", "ping"].map(str::to_owned).to_vec();
    let probe = dna::Beside { field: "readinessProbe".to_owned(), argv, exec: Vec::new() };
    let digest = dna::Digest::sha256(b"a DNA");
    let expectation = dna::expect(&digest, &dna(), vec![probe], &spec.containers[0], &dna::RuntimeFacts::default());
    let mut container = Container::new();
    container.expected = Expected::of_container(&dna(), &expectation);
    let first = |pid: u32, exe: &str, name: &str, args: &str| json!({"evt.type": "execve", "proc.pid": pid, "proc.ppid": 1, "proc.pname": "runc", "proc.exepath": exe, "proc.exe": name, "proc.args": args});
    assert_eq!(container.see(first(9, "/usr/bin/served-ctl", "served-ctl", "ping")), []);
    let mut starts = first(10, "/usr/bin/dash", "/bin/sh", "/entry.sh");
    starts["evt.arg.filename"] = "/entry.sh".into();
    assert_eq!(container.see(starts), []);
    // What comes then, and is no probe, is somebody's.
    assert_eq!(container.see(first(11, "/usr/bin/cat", "cat", "/etc/hosts")), [Class::CommandFromOutside]);
    assert_eq!(container.see(first(12, "/usr/bin/served-ctl", "served-ctl", "ping")), []);
}

/// Erlang's `os:cmd` and its like write the commands to `sh -s NAME`.
#[test]
fn what_a_shell_reads_from_its_input_is_not_told_where_the_image_executes_it_anyway() {
    let mut dna = serde_json::to_value(dna()).expect("JSON");
    let run = |program: &str| json!({"program": program, "reason": "calls", "confidence": "certain", "evidence": []});
    let programs = dna["programs"].as_array_mut().expect("programs");
    programs[0]["runs"].as_array_mut().expect("programs").push(run("/usr/bin/cat"));
    programs[4]["runs"] = json!([run("/usr/bin/dash")]);
    let exec = dna["behavior"]["exec"].as_array_mut().expect("programs");
    exec.push(json!({"path": "/usr/bin/cat", "confidence": "certain", "evidence": []}));
    let dna: Dna = serde_json::from_value(dna).expect("a DNA");
    let below = |exe: &str| json!({"evt.type": "execve", "proc.pid": 21, "proc.ppid": 20, "proc.pname": "sh", "proc.exepath": exe, "proc.exe": exe});
    for (args, told) in [("-s unix:cmd", &[][..]), ("-e", &[Class::StepNotPredicted])] {
        let mut container = Container::new();
        container.expected = Expected::of_image(&dna);
        let server = json!({"evt.type": "execve", "proc.pid": 10, "proc.ppid": 1, "proc.pname": "runc", "proc.exepath": "/usr/sbin/served", "proc.exe": "served"});
        assert_eq!(container.see(server), []);
        assert_eq!(container.see(executes(20, "/usr/bin/dash", args)), [], "{args}");
        assert_eq!(container.see(below("/usr/bin/cat")), told, "{args}");
        assert_eq!(container.see(below("/usr/bin/served-ctl")), [Class::ProgramNotReachable], "{args}");
        assert_eq!(container.see(below("/usr/bin/dash")), [Class::StepNotPredicted], "{args}");
    }
}

#[test]
fn a_script_does_what_its_interpreter_is_seen_to_do() {
    let mut dna = serde_json::to_value(dna()).expect("JSON");
    let run = |program: &str, reason: &str| json!({"program": program, "reason": reason, "confidence": "certain", "evidence": []});
    let programs = dna["programs"].as_array_mut().expect("programs");
    let mut perl = programs[2].clone();
    (perl["path"], perl["aliases"], perl["package"]) =
        ("/usr/bin/perl".into(), json!([]), "pkg:deb/debian/perl-base@1?arch=amd64".into());
    // A plain command line in backquotes: predicted as the shell's, executed by Perl itself.
    perl["runs"] = json!([run("/usr/bin/dash", "calls")]);
    programs[2]["runs"] = json!([run("/usr/bin/cat", "calls")]);
    let mut app = programs[0].clone();
    (app["path"], app["runs"]) = ("/usr/bin/app".into(), json!([run("/usr/bin/perl", "#! interpreter")]));
    programs.push(app);
    programs.push(perl);
    let known = |path: &str| json!({"path": path, "confidence": "certain", "evidence": []});
    let exec = dna["behavior"]["exec"].as_array_mut().expect("programs");
    exec.extend(["/usr/bin/app", "/usr/bin/perl", "/usr/bin/cat"].map(known));
    dna["start"] = json!({"argv": ["app"], "program": "/usr/bin/app", "uid": 0, "gid": 0});
    let mut container = Container::new();
    container.expected = Expected::of_image(&serde_json::from_value::<Dna>(dna).expect("a DNA"));
    let starts = json!({"evt.type": "execve", "proc.pid": 10, "proc.ppid": 1, "proc.pname": "runc", "proc.exepath": "/usr/bin/perl", "proc.exe": "/usr/bin/perl", "proc.args": "/usr/bin/app", "evt.arg.filename": "/usr/bin/app"});
    assert_eq!(container.see(starts), []);
    let child = |pid: u32, exe: &str, args: &str| json!({"evt.type": "execve", "proc.pid": pid, "proc.ppid": 10, "proc.pname": "app", "proc.pexepath": "/usr/bin/perl", "proc.exepath": exe, "proc.exe": exe, "proc.args": args});
    assert_eq!(container.see(child(11, "/usr/bin/cat", "/x")), []);
    assert_eq!(container.see(child(12, "/usr/bin/dash", "-c perl")), []);
    // Who has a shell run the interpreter has it read text of his own.
    let below = json!({"evt.type": "execve", "proc.pid": 13, "proc.ppid": 12, "proc.pname": "sh", "proc.exepath": "/usr/bin/perl", "proc.exe": "perl", "proc.args": "-e x"});
    assert_eq!(container.see(below), [Class::StepNotPredicted]);
}

#[test]
fn a_shell_s_text_is_no_script_though_it_names_one() {
    let mut container = Container::serving();
    let shell = json!({"evt.type": "execve", "proc.pid": 11, "proc.ppid": 10, "proc.pname": "served", "proc.pexepath": "/usr/sbin/served", "proc.exepath": "/usr/bin/dash", "proc.exe": "sh", "proc.args": "-c /entry.sh >> /log"});
    assert_eq!(container.see(shell), [Class::StepNotPredicted]);
    let message = container.messages.pop().expect("one");
    assert!(message.starts_with("/usr/bin/dash was executed by /usr/sbin/served"), "{message}");
}

#[test]
fn a_helper_of_the_same_package_is_expected_of_its_own_program_only() {
    let mut dna = serde_json::to_value(dna()).expect("JSON");
    let programs = dna["programs"].as_array_mut().expect("programs");
    let mut helper = programs[3].clone();
    (helper["path"], helper["package"]) = ("/usr/lib/served/helper".into(), programs[4]["package"].clone());
    programs.push(helper);
    let serving = || {
        let mut container = Container::serving();
        container.expected = Expected::of_image(&serde_json::from_value::<Dna>(dna.clone()).expect("a DNA"));
        container
    };
    assert_eq!(serving().see(executes(11, "/usr/lib/served/helper", "")), []);
    // The raw socket of a helper whose code nobody looked at says nothing; that of a tool does.
    let socket = |pid: u32, exe: &str| json!({"evt.type": "socket", "evt.args": "domain=2 type=3 proto=1", "proc.pid": pid, "proc.ppid": 10, "proc.exepath": exe, "evt.arg.domain": 2});
    let mut container = serving();
    assert_eq!(container.see(executes(11, "/usr/lib/served/helper", "")), []);
    assert_eq!(container.see(socket(11, "/usr/lib/served/helper")), []);
    assert_eq!(serving().see(executes(12, "/usr/bin/cat", "x")), [Class::ProgramNotReachable]);
}

#[test]
fn software_asks_itself_at_the_port_it_serves() {
    let connect = |port: u16, address: &str| json!({"evt.type": "connect", "proc.pid": 10, "proc.exepath": "/usr/sbin/served", "fd.l4proto": "tcp", "fd.rip": address, "fd.rport": port, "fd.name": format!("127.0.0.1:5->{address}:{port}")});
    let mut container = Container::serving();
    assert_eq!(container.see(connect(80, "127.0.0.1")), []);
    assert_eq!(container.see(connect(80, "203.0.113.1")), [Class::Connect]);
}

#[test]
fn answers_to_datagrams_come_to_ports_of_choice() {
    let bind = |port: u16| json!({"evt.type": "bind", "proc.pid": 10, "proc.exepath": "/usr/sbin/served", "fd.l4proto": "udp", "fd.lip": "0.0.0.0", "fd.lport": port});
    let mut container = Container::serving();
    assert_eq!(container.see(bind(14_292)), []);
    assert_eq!(container.see(bind(53)), [Class::Listen]);
}

#[test]
fn the_start_command_is_known_with_the_interpreter_before_it() {
    let expected = Expected::of_image(&dna());
    let is_start = |line: &str| expected.is_start(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    for line in ["/entry.sh", "/bin/sh /entry.sh", "/bin/sh -e /entry.sh"] {
        assert!(is_start(line), "{line}");
    }
    for line in
        ["/bin/sh", "/bin/sh -c id /entry.sh", "/bin/sh /tmp/x /entry.sh", "/usr/bin/cat /entry.sh", "/entry.sh --more"]
    {
        assert!(!is_start(line), "{line}");
    }
}
