//! Debian's packages: dpkg's database in, packages and their files out.
//!
//! Read are `/var/lib/dpkg/status`, `info/NAME[:ARCH].list`, `diversions`, and the form distroless images have: a stanza per
//! package in `status.d/NAME` with `NAME.md5sums` beside it. A package counts when its files are there: dpkg(1), states
//! `unpacked` and above, not `config-files`. Architectures other than the image's own count as any other.

use std::collections::{BTreeSet, HashMap, HashSet};

use dna::ImagePath;

use super::{
    Catalog, Distro, Package, PackageKind,
    deb822::{Stanza, stanzas},
    purl::Purl,
    tree::{Lister, Tree},
};
use crate::Resolved;

/// A package as a stanza tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebRecord {
    /// `Package`.
    pub name: String,
    /// `Version`.
    pub version: String,
    /// `Architecture`.
    pub architecture: Option<String>,
    /// `Source`: the source package, where it is called otherwise than this one.
    pub source: Option<String>,
    /// The source's version, where it is another.
    pub source_version: Option<String>,
}

/// The packages of a `status` file, or of one of `status.d`, that are installed.
pub fn parse_status(bytes: &[u8]) -> Vec<DebRecord> {
    stanzas(bytes).filter(is_installed).filter_map(|stanza| record(&stanza)).collect()
}

/// The packages that dpkg knows of.
pub(super) fn catalog(tree: &Tree, distro: Option<&Distro>) -> Catalog {
    let mut catalog = Catalog::default();
    let mut lister = Lister::new(tree.rootfs);
    installed(tree, distro, &mut lister, &mut catalog);
    distroless(tree, distro, &mut lister, &mut catalog);
    catalog
}

fn installed(tree: &Tree, distro: Option<&Distro>, lister: &mut Lister, catalog: &mut Catalog) {
    let Some((status, body)) = tree.database("/var/lib/dpkg/status") else { return };
    let bytes = match body {
        Ok(bytes) => bytes,
        Err(error) => return catalog.unknown(&status.path, error),
    };
    let diverted = diversions(tree);
    let control = control_files(tree);
    let mut seen = HashSet::new();
    for record in parse_status(&bytes) {
        // dpkg keeps one entry a name and architecture; more would read one list again and again.
        if !seen.insert((record.name.clone(), record.architecture.clone())) {
            continue;
        }
        let with_architecture = record.architecture.as_ref().map(|arch| format!("{}:{arch}", record.name));
        let own = with_architecture
            .and_then(|name| control.get(name.as_bytes()))
            .or_else(|| control.get(record.name.as_bytes()))
            .map_or(&[][..], Vec::as_slice);
        let list = own.iter().find(|found| found.path.as_bytes().ends_with(b".list"));
        let names = list.map_or(Ok(Vec::new()), |list| tree.read_text(list.inode));
        let names = names.unwrap_or_else(|error| {
            catalog.unknown(list.map_or(&status.path, |list| &list.path), error);
            Vec::new()
        });
        let divert = |name| diverted.get(name).filter(|to| to.by != record.name.as_bytes()).map(|to| &*to.to);
        let mut files = lister.files(lines(&names).map(|name| divert(name).unwrap_or(name)));
        files.extend(own.iter().map(|found| found.path.clone()));
        files.sort_unstable();
        files.dedup();
        // dpkg writes a package's list anew with each version, but `status` with every change.
        let brought = tree.layer(list.unwrap_or(&status).inode);
        let licenses = licenses(tree, &record.name);
        catalog.packages.push(package(record, distro, &status.path, licenses, files, brought));
    }
}

/// The files dpkg keeps of each package, by `NAME` or `NAME:ARCHITECTURE`: lists, sums, maintainer scripts.
fn control_files<'a>(tree: &Tree<'a>) -> HashMap<&'a [u8], Vec<Resolved>> {
    let mut files: HashMap<_, Vec<_>> = HashMap::new();
    for (found, name) in tree.directory("/var/lib/dpkg/info") {
        if let Some(package) = memchr::memrchr(b'.', name).and_then(|at| name.get(..at)) {
            files.entry(package).or_default().push(found);
        }
    }
    files
}

fn distroless(tree: &Tree, distro: Option<&Distro>, lister: &mut Lister, catalog: &mut Catalog) {
    for (found, name) in tree.directory("/var/lib/dpkg/status.d") {
        if name.ends_with(b".md5sums") || tree.rootfs.file(found.inode).is_none() {
            continue;
        }
        let bytes = match tree.read_text(found.inode) {
            Ok(bytes) => bytes,
            Err(error) => {
                catalog.unknown(&found.path, error);
                continue;
            }
        };
        let sums = ImagePath::normalize(&[found.path.as_bytes(), b".md5sums"].concat()).ok();
        let sums = sums.and_then(|path| tree.read_at(&path).ok()).unwrap_or_default();
        // md5sum(1): 32 digits, two characters, the name.
        let files = lister.files(lines(&sums).filter_map(|line| line.get(34..)));
        // A file holds one package; more would each own the same files.
        if let Some(record) = parse_status(&bytes).into_iter().next() {
            let licenses = licenses(tree, &record.name);
            catalog.packages.push(package(record, distro, &found.path, licenses, files, tree.layer(found.inode)));
        }
    }
}

fn package(
    record: DebRecord,
    distro: Option<&Distro>,
    location: &ImagePath,
    licenses: BTreeSet<String>,
    files: Vec<ImagePath>,
    layer: u32,
) -> Package {
    let upstream = record.source.as_ref().map(|name| match &record.source_version {
        Some(version) => format!("{name}@{version}"),
        None => name.clone(),
    });
    let purl = Purl::new(PackageKind::Deb, &record.name, &record.version)
        .namespace(distro.map_or("debian", |distro| &distro.id))
        .qualifier("arch", record.architecture.as_deref())
        .qualifier("distro", distro.map(Distro::label).as_deref())
        .qualifier("upstream", upstream.as_deref())
        .build();
    Package {
        kind: PackageKind::Deb,
        name: record.name,
        version: record.version,
        architecture: record.architecture,
        location: location.clone(),
        member: None,
        purl,
        licenses,
        layer,
        files,
    }
}

fn record(stanza: &Stanza<'_>) -> Option<DebRecord> {
    let name = stanza.text("Package")?;
    // `Source: name (version)`.
    let source = stanza.text("Source").unwrap_or_default();
    let (source, version) = source.split_once('(').unwrap_or((&source, ""));
    let (source, version) = (source.trim(), version.trim_end().trim_end_matches(')').trim());
    Some(DebRecord {
        version: stanza.text("Version")?,
        architecture: stanza.text("Architecture"),
        source: Some(source.to_owned()).filter(|source| !source.is_empty() && *source != name || !version.is_empty()),
        source_version: Some(version.to_owned()).filter(|version| !version.is_empty()),
        name,
    })
}

/// What `/usr/share/doc/NAME/copyright` says; nothing where an image leaves documentation out, as many do.
fn licenses(tree: &Tree, name: &str) -> BTreeSet<String> {
    tree.read_path(&format!("/usr/share/doc/{name}/copyright")).map(|bytes| parse_copyright(&bytes)).unwrap_or_default()
}

/// The short names in a machine-readable copyright file (Debian, DEP-5): the first lines of its `License` fields. In a file of
/// another form, those of the common licenses it refers to.
pub fn parse_copyright(bytes: &[u8]) -> BTreeSet<String> {
    let is_machine_readable = stanzas(bytes).next().is_some_and(|header| header.get("Format").is_some());
    if is_machine_readable {
        let fields = stanzas(bytes).filter_map(|stanza| stanza.get("License"));
        let names = fields.map(|text| lines(text).next().unwrap_or_default().trim_ascii());
        let named = names.filter(|name| !name.is_empty() && name.len() <= MAX_LICENSE_NAME_BYTES);
        return named.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    }
    let references = memchr::memmem::find_iter(bytes, COMMON_LICENSES);
    let names = references.filter_map(|at| {
        let rest = bytes.get(at.checked_add(COMMON_LICENSES.len())?..)?;
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
        let end = rest.iter().take(MAX_LICENSE_NAME_BYTES).take_while(|byte| is_name(byte)).count();
        // A full stop may end the sentence.
        let name = rest.get(..end)?.strip_suffix(b".").or(rest.get(..end))?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    });
    names.collect()
}

/// `Status: want flag state`; a stanza of `status.d` has none.
fn is_installed(stanza: &Stanza<'_>) -> bool {
    let Some(status) = stanza.get("Status") else { return true };
    let state = status.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
    !matches!(state, b"not-installed" | b"config-files" | b"half-installed")
}

/// Where a file went that a package brought while another's has its place.
struct Diversion {
    to: Vec<u8>,
    by: Vec<u8>,
}

/// dpkg-divert(1): three lines each, the name, where it went, and whose package may keep the name (`:` for the administrator).
fn diversions(tree: &Tree) -> HashMap<Vec<u8>, Diversion> {
    let bytes = tree.read_path("/var/lib/dpkg/diversions").unwrap_or_default();
    let mut lines = lines(&bytes);
    let mut found = HashMap::new();
    while let (Some(from), Some(to), Some(by)) = (lines.next(), lines.next(), lines.next()) {
        found.insert(from.to_vec(), Diversion { to: to.to_vec(), by: by.to_vec() });
    }
    found
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// Debian's policy 12.5: packages refer to the texts here.
const COMMON_LICENSES: &[u8] = b"/usr/share/common-licenses/";
/// Longer ones are license texts.
const MAX_LICENSE_NAME_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use dna::Limits;

    use super::parse_copyright;
    use crate::{Rootfs, inventory::inventory};

    const STATUS: &str = "\
Package: dash
Status: install ok installed
Architecture: amd64
Source: dash-src (0.5-1)
Version: 0.5-2

Package: libc6
Status: install ok unpacked
Architecture: amd64
Multi-Arch: same
Version: 1:2.36-9

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 3
";

    fn tree() -> Rootfs {
        let mut root = Rootfs::default();
        root.put_link("/bin", "usr/bin");
        root.put_file("/usr/bin/dash", 0o755, "");
        root.put_link("/usr/bin/sh", "dash");
        root.put_file("/usr/bin/sh.distrib", 0o755, "");
        root.put_file("/usr/lib/libc.so.6", 0o755, "");
        root.put_file("/etc/os-release", 0o644, "ID=debian\nVERSION_ID=\"12\"\n");
        root.put_file("/var/lib/dpkg/status", 0o644, STATUS);
        root.put_file("/var/lib/dpkg/diversions", 0o644, "/bin/sh\n/bin/sh.distrib\ndash\n");
        root.put_file("/var/lib/dpkg/info/dash.list", 0o644, "/.\n/bin\n/bin/dash\n/bin/sh\n/usr/share/doc/dash\n");
        root.put_file(
            "/var/lib/dpkg/info/libc6:amd64.list",
            0o644,
            "/.\n/usr\n/usr/lib\n/usr/lib/libc.so.6\n/bin/sh\n",
        );
        root
    }

    fn owner(root: &Rootfs, path: &str) -> Option<String> {
        let found = inventory(root, &Limits::default());
        found.owner(&path.parse().expect("no NUL")).map(|package| package.name.clone())
    }

    #[test]
    fn only_packages_whose_files_are_there_count() {
        let found = inventory(&tree(), &Limits::default());
        let names: Vec<_> = found.packages.iter().map(|p| (p.name.as_str(), p.version.as_str())).collect();
        assert_eq!(names, [("dash", "0.5-2"), ("libc6", "1:2.36-9")]);
        let purls: Vec<_> = found.packages.iter().map(|p| p.purl.as_str()).collect();
        assert_eq!(
            purls,
            [
                "pkg:deb/debian/dash@0.5-2?arch=amd64&distro=debian-12&upstream=dash-src%400.5-1",
                "pkg:deb/debian/libc6@1:2.36-9?arch=amd64&distro=debian-12",
            ]
        );
        assert!(found.unknowns.is_empty());
    }

    #[test]
    fn a_listed_name_in_a_linked_folder_is_its_real_file() {
        assert_eq!(owner(&tree(), "/usr/bin/dash").as_deref(), Some("dash"));
        assert_eq!(owner(&tree(), "/usr/lib/libc.so.6").as_deref(), Some("libc6"));
        assert_eq!(owner(&tree(), "/var/lib/dpkg/info/dash.list").as_deref(), Some("dash"));
        assert_eq!(owner(&tree(), "/usr/bin"), None, "a directory has no single owner");
        assert_eq!(owner(&tree(), "/etc/os-release"), None);
    }

    #[test]
    fn a_diverted_name_belongs_to_who_diverted_it() {
        assert_eq!(owner(&tree(), "/usr/bin/sh").as_deref(), Some("dash"));
        assert_eq!(owner(&tree(), "/usr/bin/sh.distrib").as_deref(), Some("libc6"));
    }

    #[test]
    fn distroless_stanzas_own_what_their_sums_list() {
        let mut root = Rootfs::default();
        root.put_file("/usr/share/zoneinfo/UTC", 0o644, "");
        root.put_file("/var/lib/dpkg/status.d/tzdata", 0o644, "Package: tzdata\nVersion: 2024a\nArchitecture: all\n");
        let sums = format!("{}  usr/share/zoneinfo/UTC\n", "0".repeat(32));
        root.put_file("/var/lib/dpkg/status.d/tzdata.md5sums", 0o644, sums);
        assert_eq!(owner(&root, "/usr/share/zoneinfo/UTC").as_deref(), Some("tzdata"));
    }

    #[test]
    fn licenses_are_what_copyright_files_name() {
        let of = |text: &str| parse_copyright(text.as_bytes()).into_iter().collect::<Vec<_>>();
        let machine = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
            Files: *\nLicense: GPL-2+ or MIT\n text\n .\n text\n\nLicense: BSD-3-Clause\n text\n";
        assert_eq!(of(machine), ["BSD-3-Clause", "GPL-2+ or MIT"]);
        let free =
            "On Debian systems it is in /usr/share/common-licenses/GPL-2.\nSee `/usr/share/common-licenses/LGPL-2.1'";
        assert_eq!(of(free), ["GPL-2", "LGPL-2.1"]);
        assert_eq!(of("License: none of these"), Vec::<String>::new());
        let mut root = tree();
        root.put_file("/usr/share/doc/libc6/copyright", 0o644, free);
        let found = inventory(&root, &Limits::default());
        assert_eq!(found.packages.iter().map(|package| package.licenses.len()).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_database_above_the_limit_is_unknown() {
        let limits = Limits { database_bytes: 10, ..Limits::default() };
        let found = inventory(&tree(), &limits);
        assert!(found.packages.is_empty());
        assert_eq!(found.unknowns.first().map(|u| u.place.as_str()), Some("/var/lib/dpkg/status"));
    }

    #[test]
    fn packages_above_the_limit_are_unknown() {
        let limits = Limits { packages: 1, ..Limits::default() };
        let found = inventory(&tree(), &limits);
        assert_eq!((found.packages.len(), found.unknowns.len()), (1, 1));
    }
}
