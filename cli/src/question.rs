//! What a command asks about: an image, read now, or a DNA worked out earlier (`dna:FILE`); and its behavior under a command.

use std::{fs::File, io::Read as _};

use analyzer::{Analysis, Answer, CallStep};
use anyhow::{Context as _, bail};
use dna::{Dna, ImagePath};

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
    Document(Box<Dna>),
}

impl Question {
    /// Opens what `source` names: one image, or one DNA.
    pub(crate) fn open(source: &str, open: &Open) -> anyhow::Result<Self> {
        if let Some(file) = source.strip_prefix("dna:") {
            let dna = read(file).with_context(|| format!("cannot read the DNA {file}"))?;
            return Ok(Self { name: source.to_owned(), known: Known::Document(Box::new(dna)) });
        }
        if open.all_platforms {
            bail!("this command is about one image: choose it with --platform OS/ARCH, not --all-platforms");
        }
        let limits = analyze::limits(open)?;
        let source = analyze::source(source)?;
        let options = analyze::options(open, &limits);
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
            Known::Document(dna) => dna,
        }
    }

    /// The file that a path stands for: links are resolved where the image is at hand, else where a program is known by them.
    pub(crate) fn resolve(&self, path: &ImagePath) -> ImagePath {
        let found = match &self.known {
            Known::Image(analysis) => analysis.resolve(path),
            Known::Document(dna) => {
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
            Known::Document(_) => None,
        }
    }

    /// The way of calls to a system call of a program, where the image is at hand.
    pub(crate) fn calls(&self, program: &ImagePath, syscall: &str) -> Vec<CallStep> {
        match &self.known {
            Known::Image(analysis) => analysis.calls(program, syscall),
            Known::Document(_) => Vec::new(),
        }
    }

    /// The behavior under `command`, or under the image's own.
    pub(crate) fn answer(&self, command: Option<&[String]>) -> anyhow::Result<Answer> {
        match (&self.known, command) {
            (Known::Image(analysis), Some(command)) => Ok(analysis.answer(command)?),
            (Known::Document(_), Some(_)) => bail!("--command needs the image: name it in place of {}", self.name),
            (_, None) => Ok(Answer { behavior: self.dna().behavior.clone(), unknowns: self.dna().unknowns.clone() }),
        }
    }
}

/// Reads a DNA document; `-` is standard input.
fn read(file: &str) -> anyhow::Result<Dna> {
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
const MAX_BYTES: u64 = 256 << 20;
