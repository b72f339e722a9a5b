//! What holds for every sensor's event.

use runtime_bridge::{
    limits,
    sensor::{Dialect, Told, decode, key},
};

/// Reads an event: what is told is the same twice, and within the limits.
pub fn event(dialect: Dialect, item: &[u8]) {
    let told = decode(dialect, item);
    assert_eq!(told, decode(dialect, item));
    assert_eq!(key(dialect, item), key(dialect, item));
    match told {
        Ok(Told::Activity(activity)) => {
            assert!(activity.ancestors.len() <= limits::ANCESTORS);
            for process in activity.ancestors.iter().chain([&activity.process]) {
                words(&process.argv);
                assert!(process.exe.as_ref().is_none_or(|exe| exe.len() <= limits::PATH));
            }
        }
        Ok(Told::Call(call)) => words(&call.command),
        Ok(Told::Loss(loss)) => assert!(loss.reason.len() <= limits::TEXT),
        _ => {}
    }
}

fn words(words: &[String]) {
    assert!(words.len() <= limits::WORDS);
    assert!(words.iter().map(String::len).sum::<usize>() <= limits::WORDS_TEXT + limits::CUT.len());
}
