//! What a signing certificate says, under the names of Fulcio's documentation (`docs/oid-info.md`).

use sigstore_crypto::{CertificateInfo, FulcioCiClaims};

use crate::identity::Certificate;

/// The names of the claims that a certificate may have.
pub fn claim_names() -> impl Iterator<Item = &'static str> {
    CLAIMS.iter().map(|(name, _)| *name)
}

/// What the certificate says; that it is to be believed is for its verification to say.
pub(super) fn read(info: &CertificateInfo) -> Certificate {
    let claims = CLAIMS.iter().filter_map(|(name, claim)| Some((*name, claim(&info.ci_claims).clone()?)));
    Certificate {
        subject: info.identity.as_ref().map(|name| name.as_str().to_owned()),
        issuer: info.issuer.clone(),
        claims: claims.collect(),
    }
}

type Claim = fn(&FulcioCiClaims) -> &Option<String>;

const CLAIMS: [(&str, Claim); 21] = [
    ("buildSignerUri", |claims| &claims.build_signer_uri),
    ("buildSignerDigest", |claims| &claims.build_signer_digest),
    ("runnerEnvironment", |claims| &claims.runner_environment),
    ("sourceRepositoryUri", |claims| &claims.source_repository_uri),
    ("sourceRepositoryDigest", |claims| &claims.source_repository_digest),
    ("sourceRepositoryRef", |claims| &claims.source_repository_ref),
    ("sourceRepositoryIdentifier", |claims| &claims.source_repository_identifier),
    ("sourceRepositoryOwnerUri", |claims| &claims.source_repository_owner_uri),
    ("sourceRepositoryOwnerIdentifier", |claims| &claims.source_repository_owner_identifier),
    ("buildConfigUri", |claims| &claims.build_config_uri),
    ("buildConfigDigest", |claims| &claims.build_config_digest),
    ("buildTrigger", |claims| &claims.build_trigger),
    ("runInvocationUri", |claims| &claims.run_invocation_uri),
    ("sourceRepositoryVisibilityAtSigning", |claims| &claims.source_repository_visibility_at_signing),
    ("deploymentEnvironment", |claims| &claims.deployment_environment),
    ("tokenSubject", |claims| &claims.token_subject),
    ("githubWorkflowTrigger", |claims| &claims.deprecated_github.workflow_trigger),
    ("githubWorkflowSha", |claims| &claims.deprecated_github.workflow_sha),
    ("githubWorkflowName", |claims| &claims.deprecated_github.workflow_name),
    ("githubWorkflowRepository", |claims| &claims.deprecated_github.workflow_repository),
    ("githubWorkflowRef", |claims| &claims.deprecated_github.workflow_ref),
];
