//! Each fault of each layout, and the reason for which it is refused.
//!
//! `ok` is what the check takes: a predicate type is the policy's matter, and where two things prove the time one may be
//! missing. `-` has nothing to go wrong.

use sigstore_instance::{Fault, Instance, Key, KeyType, Layout};
use trust::Reason;

use crate::made::{Added, alice, candidate, holder, judged, named, refusal, root, variant};

#[test]
fn keyless_faults_are_refused_with_their_reason() {
    check(true, Layout::Attestation, KEYLESS_BUNDLE);
    check(true, Layout::LegacySignature, KEYLESS_SIGNATURE);
    check(true, Layout::LegacyAttestation, KEYLESS_ATTESTATION);
}

#[test]
fn faults_by_keys_are_refused_with_their_reason() {
    check(false, Layout::Attestation, KEYED_BUNDLE);
    check(false, Layout::Attestation, KEYED_BUNDLE_V2);
    check(false, Layout::LegacySignature, KEYED_SIGNATURE);
    check(false, Layout::LegacyAttestation, KEYED_ATTESTATION);
}

#[test]
fn the_future_is_the_clock_s_matter() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let instance = Instance::at(i64::try_from(now).expect("in range") + 3600);
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    for layout in [Layout::Attestation, Layout::LegacySignature, Layout::LegacyAttestation] {
        for (signer, rule) in [
            (alice(&instance), named(Added::V1.evidence(), &roots)),
            (instance.keyed(&key), holder(&key, Added::V1.evidence(), &roots)),
        ] {
            let findings = judged(&candidate(&Added::V1.to(signer), layout), &rule);
            let found = refusal(&findings);
            assert!(matches!(found, Some(Reason::ClockBehind { .. })), "{layout:?}: {found:?}");
        }
    }
}

/// Makes every fault that changes something, and compares.
fn check(keyless: bool, layout: Layout, table: &str) {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    let mut rows = table.trim().lines().map(str::split_whitespace);
    let columns: Vec<Added> = rows.next().expect("a head").map(|name| name.parse().expect("a column")).collect();
    let rows: Vec<(&str, Vec<&str>)> = rows.map(|mut row| (row.next().expect("a name"), row.collect())).collect();
    for fault in std::iter::once(None).chain(Fault::ALL.map(Some)) {
        let name = fault.map_or("honest".to_owned(), |fault| format!("{fault:?}"));
        let cells = rows.iter().find(|(row, _)| *row == name).map(|(_, cells)| cells);
        for (at, added) in columns.iter().enumerate() {
            let mut signer = added.to(if keyless { alice(&instance) } else { instance.keyed(&key) });
            let expected = cells.map_or("-", |cells| cells.get(at).expect("a cell"));
            let applies = fault.is_none_or(|fault| signer.takes(fault, layout));
            assert_eq!(applies, expected != "-", "{layout:?}, {added:?}, {name}");
            if !applies {
                continue;
            }
            if let Some(fault) = fault {
                signer = signer.fault(fault);
            }
            let evidence = added.evidence();
            let rule = if keyless { named(evidence, &roots) } else { holder(&key, evidence, &roots) };
            let findings = judged(&candidate(&signer, layout), &rule);
            let found = refusal(&findings);
            let told = found.map_or("ok".to_owned(), variant);
            assert_eq!(told, expected, "keyless: {keyless}, {layout:?}, {added:?}, {name}: {found:?}");
        }
    }
    let names: Vec<String> = Fault::ALL.iter().map(|fault| format!("{fault:?}")).collect();
    assert!(rows.iter().all(|(name, _)| *name == "honest" || names.iter().any(|known| known == name)), "{layout:?}");
}

const KEYLESS_BUNDLE: &str = "
                             v1                 v1+time            v2+time            time
honest                       ok                 ok                 ok                 ok
CertificateExpired           badTime            badTime            badTime            badTime
CertificateNotYetValid       badTime            badTime            badTime            badTime
WrongIdentity                wrongIdentity      wrongIdentity      wrongIdentity      wrongIdentity
WrongIssuer                  wrongIdentity      wrongIdentity      wrongIdentity      wrongIdentity
NoSct                        badCertificate     badCertificate     badCertificate     badCertificate
SctForeignKey                badCertificate     badCertificate     badCertificate     badCertificate
CertificateForeignAuthority  badCertificate     badCertificate     badCertificate     badCertificate
NoCodeSigning                badCertificate     badCertificate     badCertificate     badCertificate
ForeignLog                   badProof           badProof           badProof           -
SetForeignKey                badProof           badProof           -                  -
SetOfOtherEntry              badProof           badProof           -                  -
EntryForeign                 badProof           badProof           badProof           -
EntryOtherArtifact           badProof           badProof           badProof           -
EntryOtherSignature          badProof           badProof           badProof           -
EntryOtherKey                badProof           badProof           badProof           -
EntryBodySwapped             badProof           badProof           badProof           -
NoInclusionPromise           badTime            ok                 -                  -
NoInclusionProof             badProof           badProof           badProof           -
ProofOfOtherLeaf             badProof           badProof           badProof           -
CheckpointForeignKey         badProof           badProof           badProof           -
CheckpointOtherRoot          badProof           badProof           badProof           -
IntegratedTimeOutside        badTime            badTime            -                  -
Downgrade                    formatNotAllowed   formatNotAllowed   -                  -
NoTimestamp                  -                  ok                 badTime            evidenceMissing
TimestampOutside             -                  badTime            badTime            badTime
TimestampOfOther             -                  badTime            badTime            badTime
TimestampForeignAuthority    -                  badTime            badTime            badTime
SignatureSpoiled             badSignature       badSignature       badSignature       badSignature
PayloadChanged               badSignature       badSignature       badSignature       badSignature
TwoSignatures                malformed          malformed          malformed          malformed
WrongPayloadType             formatNotSupported formatNotSupported formatNotSupported formatNotSupported
EmptySubject                 wrongSubject       wrongSubject       wrongSubject       wrongSubject
SubjectOnlySha512            wrongSubject       wrongSubject       wrongSubject       wrongSubject
WrongSubject                 wrongSubject       wrongSubject       wrongSubject       wrongSubject
WrongPredicateType           ok                 ok                 ok                 ok
";
const KEYLESS_SIGNATURE: &str = "
                             v1                 v1+time            time
honest                       ok                 ok                 ok
CertificateExpired           badTime            badTime            badTime
CertificateNotYetValid       badTime            badTime            badTime
WrongIdentity                wrongIdentity      wrongIdentity      wrongIdentity
WrongIssuer                  wrongIdentity      wrongIdentity      wrongIdentity
NoSct                        badCertificate     badCertificate     badCertificate
SctForeignKey                badCertificate     badCertificate     badCertificate
CertificateForeignAuthority  badCertificate     badCertificate     badCertificate
NoCodeSigning                badCertificate     badCertificate     badCertificate
ForeignLog                   badProof           badProof           -
SetForeignKey                badProof           badProof           -
SetOfOtherEntry              badProof           badProof           -
EntryForeign                 badProof           badProof           -
EntryOtherArtifact           badProof           badProof           -
EntryOtherSignature          badProof           badProof           -
EntryOtherKey                badProof           badProof           -
EntryBodySwapped             badProof           badProof           -
NoInclusionPromise           badProof           badProof           -
IntegratedTimeOutside        badTime            badTime            -
NoTimestamp                  -                  ok                 evidenceMissing
TimestampOutside             -                  badTime            badTime
TimestampOfOther             -                  badTime            badTime
TimestampForeignAuthority    -                  badTime            badTime
SignatureSpoiled             badSignature       badSignature       badSignature
PayloadChanged               badSignature       badSignature       badSignature
WrongPayloadType             wrongClaim         wrongClaim         wrongClaim
WrongSubject                 wrongSubject       wrongSubject       wrongSubject
";
const KEYLESS_ATTESTATION: &str = "
                             v1                 v1+time            time
honest                       ok                 ok                 formatNotSupported
CertificateExpired           badTime            badTime            formatNotSupported
CertificateNotYetValid       badTime            badTime            formatNotSupported
WrongIdentity                wrongIdentity      wrongIdentity      formatNotSupported
WrongIssuer                  wrongIdentity      wrongIdentity      formatNotSupported
NoSct                        badCertificate     badCertificate     formatNotSupported
SctForeignKey                badCertificate     badCertificate     formatNotSupported
CertificateForeignAuthority  badCertificate     badCertificate     formatNotSupported
NoCodeSigning                badCertificate     badCertificate     formatNotSupported
ForeignLog                   badProof           badProof           -
SetForeignKey                badProof           badProof           -
SetOfOtherEntry              badProof           badProof           -
EntryForeign                 badProof           badProof           -
EntryOtherArtifact           badProof           badProof           -
EntryOtherSignature          badProof           badProof           -
EntryOtherKey                badProof           badProof           -
EntryBodySwapped             badProof           badProof           -
NoInclusionPromise           badProof           badProof           -
IntegratedTimeOutside        badTime            badTime            -
NoTimestamp                  -                  ok                 evidenceMissing
TimestampOutside             -                  ok                 formatNotSupported
TimestampOfOther             -                  ok                 formatNotSupported
TimestampForeignAuthority    -                  ok                 formatNotSupported
SignatureSpoiled             badSignature       badSignature       formatNotSupported
PayloadChanged               badSignature       badSignature       formatNotSupported
TwoSignatures                malformed          malformed          malformed
WrongPayloadType             formatNotSupported formatNotSupported formatNotSupported
EmptySubject                 wrongSubject       wrongSubject       wrongSubject
SubjectOnlySha512            wrongSubject       wrongSubject       wrongSubject
WrongSubject                 wrongSubject       wrongSubject       wrongSubject
WrongPredicateType           ok                 ok                 formatNotSupported
";
const KEYED_BUNDLE: &str = "
                             nothing            time               v1                 v1+time
honest                       ok                 ok                 ok                 ok
ForeignLog                   -                  -                  badProof           badProof
SetForeignKey                -                  -                  badProof           badProof
SetOfOtherEntry              -                  -                  badProof           badProof
EntryForeign                 -                  -                  badProof           badProof
EntryOtherArtifact           -                  -                  badProof           badProof
EntryOtherSignature          -                  -                  badProof           badProof
EntryOtherKey                -                  -                  badProof           badProof
EntryBodySwapped             -                  -                  badProof           badProof
NoInclusionPromise           -                  -                  ok                 ok
NoInclusionProof             -                  -                  badProof           badProof
ProofOfOtherLeaf             -                  -                  badProof           badProof
CheckpointForeignKey         -                  -                  badProof           badProof
CheckpointOtherRoot          -                  -                  badProof           badProof
Downgrade                    -                  -                  formatNotAllowed   formatNotAllowed
NoTimestamp                  -                  evidenceMissing    -                  ok
TimestampOfOther             -                  badTime            -                  badTime
TimestampForeignAuthority    -                  badTime            -                  badTime
SignatureSpoiled             badSignature       badSignature       badSignature       badSignature
PayloadChanged               badSignature       badSignature       badSignature       badSignature
TwoSignatures                malformed          malformed          malformed          malformed
WrongPayloadType             formatNotSupported formatNotSupported formatNotSupported formatNotSupported
EmptySubject                 wrongSubject       wrongSubject       wrongSubject       wrongSubject
SubjectOnlySha512            wrongSubject       wrongSubject       wrongSubject       wrongSubject
WrongSubject                 wrongSubject       wrongSubject       wrongSubject       wrongSubject
WrongPredicateType           ok                 ok                 ok                 ok
";
const KEYED_BUNDLE_V2: &str = "
                             v2                 v2+time
honest                       ok                 ok
ForeignLog                   badProof           badProof
EntryForeign                 badProof           badProof
EntryOtherArtifact           badProof           badProof
EntryOtherSignature          badProof           badProof
EntryOtherKey                badProof           badProof
EntryBodySwapped             badProof           badProof
NoInclusionProof             badProof           badProof
ProofOfOtherLeaf             badProof           badProof
CheckpointForeignKey         badProof           badProof
CheckpointOtherRoot          badProof           badProof
NoTimestamp                  -                  ok
TimestampOfOther             -                  badTime
TimestampForeignAuthority    -                  badTime
SignatureSpoiled             badSignature       badSignature
PayloadChanged               badSignature       badSignature
TwoSignatures                malformed          malformed
WrongPayloadType             formatNotSupported formatNotSupported
EmptySubject                 wrongSubject       wrongSubject
SubjectOnlySha512            wrongSubject       wrongSubject
WrongSubject                 wrongSubject       wrongSubject
WrongPredicateType           ok                 ok
";
const KEYED_SIGNATURE: &str = "
                             nothing            time               v1                 v1+time
honest                       ok                 ok                 ok                 ok
ForeignLog                   -                  -                  badProof           badProof
SetForeignKey                -                  -                  badProof           badProof
SetOfOtherEntry              -                  -                  badProof           badProof
EntryForeign                 -                  -                  badProof           badProof
EntryOtherArtifact           -                  -                  badProof           badProof
EntryOtherSignature          -                  -                  badProof           badProof
EntryOtherKey                -                  -                  badProof           badProof
EntryBodySwapped             -                  -                  badProof           badProof
NoInclusionPromise           -                  -                  badProof           badProof
NoTimestamp                  -                  evidenceMissing    -                  ok
TimestampOfOther             -                  badTime            -                  badTime
TimestampForeignAuthority    -                  badTime            -                  badTime
SignatureSpoiled             unknownKey         unknownKey         unknownKey         unknownKey
PayloadChanged               unknownKey         unknownKey         unknownKey         unknownKey
WrongPayloadType             wrongClaim         wrongClaim         wrongClaim         wrongClaim
WrongSubject                 wrongSubject       wrongSubject       wrongSubject       wrongSubject
";
const KEYED_ATTESTATION: &str = "
                             nothing            time               v1                 v1+time
honest                       ok                 ok                 ok                 ok
ForeignLog                   -                  -                  badProof           badProof
SetForeignKey                -                  -                  badProof           badProof
SetOfOtherEntry              -                  -                  badProof           badProof
EntryForeign                 -                  -                  badProof           badProof
EntryOtherArtifact           -                  -                  badProof           badProof
EntryOtherSignature          -                  -                  badProof           badProof
EntryOtherKey                -                  -                  badProof           badProof
EntryBodySwapped             -                  -                  badProof           badProof
NoInclusionPromise           -                  -                  badProof           badProof
NoTimestamp                  -                  evidenceMissing    -                  ok
TimestampOfOther             -                  badTime            -                  ok
TimestampForeignAuthority    -                  badTime            -                  ok
SignatureSpoiled             unknownKey         unknownKey         unknownKey         unknownKey
PayloadChanged               unknownKey         unknownKey         unknownKey         unknownKey
TwoSignatures                malformed          malformed          malformed          malformed
WrongPayloadType             formatNotSupported formatNotSupported formatNotSupported formatNotSupported
EmptySubject                 wrongSubject       wrongSubject       wrongSubject       wrongSubject
SubjectOnlySha512            wrongSubject       wrongSubject       wrongSubject       wrongSubject
WrongSubject                 wrongSubject       wrongSubject       wrongSubject       wrongSubject
WrongPredicateType           ok                 ok                 ok                 ok
";
