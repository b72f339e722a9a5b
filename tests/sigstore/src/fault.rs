//! What can be wrong with signed material. Each fault changes one thing; all else stays as an honest instance made it.

/// One thing that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The certificate ended an hour before it was used.
    CertificateExpired,
    /// The certificate begins an hour after it was used.
    CertificateNotYetValid,
    /// The certificate names another identity.
    WrongIdentity,
    /// The certificate names another issuer of the identity token.
    WrongIssuer,
    /// The certificate holds no promise of a transparency log.
    NoSct,
    /// That promise is signed by another key, in the trusted log's name.
    SctForeignKey,
    /// Authorities of the same names, but other keys, issued the certificate.
    CertificateForeignAuthority,
    /// The certificate is not for signing code.
    NoCodeSigning,

    /// A log of the same name, but another key and id, holds the entry.
    ForeignLog,
    /// The promise is signed by another key, in the trusted log's name.
    SetForeignKey,
    /// The promise is the honest one of another entry.
    SetOfOtherEntry,
    /// The whole entry is the honest one of someone else's signature over other bytes (CVE-2022-36056).
    EntryForeign,
    /// The log honestly promises an entry with this signature and key about other bytes (CVE-2026-22703).
    EntryOtherArtifact,
    /// The log honestly promises an entry with these bytes and key and another signature.
    EntryOtherSignature,
    /// The log honestly promises an entry with these bytes and signature and another key or certificate.
    EntryOtherKey,
    /// Only the body is that of another entry.
    EntryBodySwapped,
    /// The promise is missing.
    NoInclusionPromise,
    /// The proof is missing.
    NoInclusionProof,
    /// The path of the proof leads from another leaf of the same tree.
    ProofOfOtherLeaf,
    /// The checkpoint is signed by another key, in the trusted log's name.
    CheckpointForeignKey,
    /// The log signed the checkpoint of another tree of the same size.
    CheckpointOtherRoot,
    /// The log entered it an hour after the certificate ended.
    IntegratedTimeOutside,
    /// The bundle claims version 0.1, which asks for no proof, and the proof is gone.
    Downgrade,

    /// The timestamp is missing.
    NoTimestamp,
    /// The timestamp is an hour after the certificate ended.
    TimestampOutside,
    /// The timestamp is the honest one of another signature.
    TimestampOfOther,
    /// An authority of the same name, but other keys, gave the timestamp.
    TimestampForeignAuthority,

    /// A byte of the signature is another. Log and timestamp are about this signature.
    SignatureSpoiled,
    /// The payload, or the message's digest, was changed after signing.
    PayloadChanged,
    /// The envelope has a second signature, by a stranger's key.
    TwoSignatures,
    /// The payload is of another type: in an envelope its `payloadType`, in a legacy signature `critical.type`.
    WrongPayloadType,
    /// The statement has no subject.
    EmptySubject,
    /// The statement's subjects have a SHA-512 only.
    SubjectOnlySha512,
    /// The statement, or the legacy signature, is about another image.
    WrongSubject,
    /// The statement is of another predicate type.
    WrongPredicateType,
}

/// What signed material must have for a fault to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Certificate,
    Entry,
    Promise,
    Proof,
    Timestamp,
    /// An envelope with a statement.
    Envelope,
    /// A statement or the payload of a legacy signature: bytes whose form the instance knows.
    Form,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 35] = [
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::WrongIdentity,
        Self::WrongIssuer,
        Self::NoSct,
        Self::SctForeignKey,
        Self::CertificateForeignAuthority,
        Self::NoCodeSigning,
        Self::ForeignLog,
        Self::SetForeignKey,
        Self::SetOfOtherEntry,
        Self::EntryForeign,
        Self::EntryOtherArtifact,
        Self::EntryOtherSignature,
        Self::EntryOtherKey,
        Self::EntryBodySwapped,
        Self::NoInclusionPromise,
        Self::NoInclusionProof,
        Self::ProofOfOtherLeaf,
        Self::CheckpointForeignKey,
        Self::CheckpointOtherRoot,
        Self::IntegratedTimeOutside,
        Self::Downgrade,
        Self::NoTimestamp,
        Self::TimestampOutside,
        Self::TimestampOfOther,
        Self::TimestampForeignAuthority,
        Self::SignatureSpoiled,
        Self::PayloadChanged,
        Self::TwoSignatures,
        Self::WrongPayloadType,
        Self::EmptySubject,
        Self::SubjectOnlySha512,
        Self::WrongSubject,
        Self::WrongPredicateType,
    ];

    pub(crate) fn needs(self) -> &'static [Needs] {
        match self {
            Self::CertificateExpired
            | Self::CertificateNotYetValid
            | Self::WrongIdentity
            | Self::WrongIssuer
            | Self::NoSct
            | Self::SctForeignKey
            | Self::CertificateForeignAuthority
            | Self::NoCodeSigning => &[Needs::Certificate],
            Self::ForeignLog
            | Self::EntryForeign
            | Self::EntryOtherArtifact
            | Self::EntryOtherSignature
            | Self::EntryOtherKey
            | Self::EntryBodySwapped => &[Needs::Entry],
            Self::SetForeignKey | Self::SetOfOtherEntry | Self::NoInclusionPromise => &[Needs::Promise],
            Self::IntegratedTimeOutside => &[Needs::Promise, Needs::Certificate],
            Self::NoInclusionProof
            | Self::ProofOfOtherLeaf
            | Self::CheckpointForeignKey
            | Self::CheckpointOtherRoot => &[Needs::Proof],
            Self::Downgrade => &[Needs::Proof, Needs::Promise],
            Self::NoTimestamp | Self::TimestampOfOther | Self::TimestampForeignAuthority => &[Needs::Timestamp],
            Self::TimestampOutside => &[Needs::Timestamp, Needs::Certificate],
            Self::TwoSignatures | Self::EmptySubject | Self::SubjectOnlySha512 | Self::WrongPredicateType => {
                &[Needs::Envelope]
            }
            Self::WrongPayloadType | Self::WrongSubject => &[Needs::Form],
            Self::SignatureSpoiled | Self::PayloadChanged => &[],
        }
    }
}
