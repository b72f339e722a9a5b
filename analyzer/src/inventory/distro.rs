//! Which distribution: os-release(5) in, its fields out.

use super::tree::Tree;

/// The distribution an image was built from. Source: os-release(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distro {
    /// `ID`: `debian`, `alpine` …; `linux` where it is not set.
    pub id: String,
    /// `ID_LIKE`: what it derives from, closest first.
    pub id_like: Vec<String>,
    /// `VERSION_ID`; rolling distributions have none.
    pub version_id: Option<String>,
    /// `VERSION_CODENAME`.
    pub codename: Option<String>,
    /// `PRETTY_NAME`, else `NAME`: for people.
    pub name: String,
}

impl Distro {
    /// What the qualifier `distro` of package URLs holds: `debian-12`.
    pub fn label(&self) -> String {
        match self.version_id.as_ref().or(self.codename.as_ref()) {
            Some(version) => format!("{}-{version}", self.id),
            None => self.id.clone(),
        }
    }
}

/// The distribution of the tree, from the first file that os-release(5) names and the tree has.
pub(super) fn read(tree: &Tree) -> Option<Distro> {
    let bytes = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| tree.read_path(path).ok())?;
    Some(parse(&bytes))
}

/// Reads os-release(5) text. Bytes that are not UTF-8 become U+FFFD.
pub fn parse(bytes: &[u8]) -> Distro {
    let mut distro = Distro { id: "linux".to_owned(), ..Distro::default() };
    let mut name = None;
    for line in String::from_utf8_lossy(bytes).lines() {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        let value = unquote(value);
        if value.is_empty() {
            continue;
        }
        match key {
            "ID" => distro.id = value.to_ascii_lowercase(),
            "ID_LIKE" => distro.id_like = value.split_whitespace().map(str::to_owned).collect(),
            "VERSION_ID" => distro.version_id = Some(value),
            "VERSION_CODENAME" => distro.codename = Some(value),
            "NAME" => name = Some(value),
            "PRETTY_NAME" => distro.name = value,
            _ => {}
        }
    }
    if distro.name.is_empty() {
        distro.name = name.unwrap_or_else(|| "Linux".to_owned());
    }
    distro
}

/// Takes the shell quoting away that os-release(5) allows.
fn unquote(value: &str) -> String {
    let bare = |quote| value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote));
    if let Some(literal) = bare('\'') {
        return literal.to_owned();
    }
    let mut text = String::new();
    let mut chars = bare('"').unwrap_or(value).chars();
    while let Some(char) = chars.next() {
        text.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_the_shells() {
        let distro = parse(b"# c\nID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\nID_LIKE=\"a b\"\nBROKEN\n");
        assert_eq!((distro.label().as_str(), distro.name.as_str()), ("debian-12", "Debian 12"));
        assert_eq!(distro.id_like, ["a", "b"]);
        assert_eq!(unquote(r#""a\"b\\c""#), r#"a"b\c"#);
    }

    #[test]
    fn a_rolling_distribution_has_no_version() {
        assert_eq!(parse(b"ID=arch\n").label(), "arch");
        assert_eq!(parse(b"").label(), "linux");
    }
}
