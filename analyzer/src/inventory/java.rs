//! Java archives: jar, war, ear and their kin in, what they are and hold out.
//!
//! An archive is a package by what Maven left in it (`META-INF/maven/*/*/pom.properties`), else by its manifest and file name.
//! Libraries in it count too: archives in archives, and the records of those that were unpacked into it. Sources: JAR file
//! specification; Maven Archiver reference. Class files are not looked at; identity by hash of class files is not tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Cursor, Read, Seek},
};

use dna::Limits;
use zip::{
    ZipReadOptions,
    read::{Config, ZipFileEntry},
    // Reads the directory entry by entry; `ZipArchive` holds all of it in memory before a limit can be checked.
    unstable::read::ZipIterable,
};

use super::{
    Catalog, Package, PackageKind,
    deb822::stanzas,
    purl::Purl,
    tree::{Body, Tree},
};

/// A library, as an archive tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JavaRecord {
    /// `groupId`, where it is known.
    pub group: Option<String>,
    /// `artifactId`, else a name from the manifest or the file.
    pub artifact: String,
    /// Its version; empty where nothing says.
    pub version: String,
    /// `Bundle-License`.
    pub licenses: BTreeSet<String>,
    /// Where in the archive this stands, names in names joined by `!/`; absent for the archive itself.
    pub member: Option<String>,
}

/// What an archive holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JavaContents {
    /// The archive itself, then what is in it.
    pub records: Vec<JavaRecord>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

/// The libraries in the archive `file`, called `file_name`.
pub fn parse_archive(file: impl Read + Seek, file_name: &str, limits: &Limits) -> JavaContents {
    let mut reading = Reading {
        contents: JavaContents::default(),
        entries_left: limits.zip_entries,
        bytes_left: limits.zip_bytes,
        limits,
    };
    if let Err(why) = reading.archive(file, file_name, &[]) {
        reading.contents.problems.push(why);
    }
    reading.contents
}

/// The Java libraries of the tree.
pub(super) fn catalog(tree: &Tree) -> Catalog {
    let mut catalog = Catalog::default();
    for found in tree.files.iter().filter(|found| is_archive(found.path.file_name())) {
        let size = tree.rootfs.file(found.inode).map_or(0, |file| file.size);
        if size > tree.limits.zip_bytes {
            let limit = tree.limits.zip_bytes;
            catalog.unknown(&found.path, format!("{size} bytes, more than the limit of {limit}"));
            continue;
        }
        let name = String::from_utf8_lossy(found.path.file_name()).into_owned();
        let JavaContents { records, problems } = parse_archive(Body::new(tree, found.inode), &name, tree.limits);
        for problem in problems {
            catalog.unknown(&found.path, problem);
        }
        catalog.packages.extend(records.into_iter().map(|record| {
            Package {
                kind: PackageKind::Java,
                purl: Purl::new(PackageKind::Java, &record.artifact, &record.version)
                    .namespace(record.group.as_deref().unwrap_or(&record.artifact))
                    .build(),
                name: record.artifact,
                version: record.version,
                architecture: None,
                location: found.path.clone(),
                licenses: record.licenses,
                layer: tree.layer(found.inode),
                files: if record.member.is_none() { vec![found.path.clone()] } else { Vec::new() },
                member: record.member,
            }
        }));
    }
    catalog
}

struct Reading<'a> {
    contents: JavaContents,
    entries_left: u64,
    bytes_left: u64,
    limits: &'a Limits,
}

impl Reading<'_> {
    /// Reads one archive; `outer` are the names of the archives it is in, from the second on, its own last.
    fn archive(&mut self, file: impl Read + Seek, file_name: &str, outer: &[String]) -> Result<(), String> {
        let place = |name: &str| outer.iter().map(|name| format!("{name}!/")).collect::<String>() + name;
        let why = |error: zip::result::ZipError| place("") + &error.to_string();
        let mut zip = ZipIterable::try_new(file, Config::default()).map_err(why)?;
        let left = self.entries_left.checked_sub(zip.len() as u64);
        self.entries_left = left.ok_or_else(|| place(&format!("more than {} entries", self.limits.zip_entries)))?;
        let files = zip.files().map_err(why)?;
        let wanted: Vec<_> = files
            .by_ref()
            .filter(|entry| entry.as_ref().map_or(true, |entry| Member::of(entry.name_raw()).is_some()))
            .collect::<Result<_, _>>()
            .map_err(why)?;
        let mut manifest = None;
        let mut poms = Vec::new();
        for entry in wanted {
            let Some(member) = Member::of(entry.name_raw()) else { continue };
            let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
            let limit = if member == Member::Archive { self.limits.nested_zip_bytes } else { self.limits.text_bytes };
            if member == Member::Archive && outer.len() >= MAX_DEPTH {
                self.contents.problems.push(place(&name) + ": more than three archives deep");
                continue;
            }
            let body = match read_entry(entry, files.reader_mut(), limit.min(self.bytes_left)) {
                Ok(body) => body,
                Err(error) => {
                    self.contents.problems.push(place(&name) + ": " + &error);
                    continue;
                }
            };
            // Entries may overlap, so that the archive's own size bounds nothing.
            self.bytes_left = self.bytes_left.saturating_sub(body.len() as u64);
            match member {
                Member::Manifest => drop(manifest.get_or_insert(Manifest::parse(&body))),
                Member::Pom => poms.extend(parse_pom_properties(&body).map(|pom| (pom, place(&name)))),
                Member::Archive => {
                    // One at a time is in memory, with those around it.
                    let own = name.rsplit('/').next().unwrap_or_default().to_owned();
                    let outer: Vec<String> = outer.iter().cloned().chain([name]).collect();
                    if let Err(problem) = self.archive(Cursor::new(body), &own, &outer) {
                        self.contents.problems.push(problem);
                    }
                }
            }
        }
        let own = own_record(file_name, &manifest.unwrap_or_default(), &mut poms);
        let member = (!outer.is_empty()).then(|| outer.join("!/"));
        self.contents.records.push(JavaRecord { member, ..own });
        self.contents.records.extend(poms.into_iter().map(|(pom, place)| JavaRecord { member: Some(place), ..pom }));
        Ok(())
    }
}

/// What of an archive's contents is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Manifest,
    Pom,
    Archive,
}

impl Member {
    fn of(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"META-INF/MANIFEST.MF") {
            Some(Self::Manifest)
        } else if name.starts_with(b"META-INF/maven/") && name.ends_with(b"/pom.properties") {
            Some(Self::Pom)
        } else {
            is_archive(name).then_some(Self::Archive)
        }
    }
}

fn is_archive(name: &[u8]) -> bool {
    let extension = memchr::memrchr(b'.', name).and_then(|at| name.get(at..)).unwrap_or_default();
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

fn read_entry(entry: ZipFileEntry<'_>, file: &mut (impl Read + Seek), limit: u64) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let opened = entry.with_reader(file, ZipReadOptions::default()).map_err(|error| error.to_string())?;
    opened.take(limit.saturating_add(1)).read_to_end(&mut body).map_err(|error| error.to_string())?;
    if body.len() as u64 > limit {
        return Err(format!("more than the limit of {limit} bytes"));
    }
    Ok(body)
}

/// What the archive itself is: the Maven record that fits its name, else what manifest and name tell. A record that is taken
/// leaves `poms`.
fn own_record(file_name: &str, manifest: &Manifest, poms: &mut Vec<(JavaRecord, String)>) -> JavaRecord {
    let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
    let (name, version) = split_version(stem);
    let licenses: BTreeSet<String> = manifest.get("Bundle-License").into_iter().collect();
    // File names write `-` for Maven's `_`.
    let dashed = |text: &str| text.replace('_', "-");
    let fits = |pom: &JavaRecord| {
        let artifact = dashed(&pom.artifact);
        artifact == dashed(name)
            || [artifact.clone(), format!("{artifact}-{}", dashed(&pom.version))].contains(&dashed(stem))
    };
    if let Some(at) = poms.iter().position(|(pom, _)| fits(pom)) {
        let (pom, _) = poms.remove(at);
        return JavaRecord { licenses, ..pom };
    }
    let versions = ["Implementation-Version", "Specification-Version", "Plugin-Version", "Bundle-Version"];
    let version = version.map(str::to_owned).or_else(|| versions.iter().find_map(|key| manifest.get(key)));
    JavaRecord {
        group: ["Group-Id", "Implementation-Vendor-Id"].iter().find_map(|key| manifest.get(key)),
        artifact: name.to_owned(),
        version: version.unwrap_or_default(),
        licenses,
        member: None,
    }
}

/// `commons-io-2.11.0` is `commons-io` in version `2.11.0`: Maven's custom for file names.
fn split_version(stem: &str) -> (&str, Option<&str>) {
    let dash = stem.match_indices('-').find(|(at, _)| stem.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit));
    match dash.and_then(|(at, _)| stem.split_at_checked(at)) {
        Some((name, version)) if !name.is_empty() => (name, version.strip_prefix('-')),
        _ => (stem, None),
    }
}

/// The record a `pom.properties` file is; `None` without artifact or version. Source: Maven Archiver; the format is Java's
/// properties, of which escapes do not occur here.
pub fn parse_pom_properties(bytes: &[u8]) -> Option<JavaRecord> {
    let text = String::from_utf8_lossy(bytes);
    let get = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned()).filter(|v| !v.is_empty())
    };
    Some(JavaRecord {
        group: get("groupId"),
        artifact: get("artifactId")?,
        version: get("version")?,
        ..JavaRecord::default()
    })
}

/// The main section of a manifest.
#[derive(Debug, Default)]
struct Manifest(BTreeMap<String, String>);

impl Manifest {
    fn parse(bytes: &[u8]) -> Self {
        let main = stanzas(bytes).next().unwrap_or_default();
        // A line goes on in the next one that begins with a blank, which is not part of it.
        let join = |value: &[u8]| -> String {
            let text = String::from_utf8_lossy(value).into_owned();
            text.lines()
                .enumerate()
                .map(|(n, line)| if n == 0 { line } else { line.get(1..).unwrap_or_default() })
                .collect()
        };
        let fields =
            main.fields().map(|(name, value)| (String::from_utf8_lossy(name).to_ascii_lowercase(), join(value)));
        Self(fields.collect())
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.get(&name.to_ascii_lowercase()).filter(|value| !value.is_empty()).cloned()
    }
}

/// Archives by the names that build tools and servers give them.
const EXTENSIONS: [&[u8]; 9] = [b".jar", b".war", b".ear", b".par", b".sar", b".nar", b".jpi", b".hpi", b".kar"];

/// How many archives may be in one another below the file: an ear holds wars that hold jars.
const MAX_DEPTH: usize = 3;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;
    use crate::{Rootfs, inventory::inventory};

    fn jar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, body) in members {
            zip.start_file(*name, SimpleFileOptions::default()).expect("memory");
            zip.write_all(body).expect("memory");
        }
        zip.finish().expect("memory").into_inner()
    }

    const POM: &[u8] = b"#Created by Maven\r\ngroupId=org.x\r\nartifactId=lib\r\nversion=1.2\r\n";

    fn purls(file_name: &str, bytes: Vec<u8>) -> (Vec<String>, Vec<String>) {
        let mut root = Rootfs::default();
        root.put_file(&format!("/app/{file_name}"), 0o644, bytes);
        let found = inventory(&root, &Limits::default());
        let packages = found.packages.into_iter();
        let purls = packages.map(|p| p.purl + p.member.map(|m| format!(" in {m}")).as_deref().unwrap_or_default());
        (purls.collect(), found.unknowns.into_iter().map(|unknown| unknown.why).collect())
    }

    #[test]
    fn the_pom_that_fits_the_name_is_the_archive() {
        let other: &[u8] = b"groupId=org.y\nartifactId=shaded\nversion=3\n";
        let bytes = jar(&[
            ("META-INF/maven/org.y/shaded/pom.properties", other),
            ("META-INF/maven/org.x/lib/pom.properties", POM),
        ]);
        let expected =
            ["pkg:maven/org.x/lib@1.2", "pkg:maven/org.y/shaded@3 in META-INF/maven/org.y/shaded/pom.properties"];
        assert_eq!(purls("lib-1.2.jar", bytes).0, expected);
    }

    #[test]
    fn without_a_pom_name_and_manifest_tell() {
        let manifest = b"Manifest-Version: 1.0\r\nImplementation-Version: 17.0\r\n .19\r\n\r\nName: x\r\n";
        let bytes = jar(&[("META-INF/MANIFEST.MF", manifest)]);
        assert_eq!(purls("jrt-fs.jar", bytes.clone()).0, ["pkg:maven/jrt-fs/jrt-fs@17.0.19"]);
        assert_eq!(purls("log4j-api-2.17.1.jar", bytes).0, ["pkg:maven/log4j-api/log4j-api@2.17.1"]);
    }

    #[test]
    fn archives_in_archives_count_three_deep() {
        let mut bytes = jar(&[("META-INF/maven/org.x/lib/pom.properties", POM)]);
        for name in ["a/lib-1.2.jar", "b.war", "c.ear"] {
            bytes = jar(&[(name, &bytes)]);
        }
        let (found, problems) = purls("d.ear", bytes.clone());
        assert!(found.contains(&"pkg:maven/org.x/lib@1.2 in c.ear!/b.war!/a/lib-1.2.jar".to_owned()), "{found:?}");
        assert!(problems.is_empty());
        let (found, problems) = purls("e.ear", jar(&[("d.ear", &bytes)]));
        assert_eq!((found.len(), problems.len()), (4, 1), "{found:?} {problems:?}");
    }

    #[test]
    fn limits_are_problems() {
        let bytes = jar(&[("a.jar", &jar(&[("x", b"")])), ("y", b"")]);
        let read = |limits: Limits| parse_archive(Cursor::new(bytes.clone()), "z.jar", &limits);
        assert_eq!(read(Limits::default()).problems, Vec::<String>::new());
        assert_eq!(read(Limits { zip_entries: 2, ..Limits::default() }).problems.len(), 1);
        assert_eq!(read(Limits { zip_bytes: 10, ..Limits::default() }).problems.len(), 1);
        assert_eq!(read(Limits { nested_zip_bytes: 10, ..Limits::default() }).problems.len(), 1);
    }

    #[test]
    fn a_broken_archive_is_unknown() {
        let bytes = jar(&[("META-INF/MANIFEST.MF", b"")]);
        let cut = bytes.get(..bytes.len() - 10).expect("longer").to_vec();
        let (found, problems) = purls("a.jar", cut);
        assert_eq!((found.len(), problems.len()), (0, 1));
    }
}
