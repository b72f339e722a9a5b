//! How much of what a sensor sends is kept. Nothing outside is trusted for a length: a command line is whatever an intruder wrote.
//!
//! [`crate::sensor::decode`] holds whatever was told to these, of every sensor, so that the rest of the crate may rely on them.

use std::sync::Arc;

use dna::{Act, Activity, Outcome, Process, redact};

use crate::sensor::{Call, Loss, Told};

/// Words of a command line: probes, wrappers and their options fit; a list of files does not, and tells nothing more.
pub const WORDS: usize = 64;
/// Bytes of all words of a command line together. Falcosidekick and the kernel's tracers cut at this or before.
pub const WORDS_TEXT: usize = 4096;
/// Bytes of a command line that is one text in which words and credentials are looked for: more than enough for those kept.
pub const LINE: usize = 1 << 16;
/// Processes above the one that acts. Deeper trees are made by scripts that call themselves; who began is told by the nearest.
pub const ANCESTORS: usize = 16;
/// Bytes of a path: `PATH_MAX`.
pub const PATH: usize = 4096;
/// Bytes of a name: of a pod, a node, a rule, a user. Kubernetes allows 253; an image reference may be longer.
pub const NAME: usize = 512;
/// Bytes of a text in the sensor's own words: arguments of a system call, the reason of a loss.
pub const TEXT: usize = 1024;
/// Addresses a request came through.
pub const SOURCES: usize = 8;
/// Fields of one event's argument list that are looked at; no event of any sensor has half as many.
pub const FIELDS: usize = 64;

/// What stands at the end of a text, or as the last word of a command line, that was cut.
pub const CUT: &str = "[cut]";

/// What was told, within these limits.
pub(crate) fn bounded(told: Told) -> Told {
    match told {
        Told::Activity(mut activity) => {
            activity_within(Arc::make_mut(&mut activity));
            Told::Activity(activity)
        }
        Told::Call(mut call) => {
            call_within(&mut call);
            Told::Call(call)
        }
        Told::Loss(mut loss) => {
            loss_within(&mut loss);
            Told::Loss(loss)
        }
        Told::Nothing(why) => Told::Nothing(why),
    }
}

fn activity_within(activity: &mut Activity) {
    cut(&mut activity.sensor, NAME);
    cut_some(&mut activity.node, NAME);
    cut_some(&mut activity.rule, NAME);
    let container = &mut activity.container;
    for name in [
        &mut container.id,
        &mut container.name,
        &mut container.image,
        &mut container.digest,
        &mut container.namespace,
        &mut container.pod,
        &mut container.pod_uid,
    ] {
        cut_some(name, NAME);
    }
    process_within(&mut activity.process);
    activity.ancestors.truncate(ANCESTORS);
    activity.ancestors.iter_mut().for_each(process_within);
    if let Outcome::Failed { error } = &mut activity.outcome {
        cut(error, NAME);
    }
    match &mut activity.act {
        Act::Exec { file } => cut_some(file, PATH),
        Act::ConnectUnix { path } | Act::Write { path, .. } | Act::Read { path } => cut(path, PATH),
        Act::Connect { host, .. } => cut_some(host, NAME),
        Act::Capability { name } => cut(name, NAME),
        Act::Identity { call, .. } => cut(call, NAME),
        Act::Syscall { name, arguments } => {
            cut(name, NAME);
            if let Some(arguments) = arguments {
                *arguments = redact(arguments).into_owned();
                cut(arguments, TEXT);
            }
        }
        _ => {}
    }
}

fn process_within(process: &mut Process) {
    cut_some(&mut process.id, NAME);
    cut_some(&mut process.name, NAME);
    cut_some(&mut process.exe, PATH);
    cut_some(&mut process.cwd, PATH);
    cut_words(&mut process.argv);
}

fn call_within(call: &mut Call) {
    for name in [&mut call.id, &mut call.user, &mut call.subresource, &mut call.namespace, &mut call.pod] {
        cut(name, NAME);
    }
    cut_some(&mut call.impersonated, NAME);
    cut_some(&mut call.container, NAME);
    cut_words(&mut call.command);
    call.source.truncate(SOURCES);
    call.source.iter_mut().for_each(|source| cut(source, NAME));
}

fn loss_within(loss: &mut Loss) {
    cut_some(&mut loss.node, NAME);
    cut(&mut loss.reason, TEXT);
}

/// A command line within [`WORDS`] and [`WORDS_TEXT`]; one that was longer ends with the word [`CUT`]. It is cut after
/// credentials were taken out: half a token has no shape to be known by.
fn cut_words(words: &mut Vec<String>) {
    let mut left = WORDS_TEXT;
    let fits = |word: &String| {
        left = left.checked_sub(word.len())?;
        Some(())
    };
    let kept = words.iter().take(WORDS).map_while(fits).count();
    if kept == words.len() {
        return;
    }
    // A single word longer than the limit: its beginning says more than nothing.
    let begun = words.get(kept).filter(|_| kept < WORDS).map(|word| start(word, left).to_owned());
    words.truncate(kept.min(WORDS - 1));
    match begun {
        Some(begun) if kept < WORDS - 1 => words.push(format!("{begun}{CUT}")),
        _ => words.push(CUT.to_owned()),
    }
}

/// As much of a command line as is looked at; no word of it is a half.
pub(crate) fn line(text: &str) -> &str {
    if text.len() <= LINE {
        return text;
    }
    let begin = start(text, LINE);
    begin.rfind(' ').and_then(|end| begin.get(..end)).unwrap_or(begin)
}

fn cut_some(text: &mut Option<String>, limit: usize) {
    if let Some(text) = text {
        cut(text, limit);
    }
}

/// `text` within `limit` bytes, the mark included.
fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        let kept = start(text, limit.saturating_sub(CUT.len())).len();
        text.truncate(kept);
        text.push_str(CUT);
    }
}

/// The longest beginning of `text` of at most `limit` bytes.
fn start(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(count: usize, length: usize) -> Vec<String> {
        vec!["x".repeat(length); count]
    }

    #[test]
    fn a_command_line_that_fits_stays() {
        let mut all = words(WORDS, WORDS_TEXT / WORDS);
        cut_words(&mut all);
        assert_eq!(all, words(WORDS, WORDS_TEXT / WORDS));
    }

    #[test]
    fn one_word_too_many_becomes_the_mark() {
        let mut all = words(WORDS + 1, 1);
        cut_words(&mut all);
        assert_eq!(all.len(), WORDS);
        assert_eq!(all.last().map(String::as_str), Some(CUT));
    }

    #[test]
    fn a_long_word_keeps_its_beginning() {
        let mut all = vec!["sh".to_owned(), "-c".to_owned(), "é".repeat(WORDS_TEXT)];
        cut_words(&mut all);
        let last = all.last().expect("words");
        assert!(last.starts_with("éé") && last.ends_with(CUT), "{last}");
        assert!(all.iter().map(String::len).sum::<usize>() <= WORDS_TEXT + CUT.len());
    }

    #[test]
    fn no_word_of_a_line_is_a_half() {
        let long = "word ".repeat(LINE);
        assert!(line(&long).ends_with("word") && line(&long).len() <= LINE);
        assert_eq!(line("a b"), "a b");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut text = "é".repeat(NAME);
        cut(&mut text, NAME);
        assert!(text.len() <= NAME && text.ends_with(CUT));
    }
}
