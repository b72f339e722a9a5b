//! How the code of an image leads to its calls, as text: one line for the container, one for each call. Kept in `traits/`, so that the
//! model can be trained again without the images.

use std::{fmt::Write as _, fs, path::Path};

use analyzer::expect::{Container, Traits};
use anyhow::Context as _;

/// Writes a container.
pub(crate) fn write(container: &Container) -> String {
    let flag = |holds: bool| u8::from(holds);
    let mut text = format!(
        "go {} threads {} helpers {} root {} alone {} x86 {} programs {}\n",
        flag(container.is_go),
        flag(container.has_threads),
        flag(container.has_helpers),
        flag(container.is_root),
        flag(container.is_alone),
        flag(container.is_x86),
        container.programs
    );
    for (name, traits) in &container.calls {
        let calm = traits.calm_distance.map_or("-".to_owned(), |it| it.to_string());
        let depth = |depth: Option<u16>| depth.map_or("-".to_owned(), |it| it.to_string());
        let _ = writeln!(
            text,
            "{name} {} {calm} {} {} {} {} {} {} {}",
            traits.distance,
            flag(traits.is_imported),
            traits.importers,
            traits.sites,
            traits.own_sites,
            depth(traits.program_depth),
            depth(traits.any_depth),
            traits.programs
        );
    }
    text
}

/// Reads a container.
pub(crate) fn read(file: &Path) -> anyhow::Result<Container> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(&text).with_context(|| format!("{} is no list of traits", file.display()))
}

fn parse(text: &str) -> Option<Container> {
    let mut lines = text.lines();
    let first: Vec<&str> = lines.next()?.split(' ').collect();
    let flag = |index: usize| Some(*first.get(index)? == "1");
    let mut container = Container {
        is_go: flag(1)?,
        has_threads: flag(3)?,
        has_helpers: flag(5)?,
        is_root: flag(7)?,
        is_alone: flag(9)?,
        is_x86: flag(11)?,
        programs: first.get(13)?.parse().ok()?,
        ..Container::default()
    };
    for line in lines {
        let mut words = line.split(' ');
        let mut word = || words.next();
        let name = word()?.to_owned();
        let traits = Traits {
            distance: word()?.parse().ok()?,
            calm_distance: word()?.parse().ok(),
            is_imported: word()? == "1",
            importers: word()?.parse().ok()?,
            sites: word()?.parse().ok()?,
            own_sites: word()?.parse().ok()?,
            program_depth: word()?.parse().ok(),
            any_depth: word()?.parse().ok(),
            programs: word()?.parse().ok()?,
        };
        container.calls.insert(name, traits);
    }
    Some(container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_round_trips_as_text() {
        let traits = Traits { distance: 3, program_depth: Some(2), programs: 1, ..Traits::default() };
        let container = Container {
            is_go: true,
            is_x86: true,
            programs: 1,
            calls: [("read".to_owned(), traits)].into(),
            ..Container::default()
        };
        assert_eq!(parse(&write(&container)), Some(container));
    }
}
