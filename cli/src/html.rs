//! placeholder
pub(crate) struct Report<'a> {
    pub(crate) name: &'a str,
    pub(crate) dna: &'a dna::Dna,
    pub(crate) behavior: &'a dna::Behavior,
    pub(crate) unknowns: &'a [dna::Unknown],
    pub(crate) command: Option<&'a [String]>,
    pub(crate) dna_digest: String,
    pub(crate) manifest: Option<String>,
    pub(crate) packages: Vec<(String, usize)>,
}
pub(crate) fn render(r: &Report<'_>) -> String {
    format!("{}", r.name)
}
