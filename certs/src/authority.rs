//! A certificate authority that lives in the data of a Kubernetes Secret, and when it is to change. No I/O: data and a time in,
//! data out.
//!
//! ```text
//! CA 1   ├────────── issues ──────────┤── trusted until it expires ──┤
//! CA 2                         ├ spread ┤────────── issues …
//! bundle │ 1                   │ 1, 2   │ 2, 1                         │ 2
//! ```
//!
//! A new authority is in the bundle that API servers trust before anything is issued by it. The old one stays there until it
//! expires, which is after all that it issued: however long a replica does not learn of the change, what it serves is trusted while
//! it is valid. The old key is gone with the change, so that nothing more is issued by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use x509_parser::time::ASN1Time;

use crate::{
    Error,
    pair::{Facts, certificates, is_issued_by},
};

/// How long certificates live, and how long a change of authority takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority.
    pub authority: Duration,
    /// Of a leaf; less than a third of the authority's, so that a leaf never outlives it.
    pub leaf: Duration,
    /// From when a new authority is in the bundle until it issues.
    pub spread: Duration,
}

impl Default for Lifetimes {
    /// An authority for a year: its key lies beside the leaf's, so that a longer life would protect nothing, and what happens
    /// every eight months is known to work. The four months left when it is renewed are time to notice that it was not.
    /// A leaf for 90 days, renewed after 60. An hour to spread is a thousand times what a watch of the API server takes.
    fn default() -> Self {
        Self { authority: 365 * DAY, leaf: 90 * DAY, spread: Duration::from_secs(3600) }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// The authority issues a leaf anew: the old one is two thirds through, lacks a name, or is not its own.
    RenewLeaf,
    /// A new authority joins the bundle: the old one is two thirds through.
    AddAuthority,
    /// The new authority has spread: it issues from now on.
    SwitchAuthority,
    /// An old authority has expired, and all that it issued: it leaves the bundle.
    DropAuthority,
    /// The authority has expired: a new one begins at once, as nothing it issues is trusted any more.
    Begin,
}

/// An authority, the leaf it issued, and other authorities that are trusted.
#[derive(Clone)]
pub struct Authority {
    issuer: Own,
    next: Option<Own>,
    old: Vec<Trusted>,
    leaf_pem: String,
    leaf_key_pem: String,
}

/// A certificate that is trusted.
#[derive(Clone)]
struct Trusted {
    der: CertificateDer<'static>,
    pem: String,
    facts: Facts,
}

/// An authority whose key we have.
#[derive(Clone)]
struct Own {
    certificate: Trusted,
    key_pem: String,
}

impl Authority {
    /// A new authority, and a leaf for these DNS names.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn begin(names: &BTreeSet<String>, lifetimes: &Lifetimes, now: Timestamp) -> Result<Self, Error> {
        let issuer = Own::generate(lifetimes, now)?;
        let (leaf_pem, leaf_key_pem) = issuer.issue(names, lifetimes, now)?;
        Ok(Self { issuer, next: None, old: Vec::new(), leaf_pem, leaf_key_pem })
    }

    /// The authority in a Secret's data; none where its certificate or key is missing or cannot be read. A leaf that is missing is
    /// to be renewed.
    pub fn read(data: &BTreeMap<String, ByteString>) -> Option<Self> {
        let bytes = |key: &str| data.get(key).map_or(&[][..], |bytes| &bytes.0);
        let text = |key: &str| String::from_utf8(bytes(key).to_vec()).ok();
        let mut trusted = trusted(&text(CA_CERTIFICATES)?)?;
        let mut own = |key: &str| {
            let key_pem = text(key)?;
            let public = KeyPair::from_pem(&key_pem).ok()?.subject_public_key_info();
            let index = trusted.iter().position(|trusted| trusted.facts.public_key == public)?;
            Some(Own { certificate: trusted.remove(index), key_pem })
        };
        let issuer = own(CA_KEY)?;
        let next = own(NEXT_CA_KEY);
        let (leaf_pem, leaf_key_pem) = (text(LEAF)?, text(LEAF_KEY)?);
        Some(Self { issuer, next, old: trusted, leaf_pem, leaf_key_pem })
    }

    /// The same, which also trusts the certificates in a Secret's data that are still valid: replicas may serve what they issued.
    pub(crate) fn trusting(mut self, data: &BTreeMap<String, ByteString>, now: Timestamp) -> Self {
        let bundle = data.get(CA_CERTIFICATES).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
        let found = bundle.and_then(trusted).unwrap_or_default();
        self.old.extend(found.into_iter().filter(|old| now < old.facts.not_after));
        self
    }

    /// The same as a Secret's data.
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::from([
            (CA_CERTIFICATES, self.bundle()),
            (CA_KEY, self.issuer.key_pem.clone()),
            (LEAF, self.leaf_pem.clone()),
            (LEAF_KEY, self.leaf_key_pem.clone()),
        ]);
        data.extend(self.next.as_ref().map(|next| (NEXT_CA_KEY, next.key_pem.clone())));
        data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect()
    }

    /// What API servers are to trust, in PEM: the authority that issues, the one that will, those that did.
    pub fn bundle(&self) -> String {
        let own = [Some(&self.issuer), self.next.as_ref()].into_iter().flatten().map(|own| &own.certificate);
        own.chain(&self.old).map(|trusted| trusted.pem.as_str()).collect()
    }

    /// The leaf and its key, in PEM.
    pub fn leaf(&self) -> (&str, &str) {
        (&self.leaf_pem, &self.leaf_key_pem)
    }

    /// Until when the authority that issues is valid.
    pub fn not_after(&self) -> Timestamp {
        self.issuer.certificate.facts.not_after
    }

    /// What is to be done now, for a server of these names. One step at a time: ask again after it.
    pub fn state(&self, names: &BTreeSet<String>, lifetimes: &Lifetimes, now: Timestamp) -> Step {
        let authority = &self.issuer.certificate.facts;
        if now >= authority.not_after || now < authority.not_before {
            return Step::Begin;
        }
        if self.next.as_ref().is_some_and(|next| now >= next.certificate.made() + lifetimes.spread) {
            return Step::SwitchAuthority;
        }
        let Some(leaf) = self.leaf_facts() else { return Step::RenewLeaf };
        // Replicas of two versions may want different names for a while: what one of them has added, the other leaves.
        if is_late(&leaf, now) || now < leaf.not_before || !names.is_subset(&leaf.names) {
            return Step::RenewLeaf;
        }
        if self.next.is_none() && is_late(authority, now) {
            return Step::AddAuthority;
        }
        if self.old.iter().any(|old| now >= old.facts.not_after) {
            return Step::DropAuthority;
        }
        Step::Keep
    }

    /// The authority after a step.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn after(
        mut self,
        step: Step,
        names: &BTreeSet<String>,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Self, Error> {
        match step {
            Step::Keep => {}
            Step::RenewLeaf => {
                let kept = self.leaf_facts().filter(|leaf| !is_late(leaf, now)).map(|leaf| leaf.names);
                self.issue(&kept.into_iter().flatten().chain(names.iter().cloned()).collect(), lifetimes, now)?;
            }
            Step::AddAuthority => self.next = Some(Own::generate(lifetimes, now)?),
            Step::SwitchAuthority => {
                if let Some(next) = self.next.take() {
                    self.old.push(std::mem::replace(&mut self.issuer, next).certificate);
                    self.issue(names, lifetimes, now)?;
                }
            }
            Step::DropAuthority => self.old.retain(|old| now < old.facts.not_after),
            Step::Begin => {
                let begun = Self::begin(names, lifetimes, now)?;
                self = Self { old: self.old.into_iter().filter(|old| now < old.facts.not_after).collect(), ..begun };
            }
        }
        Ok(self)
    }

    fn issue(&mut self, names: &BTreeSet<String>, lifetimes: &Lifetimes, now: Timestamp) -> Result<(), Error> {
        (self.leaf_pem, self.leaf_key_pem) = self.issuer.issue(names, lifetimes, now)?;
        Ok(())
    }

    /// The leaf, where it is the issuer's and its key matches.
    fn leaf_facts(&self) -> Option<Facts> {
        let leaf = certificates(self.leaf_pem.as_bytes()).ok()?.into_iter().next()?;
        let facts = Facts::of(&leaf).ok()?;
        let public = KeyPair::from_pem(&self.leaf_key_pem).ok()?.subject_public_key_info();
        (is_issued_by(&leaf, &self.issuer.certificate.der) && facts.public_key == public).then_some(facts)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority(until {}, next: {}, old: {})", self.not_after(), self.next.is_some(), self.old.len())
    }
}

impl Trusted {
    fn made(&self) -> Timestamp {
        self.facts.not_before + BACKDATED
    }
}

impl Own {
    fn generate(lifetimes: &Lifetimes, now: Timestamp) -> Result<Self, Error> {
        // A name of its own: verifiers look for an issuer by name.
        let name = format!("mayfly webhook authority {}", now.as_second());
        let issued = |source| Error::Issue { name: name.clone(), source };
        let key = KeyPair::generate().map_err(issued)?;
        let mut params = params(&name, now, lifetimes.authority).map_err(issued)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(issued)?;
        let (der, pem) = (certificate.der().clone(), certificate.pem().replace('\r', ""));
        let facts = Facts::of(&der).map_err(|_| issued(rcgen::Error::CouldNotParseCertificate))?;
        Ok(Self { certificate: Trusted { der, pem, facts }, key_pem: key.serialize_pem() })
    }

    /// A leaf and its key, in PEM.
    fn issue(
        &self,
        names: &BTreeSet<String>,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<(String, String), Error> {
        let name = names.first().cloned().unwrap_or_default();
        let issue = || {
            let issuer = Issuer::from_ca_cert_der(&self.certificate.der, KeyPair::from_pem(&self.key_pem)?)?;
            let key = KeyPair::generate()?;
            let mut params = params("mayfly webhook", now, lifetimes.leaf)?;
            params.subject_alt_names =
                CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?.subject_alt_names;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.use_authority_key_identifier_extension = true;
            Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
        };
        issue().map_err(|source| Error::Issue { name, source })
    }
}

fn params(name: &str, now: Timestamp, life: Duration) -> Result<CertificateParams, rcgen::Error> {
    let time =
        |seconds| ASN1Time::from_timestamp(seconds).map(|time| time.to_datetime()).map_err(|_| rcgen::Error::Time);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = time((now - BACKDATED).as_second())?;
    params.not_after = time(now.as_second().saturating_add_unsigned(life.as_secs()))?;
    Ok(params)
}

/// Whether two thirds of its life are over.
fn is_late(facts: &Facts, now: Timestamp) -> bool {
    let made = (facts.not_before + BACKDATED).as_second();
    now.as_second() >= made + (facts.not_after.as_second() - made) / 3 * 2
}

/// Certificates of a bundle, each with its text.
fn trusted(bundle: &str) -> Option<Vec<Trusted>> {
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let blocks = bundle.split_inclusive(end).filter_map(|block| block.find(begin).and_then(|at| block.get(at..)));
    let read = |block: &str| {
        let der = certificates(block.as_bytes()).ok()?.into_iter().next()?;
        Some(Trusted { facts: Facts::of(&der).ok()?, der, pem: format!("{block}\n") })
    };
    blocks.take(MAX_AUTHORITIES).map(read).collect()
}

const LEAF: &str = "tls.crt";
const LEAF_KEY: &str = "tls.key";
const CA_CERTIFICATES: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const NEXT_CA_KEY: &str = "next-ca.key";

const DAY: Duration = Duration::from_secs(86_400);
/// In a bundle: two are there while one replaces the other.
const MAX_AUTHORITIES: usize = 16;
/// Clocks of nodes differ: a certificate is valid from a while before it was made.
const BACKDATED: Duration = Duration::from_secs(600);

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).expect("a time")
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn step(authority: &Authority, now: Timestamp) -> Step {
        authority.state(&names(&["a.svc"]), &Lifetimes::default(), now)
    }

    fn begin() -> Authority {
        Authority::begin(&names(&["a.svc"]), &Lifetimes::default(), at(0)).expect("issued")
    }

    fn after(authority: Authority, step: Step, now: Timestamp) -> Authority {
        authority.after(step, &names(&["a.svc"]), &Lifetimes::default(), now).expect("issued")
    }

    #[test]
    fn data_comes_back() {
        let authority = after(begin(), Step::AddAuthority, at(250));
        let read = Authority::read(&authority.data()).expect("read");
        assert_eq!((read.data(), read.bundle()), (authority.data(), authority.bundle()));
        assert_eq!(read.bundle().matches("BEGIN").count(), 2);
    }

    #[test]
    fn what_lacks_a_part_is_no_authority() {
        let data = begin().data();
        for key in ["ca.crt", "ca.key"] {
            let mut data = data.clone();
            data.remove(key);
            assert!(Authority::read(&data).is_none(), "{key}");
        }
        // What is left of it is trusted by the one that takes its place.
        let begun = begin().trusting(&data, at(1));
        assert_eq!(begun.bundle().matches("BEGIN").count(), 2);
        assert_eq!(begin().trusting(&data, at(366)).bundle().matches("BEGIN").count(), 1);
        for key in ["tls.crt", "tls.key"] {
            let mut data = data.clone();
            data.remove(key);
            assert_eq!(step(&Authority::read(&data).expect("read"), at(1)), Step::RenewLeaf, "{key}");
        }
        let mut mixed = data.clone();
        mixed.extend(begin().data().remove_entry("ca.key"));
        assert!(Authority::read(&mixed).is_none(), "the key of another");
    }

    #[test]
    fn a_leaf_is_renewed_at_two_thirds_of_its_life() {
        let authority = begin();
        assert_eq!((step(&authority, at(0)), step(&authority, at(59))), (Step::Keep, Step::Keep));
        assert_eq!(step(&authority, at(60)), Step::RenewLeaf);
        let renewed = after(authority.clone(), Step::RenewLeaf, at(60));
        assert_eq!((step(&renewed, at(60)), renewed.bundle() == authority.bundle()), (Step::Keep, true));
    }

    #[test]
    fn a_leaf_is_renewed_when_it_lacks_a_name_and_keeps_those_it_has() {
        let both = Lifetimes::default();
        let authority = begin();
        let wanted = names(&["b.svc"]);
        assert_eq!(authority.state(&wanted, &both, at(1)), Step::RenewLeaf);
        let renewed = authority.after(Step::RenewLeaf, &wanted, &both, at(1)).expect("issued");
        assert_eq!(renewed.leaf_facts().expect("a leaf").names, names(&["a.svc", "b.svc"]));
        assert_eq!((step(&renewed, at(1)), renewed.state(&wanted, &both, at(1))), (Step::Keep, Step::Keep));
        let later = renewed.after(Step::RenewLeaf, &wanted, &both, at(70)).expect("issued");
        assert_eq!(later.leaf_facts().expect("a leaf").names, wanted);
    }

    #[test]
    fn a_leaf_of_another_authority_or_without_its_key_is_renewed() {
        let (one, other) = (begin(), begin());
        for key in ["tls.crt", "tls.key"] {
            let mut data = one.data();
            data.insert(key.to_owned(), other.data()[key].clone());
            let mixed = Authority::read(&data).expect("read");
            assert_eq!(step(&mixed, at(1)), Step::RenewLeaf, "{key}");
            assert_eq!(step(&after(mixed, Step::RenewLeaf, at(1)), at(1)), Step::Keep);
        }
    }

    #[test]
    fn a_new_authority_spreads_before_it_issues_and_the_old_one_stays_until_it_expires() {
        let begun = begin();
        let first = begun.bundle();
        let renewed = after(begun, Step::RenewLeaf, at(240));
        assert_eq!(step(&renewed, at(244)), Step::AddAuthority);
        let added = after(renewed, Step::AddAuthority, at(244));
        assert!(added.bundle().starts_with(&first) && added.leaf_facts().is_some(), "the old one issues");
        assert_eq!(step(&added, at(244)), Step::Keep);

        let hour = at(244) + Duration::from_secs(3600);
        assert_eq!(step(&added, hour), Step::SwitchAuthority);
        let leaf = added.leaf().0.to_owned();
        let switched = after(added, Step::SwitchAuthority, hour);
        assert!(switched.bundle().contains(&first) && switched.leaf().0 != leaf);
        assert!(switched.not_after() > at(244 + 300));
        assert_eq!(step(&switched, hour), Step::Keep);

        let renewed = after(switched, Step::RenewLeaf, at(304));
        assert_eq!(step(&renewed, at(360)), Step::Keep, "what the old one issued may still be served");
        assert_eq!(step(&renewed, at(362)), Step::Keep);
        let renewed = after(renewed, Step::RenewLeaf, at(364));
        assert_eq!(step(&renewed, at(365)), Step::DropAuthority);
        let dropped = after(renewed, Step::DropAuthority, at(365));
        assert!(!dropped.bundle().contains(&first));
        assert_eq!(step(&dropped, at(365)), Step::Keep);
    }

    #[test]
    fn an_expired_authority_begins_anew() {
        let authority = begin();
        assert_eq!(step(&authority, at(365)), Step::Begin);
        let begun = after(authority.clone(), Step::Begin, at(365));
        assert_eq!((step(&begun, at(365)), begun.bundle().contains(&authority.bundle())), (Step::Keep, false));
    }

    #[test]
    fn in_three_years_of_days_every_leaf_is_of_a_trusted_authority() {
        let mut authority = begin();
        let mut trusted_yesterday = authority.bundle();
        for hour in 0..3 * 365 * 24 / 4 {
            let now = at(0) + Duration::from_secs(hour * 4 * 3600);
            // A replica that was down for a day still serves a leaf whose authority is in the bundle of the day before.
            let step = step(&authority, now);
            assert_ne!(step, Step::Begin, "hour {hour}");
            authority = after(authority, step, now);
            let issuer = &authority.issuer.certificate;
            assert!(trusted_yesterday.contains(&issuer.pem), "{step:?} at hour {hour}: its authority has not spread");
            assert!(
                authority
                    .leaf_facts()
                    .is_some_and(|leaf| now < leaf.not_after && leaf.not_after <= issuer.facts.not_after)
            );
            trusted_yesterday = authority.bundle();
        }
    }
}
