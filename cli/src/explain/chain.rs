//! How a container comes to run a program: the DNA's graph in, the most believable chain from its start out.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Condition, Confidence, Dna, Evidence, ImagePath, Program, Run};
use serde::Serialize;

/// A step of a chain: a program, and why it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Link {
    pub(crate) program: ImagePath,
    pub(crate) reason: String,
    pub(crate) confidence: Confidence,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) when: Vec<Condition>,
    pub(crate) evidence: Vec<Evidence>,
}

/// The chains to every program that is reached.
pub(crate) struct Chains {
    links: BTreeMap<ImagePath, (u64, Option<ImagePath>, Link)>,
}

impl Chains {
    /// Works the chains out, from all that the runtime starts: the start command, a health check.
    pub(crate) fn new(dna: &Dna, executed: &[dna::Known<dna::Exec>]) -> Self {
        let programs: BTreeMap<&ImagePath, &Program> = dna.programs.iter().map(|one| (&one.path, one)).collect();
        let mut links = BTreeMap::new();
        let mut ahead = BTreeSet::new();
        for item in executed {
            let started = item.evidence.iter().find_map(|evidence| match evidence {
                Evidence::Config { key } => Some(key),
                _ => None,
            });
            let Some(key) = started else { continue };
            let link = Link {
                program: item.what.path.clone(),
                reason: key.clone(),
                confidence: item.confidence,
                when: item.when.clone(),
                evidence: item.evidence.iter().filter(|one| matches!(one, Evidence::Config { .. })).cloned().collect(),
            };
            let cost = cost(item.confidence);
            ahead.insert((cost, item.what.path.clone()));
            links.insert(item.what.path.clone(), (cost, None, link));
        }
        // Dijkstra: what is surer is nearer.
        while let Some((cost, path)) = ahead.pop_first() {
            for run in programs.get(&path).map(|program| program.runs.as_slice()).unwrap_or_default() {
                let next = cost.saturating_add(self::cost(run.confidence));
                if links.get(&run.program).is_none_or(|(known, ..)| next < *known) {
                    ahead.insert((next, run.program.clone()));
                    links.insert(run.program.clone(), (next, Some(path.clone()), link(run)));
                }
            }
        }
        Self { links }
    }

    /// The chain to a program, the start first; empty where none is known.
    pub(crate) fn to(&self, program: &ImagePath) -> Vec<Link> {
        let mut chain = Vec::new();
        let mut at = Some(program);
        while let Some((_, from, link)) = at.and_then(|path| self.links.get(path)) {
            chain.push(link.clone());
            at = from.as_ref();
            // Costs fall on the way back, so it ends; this only bounds it.
            if chain.len() > self.links.len() {
                break;
            }
        }
        chain.reverse();
        chain
    }

    /// How unlikely the chain to a program is.
    pub(crate) fn cost(&self, program: &ImagePath) -> u64 {
        self.links.get(program).map_or(u64::MAX, |(cost, ..)| *cost)
    }
}

fn link(run: &Run) -> Link {
    Link {
        program: run.program.clone(),
        reason: run.reason.clone(),
        confidence: run.confidence,
        when: run.when.clone(),
        evidence: run.evidence.clone(),
    }
}

/// A doubtful step costs more than many sure ones.
fn cost(confidence: Confidence) -> u64 {
    match confidence {
        Confidence::Certain => 1,
        Confidence::Likely => 100,
        Confidence::Possible => 10_000,
    }
}
