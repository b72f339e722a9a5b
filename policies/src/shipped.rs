//! The rules that come with the program.

/// Their names and texts: `baseline`, `restricted`, `supply-chain`, `audit`. To be read by [`load`](crate::load).
#[must_use]
pub fn shipped() -> [(&'static str, &'static str); 4] {
    [
        ("baseline", include_str!("../rules/baseline.yaml")),
        ("restricted", include_str!("../rules/restricted.yaml")),
        ("supply-chain", include_str!("../rules/supply-chain.yaml")),
        ("audit", include_str!("../rules/audit.yaml")),
    ]
}
