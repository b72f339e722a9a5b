//! One package: what every catalog gives.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use dna::ImagePath;

/// A package of the image. Ordered by its fields from first to last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Which sort of package it is.
    pub kind: PackageKind,
    /// Its name as its database spells it.
    pub name: String,
    /// Its version as its database spells it; empty where it has none.
    pub version: String,
    /// Its architecture in the words of its distribution, where it has one.
    pub architecture: Option<String>,
    /// The file that says it is there.
    pub location: ImagePath,
    /// Where inside `location` that is an archive: names of archives in archives, then of the record, joined by `!/`.
    pub member: Option<String>,
    /// Its package URL (purl-spec), which names it to the rest of the world.
    pub purl: String,
    /// Its licenses as its database spells them: expressions, names or free text.
    pub licenses: BTreeSet<String>,
    /// Index of the layer that brought it: that of its own record, or the one most of its files are from where all packages
    /// share one database.
    pub layer: u32,
    /// The files it owns, sorted, each without a symbolic link on the way; directories are not among them.
    pub files: Vec<ImagePath>,
}

impl Package {
    /// The package without credentials: a version may be a URL with user information in it.
    pub(super) fn redacted(mut self) -> Self {
        let redact = |text: &mut String| {
            if let Cow::Owned(clean) = dna::redact(text) {
                *text = clean;
            }
        };
        redact(&mut self.name);
        redact(&mut self.version);
        redact(&mut self.purl);
        self.member.iter_mut().for_each(redact);
        self.licenses = self.licenses.iter().map(|license| dna::redact(license).into_owned()).collect();
        self
    }
}

/// Which sort of package; the distributions' come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PackageKind {
    /// Debian and its derivatives.
    Deb,
    /// Alpine, Wolfi.
    Apk,
    /// Red Hat, SUSE and theirs.
    Rpm,
    /// A Python distribution.
    Python,
    /// A Node.js package.
    Npm,
    /// A Java archive.
    Java,
    /// A Go module.
    Go,
    /// A Rust crate.
    Cargo,
    /// A Ruby gem.
    Gem,
    /// A PHP package.
    Composer,
    /// A .NET package.
    Nuget,
}

impl PackageKind {
    /// The type in its package URL.
    pub fn purl_type(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::Python => "pypi",
            Self::Npm => "npm",
            Self::Java => "maven",
            Self::Go => "golang",
            Self::Cargo => "cargo",
            Self::Gem => "gem",
            Self::Composer => "composer",
            Self::Nuget => "nuget",
        }
    }
}

impl fmt::Display for PackageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.purl_type())
    }
}
