//! What a rule asks of every image, in the order in which it is told.

use dna::{Fact, Role, SubjectFacts};

use super::{Complaint, Judge};
use crate::{
    documents::Documents,
    kinds::{Scope, Tags},
    matching::is_of_image,
};

impl<'a> Judge<'a> {
    pub(super) fn of_image<'f>(&mut self, facts: &'f SubjectFacts, documents: &Documents<'_>)
    where
        'a: 'f,
    {
        if self.rule.spec.tags == Tags::RequireDigest && facts.image.digest.is_none() {
            let found =
                facts.image.tag.as_ref().map_or_else(|| "no digest".to_owned(), |tag| format!("the tag `{tag}`"));
            self.complain(Complaint {
                code: "TAG_NOT_DIGEST".into(),
                facts: Some(facts),
                expected: "a digest".to_owned(),
                found,
                remedy: match facts.resolved.known() {
                    Some(resolved) => format!("name it by what the tag leads to now: @{}", resolved.digest).into(),
                    None => "name the image by digest: NAME@sha256:…".into(),
                },
                ..Complaint::default()
            });
        }
        // What cannot be found is told once.
        if self.resolved(facts) {
            self.signatures(facts);
            self.attestations(facts);
            // Nothing of an image volume is started.
            if facts.image.used.role != Role::Volume {
                self.dna(facts);
            }
        }
        if self.rule.checks.iter().any(|check| is_of_image(check.validation.scope)) {
            self.expressions(Some(facts), documents, Scope::Image);
        }
    }

    /// What a tag leads to must be known: it is what the pod is bound to, and what everything else is about. Whether there is more
    /// to ask.
    fn resolved(&mut self, facts: &SubjectFacts) -> bool {
        match &facts.resolved {
            Fact::Known(_) => return true,
            // Where only the name is asked for, the digest is no matter.
            _ if facts.image.digest.is_some() && !self.asks_more() => return true,
            Fact::Absent { tried } => self.complain(Complaint {
                code: "IMG_NOT_FOUND".into(),
                facts: Some(facts),
                found: "there is no such image".to_owned(),
                tried: tried.clone(),
                remedy: "check the name, the tag and the platform".into(),
                ..Complaint::default()
            }),
            Fact::Unknown { cause, detail, .. } => {
                let complaint = Complaint { facts: Some(facts), ..Complaint::default() };
                self.unknown("the image's digest", &[(*cause, detail)], complaint);
            }
        }
        false
    }

    /// Whether more is asked of images than how they are named.
    fn asks_more(&self) -> bool {
        let require = &self.rule.spec.require;
        require.signatures.is_some()
            || !require.attestations.is_empty()
            || require.dna.is_some()
            || crate::cel::needs_resolved(&self.rule.reads)
            || self.rule.reads_any(&["signatures", "attestations", "dna", "kinship", "expectation", "findings"])
    }
}
