//! Rules that the targets hold material against, about the empty file.

use std::sync::LazyLock;

use dna::Digest;
use trust::{
    Candidate, Evidence, Format, Formats, Identity, Material, Origin, Place, PublicKey, Root, Signer, Text, Who, verify,
};

/// A key and everyone whom the public-good instance names, on every evidence.
pub static SIGNERS: LazyLock<Vec<Signer>> = LazyLock::new(|| {
    let roots = vec![Root::public_good().expect("a root")];
    let everyone = || Text::pattern(".*").expect("a pattern");
    let anyone = Identity { subject: everyone(), issuer: everyone(), claims: [].into() };
    let key = PublicKey::from_pem(include_str!("../../corpus/key/public.pem")).expect("a key");
    let whos = [Who::Key(key), Who::Identities(vec![anyone])];
    let evidence = [Evidence::Signature, Evidence::Timestamp, Evidence::Log];
    let signer = |who: &Who, evidence| {
        let (name, who, roots) = ("fuzz".to_owned(), who.clone(), roots.clone());
        Signer { name, who, evidence, roots }
    };
    whos.iter().flat_map(|who| evidence.map(|evidence| signer(who, evidence))).collect()
});

/// Holds what lies beside an image against the rules: none of them is satisfied.
pub fn refused(format: Format, material: Material) {
    let digest = Digest::sha256(b"");
    let origin = Origin { subject: digest.clone(), place: Place::File, carrier: digest, format };
    let found = verify(&[Candidate { origin, material }], &SIGNERS, Formats::default());
    assert!(found.signatures.is_empty() && found.attestations.is_empty() && !found.refusals.is_empty());
}
