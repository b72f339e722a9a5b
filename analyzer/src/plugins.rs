//! Files that a library opens by configuration of its own: OpenSSL's providers (config(5ssl), provider(7ossl)) and the character sets of
//! glibc's iconv(3) (`iconv/gconv_conf.c`).

use std::collections::BTreeMap;

use dna::{Confidence, Evidence, ImagePath};

use crate::{Rootfs, acts::Opened};

/// The providers that libcrypto 3 opens: those that its configuration activates, and those that code asks for by name. Built-in ones
/// are no files.
pub(crate) fn providers(
    libcrypto: &ImagePath,
    env: &BTreeMap<String, String>,
    asked: &[Opened],
    rootfs: &Rootfs,
    text_bytes: u64,
) -> Vec<Opened> {
    let own = libcrypto.parent().and_then(|folder| folder.join(b"ossl-modules").ok()).map(|path| path.to_string());
    let Some(folder) = env.get("OPENSSL_MODULES").cloned().or(own) else { return Vec::new() };
    let file = |name: &str| if name.starts_with('/') { name.to_owned() } else { format!("{folder}/{name}.so") };
    let mut found: Vec<Opened> =
        asked.iter().map(|opened| Opened { name: file(&opened.name), ..opened.clone() }).collect();
    let places = env.get("OPENSSL_CONF").map(String::as_str).into_iter().chain(OPENSSL_CONF);
    let read = |place: &str| {
        let path = rootfs.resolve(&place.parse().ok()?).ok()?.path;
        Some((rootfs.read_path(&path, text_bytes).ok()?, path))
    };
    let Some((text, path)) = places.into_iter().find_map(read) else { return found };
    let layer = rootfs.layer_of(&path);
    for (line, name) in activated(&String::from_utf8_lossy(&text)) {
        let detail = Some(format!("provider {name}"));
        let evidence = Evidence::File { path: path.clone(), line: Some(line), layer, detail };
        found.push(Opened { name: file(&name), confidence: Confidence::Likely, evidence });
    }
    found
}

/// Providers that a configuration activates, by name or module file, with the line that says so.
fn activated(text: &str) -> Vec<(u32, String)> {
    let mut sections = BTreeMap::<&str, Vec<(u32, &str, &str)>>::new();
    let mut section = "";
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
        } else if let Some((key, value)) = text.split_once('=') {
            sections.entry(section).or_default().push((line, key.trim(), value.trim().trim_matches('"')));
        }
    }
    let entries = |section: &str| sections.get(section).map(Vec::as_slice).unwrap_or_default();
    let value = |section: &str, wanted: &str| {
        entries(section).iter().rev().find(|(_, key, _)| *key == wanted).map(|(line, _, value)| (*line, *value))
    };
    let start = value("", "openssl_conf").or_else(|| value("default", "openssl_conf"));
    let Some((_, list)) = start.and_then(|(_, init)| value(init, "providers")) else { return Vec::new() };
    let provider = |(_, name, section): &(u32, &str, &str)| {
        let (line, active) = value(section, "activate")?;
        let name = value(section, "module").map_or(*name, |(_, module)| module);
        let is_file = !matches!(name, "default" | "base" | "null");
        (is_file && matches!(active, "1" | "yes" | "true" | "on")).then(|| (line, name.to_owned()))
    };
    entries(list).iter().filter_map(provider).collect()
}

/// The modules that convert from and to the character sets that code asks for, of the C library in a folder.
pub(crate) fn charsets(libc: &ImagePath, asked: &[Opened], rootfs: &Rootfs, text_bytes: u64) -> Vec<Opened> {
    let Some(folder) = libc.parent().and_then(|folder| folder.join(b"gconv").ok()) else { return Vec::new() };
    let mut tables = Vec::new();
    for below in [b".".as_slice(), b"gconv-modules.d"] {
        let Ok(place) = rootfs.resolve_from(&folder, below) else { continue };
        for (name, inode) in rootfs.children(place.inode) {
            if name == b"gconv-modules" || name.ends_with(b".conf") {
                tables.extend(rootfs.read(inode, text_bytes));
            }
        }
    }
    let text: String = tables.iter().map(|table| String::from_utf8_lossy(table)).collect();
    let converters = Converters::of(&text);
    let modules = |opened: &Opened| {
        let found = converters.modules(&opened.name).into_iter();
        let name = |module: &str| Opened { name: format!("{folder}/{module}.so"), ..opened.clone() };
        found.map(name).collect::<Vec<_>>()
    };
    asked.iter().flat_map(modules).collect()
}

/// What `gconv-modules` says.
#[derive(Debug, Default)]
struct Converters<'a> {
    aliases: BTreeMap<&'a str, &'a str>,
    modules: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Converters<'a> {
    fn of(text: &'a str) -> Self {
        let mut converters = Self::default();
        let name = |word: &'a str| word.trim_end_matches('/');
        for line in text.lines() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            match words.as_slice() {
                ["alias", from, to] => {
                    converters.aliases.insert(name(from), name(to));
                }
                ["module", from, to, file, ..] => {
                    for set in [from, to] {
                        converters.modules.entry(name(set)).or_default().push(file);
                    }
                }
                _ => {}
            }
        }
        converters
    }

    fn modules(&self, charset: &str) -> Vec<&'a str> {
        let charset = charset.split("//").next().unwrap_or_default().to_uppercase();
        let name = self.aliases.get(charset.as_str()).copied().unwrap_or(&charset);
        let mut modules = self.modules.get(name).cloned().unwrap_or_default();
        modules.sort_unstable();
        modules.dedup();
        if name == "INTERNAL" { Vec::new() } else { modules }
    }
}

/// Where distributions and the source's own build keep the configuration (`openssl version -d`).
const OPENSSL_CONF: [&str; 4] =
    ["/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/usr/local/ssl/openssl.cnf"];

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = "openssl_conf = openssl_init\n[openssl_init]\nproviders = provider_sect # list\n\
        [provider_sect]\ndefault = default_sect\nlegacy = legacy_sect\nown = own_sect\nfips = fips_sect\n\
        [default_sect]\nactivate = 1\n[legacy_sect]\nactivate = 1\n[own_sect]\nmodule = /opt/own.so\nactivate = yes\n\
        [fips_sect]\n# activate = 1\n";

    fn asked(name: &str) -> Opened {
        Opened {
            name: name.to_owned(),
            confidence: Confidence::Possible,
            evidence: Evidence::Config { key: "test".to_owned() },
        }
    }

    #[test]
    fn providers_are_those_activated_and_those_asked_for() {
        let mut root = Rootfs::new(40);
        root.put_file("/etc/ssl/openssl.cnf", 0o644, CONFIGURATION);
        root.put_link("/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf");
        let libcrypto = "/usr/lib/x86_64-linux-gnu/libcrypto.so.3".parse().expect("a path");
        let found = providers(&libcrypto, &BTreeMap::new(), &[asked("fips")], &root, 1 << 20);
        let names: Vec<&str> = found.iter().map(|opened| opened.name.as_str()).collect();
        let folder = "/usr/lib/x86_64-linux-gnu/ossl-modules";
        assert_eq!(names, [&format!("{folder}/fips.so"), &format!("{folder}/legacy.so"), "/opt/own.so"]);
        assert!(matches!(&found.get(1).expect("legacy").evidence, Evidence::File { line: Some(12), .. }));
        let env = BTreeMap::from([("OPENSSL_CONF".to_owned(), "/none".to_owned())]);
        assert_eq!(activated("[a]\nproviders = b\n"), [], "no start is named");
        assert_eq!(providers(&libcrypto, &env, &[], &Rootfs::new(40), 1 << 20), []);
    }

    #[test]
    fn a_character_set_is_converted_by_its_modules() {
        let mut root = Rootfs::new(40);
        let folder = "/usr/lib/x86_64-linux-gnu/gconv";
        root.put_file(&format!("{folder}/gconv-modules"), 0o644, "alias LATIN1// ISO-8859-1//\nmodule ISO-8859-1// INTERNAL ISO8859-1 1\nmodule INTERNAL ISO-8859-1// ISO8859-1 1\n");
        root.put_file(&format!("{folder}/gconv-modules.d/extra.conf"), 0o644, "module UTF-16// INTERNAL UTF-16 1\n");
        let libc = "/usr/lib/x86_64-linux-gnu/libc.so.6".parse().expect("a path");
        let asked = ["latin1//TRANSLIT", "UTF-16", "UTF-8", "INTERNAL"].map(asked);
        let names: Vec<String> =
            charsets(&libc, &asked, &root, 1 << 20).into_iter().map(|opened| opened.name).collect();
        assert_eq!(names, [format!("{folder}/ISO8859-1.so"), format!("{folder}/UTF-16.so")]);
    }
}
