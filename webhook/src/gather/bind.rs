//! A DNA bound to a container, once for all pods that say the same.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use analyzer::ConfigMaps;
use dna::{Cause, ContainerSpec, Digest, DnaFact, Expectation, Fact, Limits, RuntimeFacts};

use super::{
    flight::{Answer, Flights},
    known::Known,
};

/// Expectations by DNA and by what the pod says.
#[derive(Debug)]
pub(super) struct Bindings {
    runtime: Arc<RuntimeFacts>,
    limits: Arc<Limits>,
    kept: Flights<(Digest, Digest), Expectation>,
}

impl Bindings {
    pub(super) fn new(runtime: RuntimeFacts, limits: Limits, bytes: u64) -> Self {
        Self { runtime: Arc::new(runtime), limits: Arc::new(limits), kept: Flights::packed("expectations", bytes) }
    }

    pub(super) async fn bind(
        &self,
        fact: &Fact<DnaFact>,
        known: &Known,
        spec: &ContainerSpec,
        maps: &ConfigMaps,
        deadline: Instant,
    ) -> Fact<Arc<Expectation>> {
        super::following(fact, |dna| self.of(dna, known, spec, maps, deadline)).await
    }

    async fn of(
        &self,
        dna: &DnaFact,
        known: &Known,
        spec: &ContainerSpec,
        maps: &ConfigMaps,
        deadline: Instant,
    ) -> Fact<Arc<Expectation>> {
        let key = (dna.digest.clone(), said(spec, maps));
        // Most are known already; the whole DNA is read for others only.
        if let Some(kept) = self.kept.peek(&key).await {
            return kept;
        }
        let digest = dna.digest.clone();
        let whole = match known.whole(&digest, deadline).await {
            Fact::Known(whole) => whole,
            Fact::Absent { tried } => {
                let why = format!("the DNA {digest} is no longer in {}", tried.join(", "));
                return Fact::unknown(Cause::Ledger, why);
            }
            other => return other.missing(),
        };
        let (runtime, limits, spec) = (Arc::clone(&self.runtime), Arc::clone(&self.limits), spec.clone());
        let maps: ConfigMaps =
            analyzer::config_maps(&spec).filter_map(|name| Some((name.to_owned(), maps.get(name)?.clone()))).collect();
        let make = move || async move {
            let bound =
                tokio::task::spawn_blocking(move || analyzer::bind(&whole, &digest, &spec, &maps, &runtime, &limits));
            match bound.await {
                Ok(expectation) => Answer::known(expectation, HOLDS),
                Err(error) => Answer::unknown(Cause::AnalysisFailed, format!("binding the DNA panicked: {error}")),
            }
        };
        self.kept.get(key, deadline, make).await
    }
}

/// Everything of the pod that the expectation depends on, but for the container's name.
fn said(spec: &ContainerSpec, maps: &ConfigMaps) -> Digest {
    let ContainerSpec {
        role,
        name: _,
        image: _,
        command,
        args,
        workdir,
        env,
        env_from,
        security,
        ports,
        mounts,
        probes,
        host,
    } = spec;
    let all = (role, command, args, workdir, env, env_from, security, ports, mounts, probes, host);
    let mut bytes = serde_json::to_vec(&all).unwrap_or_default();
    for name in analyzer::config_maps(spec) {
        for (key, value) in maps.get(name).into_iter().flatten() {
            let lengths = [name.len(), key.len(), value.len()].map(usize::to_le_bytes);
            bytes.extend(lengths.iter().flatten());
            bytes.extend([name.as_bytes(), key.as_bytes(), value.as_slice()].concat());
        }
    }
    Digest::sha256(&bytes)
}

const HOLDS: Duration = Duration::from_secs(24 * 3600);
