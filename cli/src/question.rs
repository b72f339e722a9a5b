//! What a command asks about: an image, read now, or a DNA worked out earlier (`dna:FILE`); and its behavior under a command.

use std::{fs::File, io::Read as _};

use analyzer::{Analysis, Answer, CallStep, Mounted};
use anyhow::{Context as _, bail};
use dna::{Dna, ImagePath, Limits};

use crate::{analyze, args::Open};

/// One image's DNA.
pub(crate) struct Question {
    /// The source as it was opened.
    pub(crate) name: String,
    known: Known,
}

/// What is at hand.
enum Known {
    Image(Box<Analysis>),
    /// The limits are those of what is worked out of it.
    Document(Box<Dna>, Box<Limits>),
}

impl Question {
    /// Opens what `source` names: one image, or one DNA.
    pub(crate) fn open(source: &str, open: &Open) -> anyhow::Result<Self> {
        if let Some(file) = source.strip_prefix("dna:") {
            let dna = read(file).with_context(|| format!("cannot read the DNA {file}"))?;
            return Ok(Self {
                name: source.to_owned(),
                known: Known::Document(Box::new(dna), Box::new(analyze::limits(open)?)),
            });
        }
        if open.all_platforms {
            bail!("this command is about one image: choose it with --platform OS/ARCH, not --all-platforms");
        }
        let limits = analyze::limits(open)?;
        let source = analyze::source(source)?;
        let options = analyze::options(open, &limits)?;
        let images = analyze::open(&source, &options)?;
        let [image] = images.as_slice() else { bail!("{source} holds {} images: name one", images.len()) };
        let analysis = analyze::analyze(image, &limits, options.registry.cache.as_ref())?;
        Ok(Self { name: image.name.clone(), known: Known::Image(Box::new(analysis)) })
    }

    /// A question about an image that is at hand.
    #[cfg(test)]
    pub(crate) fn about(name: &str, analysis: Analysis) -> Self {
        Self { name: name.to_owned(), known: Known::Image(Box::new(analysis)) }
    }

    /// The DNA.
    pub(crate) fn dna(&self) -> &Dna {
        match &self.known {
            Known::Image(analysis) => &analysis.dna,
            Known::Document(dna, _) => dna,
        }
    }

    /// The file that a path stands for: links are resolved where the image is at hand, else where a program is known by them.
    pub(crate) fn resolve(&self, path: &ImagePath) -> ImagePath {
        let found = match &self.known {
            Known::Image(analysis) => analysis.resolve(path),
            Known::Document(dna, _) => {
                let known = dna.programs.iter().find(|program| program.aliases.contains(path));
                known.map(|program| program.path.clone())
            }
        };
        found.unwrap_or_else(|| path.clone())
    }

    /// Package URL of the package that owns a file, where the image is at hand.
    pub(crate) fn package(&self, path: &ImagePath) -> Option<String> {
        match &self.known {
            Known::Image(analysis) => {
                analysis.inventory.owner(path).map(|package| dna::redact(&package.purl).into_owned())
            }
            Known::Document(..) => None,
        }
    }

    /// The way of calls to a system call of a program, where the image is at hand.
    pub(crate) fn calls(&self, program: &ImagePath, syscall: &str) -> Vec<CallStep> {
        match &self.known {
            Known::Image(analysis) => analysis.calls(program, syscall),
            Known::Document(..) => Vec::new(),
        }
    }

    /// The behavior under `command`, or under the image's own.
    pub(crate) fn answer(&self, command: Option<&[String]>) -> anyhow::Result<Answer> {
        match (&self.known, command) {
            (Known::Image(analysis), Some(command)) => Ok(analysis.answer(command)?),
            (Known::Document(dna, limits), Some(command)) => {
                Ok(analyzer::answer(dna, command, &Mounted::default(), limits))
            }
            (_, None) => Ok(Answer { behavior: self.dna().behavior.clone(), unknowns: self.dna().unknowns.clone() }),
        }
    }
}

/// Reads a DNA document; `-` is standard input.
pub(crate) fn read(file: &str) -> anyhow::Result<Dna> {
    let mut json = Vec::new();
    if file == "-" {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut json)?;
    } else {
        File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut json)?;
    }
    if json.len() as u64 > MAX_BYTES {
        bail!("it has more than {MAX_BYTES} bytes: no DNA is that large");
    }
    Ok(Dna::from_json(&json)?)
}

/// Bytes of one DNA document: those of images with ten thousand programs have some 20 MiB.
pub(crate) const MAX_BYTES: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// An image whose start script runs a server, and a tool that the start never runs.
    fn analysis() -> Analysis {
        let config = serde_json::json!({ "Entrypoint": ["/entry.sh"], "Cmd": ["app", "-x"], "history": "COPY . /" });
        let files: [(&str, u32, &[u8]); 4] = [
            ("/entry.sh", 0o755, b"#!/bin/sh\nset -e\nexec \"$@\"\n"),
            ("/usr/bin/sh", 0o755, b"\x7fELF"),
            ("/usr/bin/app", 0o755, b"\x7fELF"),
            ("/usr/bin/tool", 0o755, b"\x7fELF"),
        ];
        let mut with_link = files.to_vec();
        with_link.push(("/bin/sh", 0o755, b"\x7fELF"));
        fixture::analysis(&fixture::image(&config, &with_link))
    }

    /// The command's behavior from the image, and from its DNA alone.
    fn both(line: &str) -> (Answer, Answer) {
        let (analysis, command) = (analysis(), analyze::split(line).expect("a command"));
        let limits = Limits::default();
        let alone = analyzer::answer(&analysis.dna, &command, &Mounted::default(), &limits);
        (analysis.answer(&command).expect("an answer"), alone)
    }

    fn executed(answer: &Answer) -> Vec<(String, dna::Confidence)> {
        answer.behavior.exec.iter().map(|item| (item.what.path.to_string(), item.confidence)).collect()
    }

    #[test]
    fn the_image_s_own_command_is_answered_as_it_stands_in_the_dna() {
        let analysis = analysis();
        let limits = Limits::default();
        let alone = analyzer::answer(&analysis.dna, &analysis.dna.start.argv, &Mounted::default(), &limits);
        assert_eq!((&alone.behavior, &alone.unknowns), (&analysis.dna.behavior, &analysis.dna.unknowns));
        assert_eq!(analyzer::refine(&analysis.dna, &Mounted::default(), &limits), analysis.dna);
    }

    #[test]
    fn a_server_started_by_itself_or_by_a_shell_is_answered_alike() {
        for line in ["app -x", "/usr/bin/app", "sh -c 'exec app'", "/bin/sh -c 'cd /tmp && app; tool'"] {
            let (image, alone) = both(line);
            assert_eq!(executed(&alone), executed(&image), "{line}");
        }
    }

    #[test]
    fn a_program_that_the_image_never_starts_is_unknown() {
        let (_, alone) = both("tool");
        assert_eq!(alone.behavior.completeness.syscalls, dna::Completeness::None);
        assert!(alone.unknowns.iter().any(|unknown| unknown.place == "/usr/bin/tool"), "{:?}", alone.unknowns);
    }

    #[test]
    fn a_script_with_other_arguments_is_unknown() {
        let (_, alone) = both("/entry.sh tool");
        assert!(alone.unknowns.iter().any(|unknown| unknown.place == "/entry.sh"), "{:?}", alone.unknowns);
    }

    #[test]
    fn what_a_deployment_lays_over_is_read() {
        let (analysis, limits) = (analysis(), Limits::default());
        let mut mounted = Mounted::default();
        mounted
            .files
            .insert("/entry.sh".parse().expect("a path"), analyzer::Laid::File(b"#!/bin/sh\nexec tool\n".to_vec()));
        mounted.files.insert("/etc/secret".parse().expect("a path"), analyzer::Laid::Unreadable);
        mounted.env.insert("MODE".to_owned(), "x".to_owned());
        let refined = analyzer::refine(&analysis.dna, &mounted, &limits);
        let programs: Vec<String> = refined.behavior.exec.iter().map(|item| item.what.path.to_string()).collect();
        assert_eq!(programs, ["/bin/sh", "/entry.sh", "/usr/bin/tool"]);
        assert!(refined.unknowns.iter().any(|unknown| unknown.place == "/etc/secret"), "{:?}", refined.unknowns);
        assert!(refined.start.env.iter().any(|known| known.name == "MODE"));
    }

    /// What a container of the image, with this pod, is expected to do.
    fn bound(
        container: serde_json::Value,
        volumes: serde_json::Value,
        maps: &analyzer::ConfigMaps,
    ) -> dna::Expectation {
        let mut spec = serde_json::json!({"containers": [{"name": "c", "image": "i"}], "volumes": volumes});
        let fields = container.as_object().expect("an object").clone();
        spec.pointer_mut("/containers/0").and_then(|one| one.as_object_mut()).expect("a container").extend(fields);
        let spec = dna::PodSpec::read(&spec).expect("a pod");
        let (analysis, runtime) = (analysis(), dna::RuntimeFacts::default());
        let digest = analysis.dna.digest().expect("a digest");
        let container = spec.containers.first().expect("one");
        analyzer::bind(&analysis.dna, &digest, container, maps, &runtime, &Limits::default())
    }

    fn programs(expectation: &dna::Expectation) -> Vec<String> {
        expectation.behavior.exec.iter().map(|item| item.what.path.to_string()).collect()
    }

    #[test]
    fn a_pod_s_command_configuration_and_probes_are_read() {
        use serde_json::json;
        let none = analyzer::ConfigMaps::new();
        let own = bound(json!({}), json!([]), &none);
        assert_eq!(own.argv, ["/entry.sh", "app", "-x"]);
        assert!(programs(&own).contains(&"/usr/bin/app".to_owned()), "{:?}", programs(&own));
        let inline = bound(
            json!({"command": ["sh", "-c", "exec $(TOOL)"], "env": [{"name": "TOOL", "value": "tool"}]}),
            json!([]),
            &none,
        );
        assert_eq!(inline.argv, ["sh", "-c", "exec tool"]);
        assert_eq!(programs(&inline), ["/usr/bin/sh", "/usr/bin/tool"]);
        let missing = bound(json!({"command": ["nothing"]}), json!([]), &none);
        assert_eq!(missing.effect(), dna::Effect::Fails);
        let probed = bound(
            json!({"livenessProbe": {"exec": {"command": ["tool"]}}, "lifecycle": {"preStop": {"exec": {"command": ["gone"]}}}}),
            json!([]),
            &none,
        );
        let beside: Vec<_> = probed.beside.iter().map(|one| (one.field.as_str(), one.exec.len())).collect();
        assert_eq!(beside, [("livenessProbe", 1), ("preStop", 0)]);
        assert!(probed.findings.iter().any(|finding| finding.code == dna::FindingCode::ProbeProgramMissing));
        // A script out of a ConfigMap takes the place of the image's.
        let volumes = json!([{"name": "v", "configMap": {"name": "scripts"}}]);
        let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/entry.sh", "subPath": "entry.sh"}]});
        let script = std::collections::BTreeMap::from([("entry.sh".to_owned(), b"#!/bin/sh\nexec tool\n".to_vec())]);
        let maps = analyzer::ConfigMaps::from([("scripts".to_owned(), script)]);
        let mounted = bound(mounts.clone(), volumes.clone(), &maps);
        assert_eq!(programs(&mounted), ["/bin/sh", "/entry.sh", "/usr/bin/tool"]);
        let unread = bound(mounts, volumes, &none);
        assert!(unread.unknowns.iter().any(|unknown| unknown.place == "/entry.sh"), "{:?}", unread.unknowns);
    }
}
