//! Whether the image that runs is the one that was admitted.
//!
//! In: what the webhook bound a container to, the digest that its runtime names, and what the ledger knows of both. Out: [`Bound`]. A runtime
//! may name an image by its manifest, by an index that has it or by its configuration, and images of one configuration have the same
//! files: it is another one only where all of that is known and differs.

use std::collections::BTreeSet;

use dna::Digest;
use lineage::ImageRow;
use serde::Serialize;

use crate::{Class, Deviation};

/// The image that runs, held against the one that was admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Bound {
    /// Nobody bound the container: there is nothing to hold it against.
    Unbound,
    /// It is the one that was admitted.
    Same,
    /// It is certainly another one.
    Other {
        /// The digest that runs, as the runtime names it.
        running: String,
        /// The digests that were admitted: one for each platform.
        admitted: Vec<Digest>,
    },
    /// It may be either, and why.
    Unknown(String),
}

/// An image that was admitted, for a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The platform; empty: not known.
    pub platform: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// The configuration's digest.
    pub config: Option<Digest>,
}

/// Holds what runs against what was admitted. `named` are the images that `running` stands for.
#[must_use]
pub fn bound(admitted: &[Admitted], running: &str, named: &[ImageRow]) -> Bound {
    if admitted.is_empty() {
        return Bound::Unknown("it was admitted without a digest".to_owned());
    }
    if running.is_empty() {
        return Bound::Unknown("nobody says yet which digest runs".to_owned());
    }
    let is_named = |one: &Admitted| {
        let by_config = one.config.as_ref().is_some_and(|config| config.as_str() == running);
        one.digest.as_str() == running || by_config
    };
    let is_same =
        |one: &Admitted, row: &ImageRow| one.digest == row.digest || one.config.is_some() && one.config == row.config;
    if admitted.iter().any(|one| is_named(one) || named.iter().any(|row| is_same(one, row))) {
        return Bound::Same;
    }
    if named.is_empty() {
        return Bound::Unknown(format!(
            "{running} runs, of which nothing is known: it may be another name of the same image"
        ));
    }
    // Of an index it must be known which image it is for each platform that the pod was admitted for.
    let is_index = !named.iter().any(|row| {
        row.digest.as_str() == running || row.config.as_ref().is_some_and(|config| config.as_str() == running)
    });
    for one in admitted {
        let mut rows = named.iter().filter(|row| !is_index || row.platform == one.platform).peekable();
        if rows.peek().is_none() {
            return Bound::Unknown(format!(
                "{running} runs, an index whose image for {} is not known",
                shown(&one.platform)
            ));
        }
        if one.config.is_none() || rows.any(|row| row.config.is_none()) {
            return Bound::Unknown(format!(
                "{running} runs, whose configuration is not known, or not that of {}",
                one.digest
            ));
        }
    }
    let admitted: BTreeSet<Digest> = admitted.iter().map(|one| one.digest.clone()).collect();
    Bound::Other { running: running.to_owned(), admitted: admitted.into_iter().collect() }
}

impl Bound {
    /// What is told of another image.
    #[must_use]
    pub fn deviation(&self) -> Option<Deviation> {
        let Self::Other { running, admitted } = self else { return None };
        let admitted = admitted.iter().map(Digest::as_str).collect::<Vec<_>>().join(" or ");
        Some(Deviation {
            class: Class::BindingMismatch,
            subject: running.clone(),
            message: format!("the image that runs is {running}: it is not {admitted}, which was admitted"),
            after: None,
            layer: None,
            package: None,
            risk: 0.9,
            drivers: Vec::new(),
            technique: "T1525".to_owned(),
            blocked: false,
        })
    }
}

fn shown(platform: &str) -> &str {
    if platform.is_empty() { "its platform" } else { platform }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn digest(of: &str) -> Digest {
        Digest::sha256(of.as_bytes())
    }

    fn row(image: &str, platform: &str, config: Option<&str>) -> ImageRow {
        ImageRow {
            digest: digest(image),
            repository: "registry.example/web".to_owned(),
            platform: platform.to_owned(),
            config: config.map(digest),
            first_at: Timestamp::UNIX_EPOCH,
            last_at: Timestamp::UNIX_EPOCH,
            facts: None,
        }
    }

    fn admitted(image: &str, platform: &str, config: Option<&str>) -> Admitted {
        Admitted { platform: platform.to_owned(), digest: digest(image), config: config.map(digest) }
    }

    fn is_unknown(bound: &Bound) -> bool {
        matches!(bound, Bound::Unknown(_))
    }

    #[test]
    fn one_image_is_the_same_by_any_of_its_digests() {
        let own = [admitted("web", "linux/amd64", Some("config"))];
        let named = [row("web", "linux/amd64", Some("config")), row("web-arm", "linux/arm64", Some("config-arm"))];
        let by = |name: &str, named: &[ImageRow]| bound(&own, digest(name).as_str(), named);
        assert_eq!(by("web", &[]), Bound::Same, "its manifest");
        assert_eq!(by("config", &[]), Bound::Same, "its configuration");
        assert_eq!(by("index", &named), Bound::Same, "an index that has it");
        assert_eq!(by("pushed-again", &[row("pushed-again", "linux/amd64", Some("config"))]), Bound::Same, "its files");
    }

    #[test]
    fn another_image_is_told_only_where_it_is_certain() {
        let own = [admitted("web", "linux/amd64", Some("config"))];
        let by = |own: &[Admitted], name: &str, named: &[ImageRow]| bound(own, digest(name).as_str(), named);
        let other = by(&own, "evil", &[row("evil", "linux/amd64", Some("evil-config"))]);
        let deviation = other.deviation().expect("told");
        assert_eq!((deviation.class, deviation.subject.as_str()), (Class::BindingMismatch, digest("evil").as_str()));
        assert!(deviation.message.contains(digest("web").as_str()));
        let index = [row("evil", "linux/amd64", Some("evil-config"))];
        assert!(by(&own, "index", &index).deviation().is_some(), "an index of another image");
        // What is not known is not told, and says so.
        assert!(is_unknown(&by(&own, "evil", &[])));
        assert!(is_unknown(&by(&own, "evil", &[row("evil", "linux/amd64", None)])));
        assert!(is_unknown(&by(&[admitted("web", "linux/amd64", None)], "evil", &index)));
        assert!(is_unknown(&by(&own, "index", &[row("evil-arm", "linux/arm64", Some("evil-config"))])));
        assert!(is_unknown(&by(&[], "evil", &index)) && is_unknown(&bound(&own, "", &index)));
        // A pod that may land on two platforms: both must be known.
        let both = [own[0].clone(), admitted("web-arm", "linux/arm64", Some("config-arm"))];
        assert!(is_unknown(&by(&both, "index", &index)));
        let index = [index[0].clone(), row("evil-arm", "linux/arm64", Some("x"))];
        assert!(by(&both, "index", &index).deviation().is_some());
    }
}
