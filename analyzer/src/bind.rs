//! A DNA laid under a pod: the pod's command, variables and ConfigMaps are read as the image's own are, then `dna::expect`
//! holds the result against the rest of the pod.

use std::collections::BTreeMap;

use dna::{
    Action, Beside, ConfigMapFiles, ContainerSpec, Digest, Dna, EnvVar, Expectation, ImagePath, Limits, Mount,
    RuntimeFacts, Setting, Volume,
};

use crate::{
    Answer,
    refine::{Laid, Mounted, answer, find},
};

/// What ConfigMaps hold, by name and key. One that is not here was not read: its files and variables are unknown.
pub type ConfigMaps = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// What a container of a pod is expected to do, from its image's DNA alone. `name` is that DNA's digest.
#[must_use]
pub fn bind(
    dna: &Dna,
    name: &Digest,
    spec: &ContainerSpec,
    maps: &ConfigMaps,
    runtime: &RuntimeFacts,
    limits: &Limits,
) -> Expectation {
    let mounted = mounted(spec, maps);
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.extend(dna.start.env.iter().filter_map(|known| Some((known.name.clone(), known.value.clone()?))));
    env.retain(|name, _| !mounted.hidden.contains(name));
    env.extend(mounted.env.clone());
    let argv = spec.argv(&dna.start, &env);
    let mut placed = dna.clone();
    placed.start.uid = spec.security.user.or(dna.start.uid);
    placed.start.workdir = spec.workdir.clone().or_else(|| dna.start.workdir.clone());
    let is_own = argv == dna.start.argv && mounted.is_empty() && placed.start == dna.start;
    let Answer { behavior, unknowns } = match is_own {
        true => Answer { behavior: dna.behavior.clone(), unknowns: dna.unknowns.clone() },
        false => answer(&placed, &argv, &mounted, limits),
    };
    let beside = beside(&placed, spec, &mounted, limits);
    if !is_own {
        let path = env.get("PATH").map(String::as_str);
        placed.start.program = argv.first().and_then(|name| find(&placed, name, path, &mounted, limits));
    }
    placed.start.uid = dna.start.uid;
    placed.start.argv = dna::redact_argv(&argv);
    let is_replaced = |name: &String| mounted.env.contains_key(name) || mounted.hidden.contains(name);
    placed.start.env.retain(|known| !is_replaced(&known.name));
    let set = env.get("PATH").filter(|_| mounted.env.contains_key("PATH"));
    placed.start.env.extend(set.map(|path| EnvVar { name: "PATH".to_owned(), value: Some(path.clone()) }));
    (placed.behavior, placed.unknowns) = (behavior, unknowns);
    dna::expect(name, &placed, beside, spec, runtime)
}

/// The names of the ConfigMaps that bear on a container.
pub fn config_maps(spec: &ContainerSpec) -> impl Iterator<Item = &str> {
    let mounts = spec.mounts.iter().flat_map(|mount| match &mount.volume {
        Volume::ConfigMaps(maps) => maps.as_slice(),
        _ => &[],
    });
    let env = spec.env.iter().filter_map(|(_, setting)| match setting {
        Setting::ConfigMap { name, .. } => Some(name.as_str()),
        _ => None,
    });
    let from = spec.env_from.iter().filter_map(|from| from.config_map.as_deref());
    mounts.map(|map| map.name.as_str()).chain(env).chain(from)
}

/// What the pod lays over its image.
fn mounted(spec: &ContainerSpec, maps: &ConfigMaps) -> Mounted {
    let mut mounted = Mounted::default();
    for from in &spec.env_from {
        let map = from.config_map.as_ref().and_then(|name| maps.get(name));
        for (key, value) in map.into_iter().flatten() {
            set(&mut mounted, &format!("{}{key}", from.prefix), std::str::from_utf8(value).ok());
        }
    }
    for (name, setting) in &spec.env {
        let value = match setting {
            Setting::Value(value) => Some(value.as_str()),
            Setting::ConfigMap { name, key } => {
                maps.get(name).and_then(|map| map.get(key)).and_then(|value| std::str::from_utf8(value).ok())
            }
            Setting::Secret | Setting::Field => None,
        };
        set(&mut mounted, name, value);
    }
    for mount in &spec.mounts {
        match &mount.volume {
            Volume::ConfigMaps(files) => {
                let read: Option<Vec<_>> = files.iter().map(|files| contents(files, maps)).collect();
                match read {
                    Some(read) => lay(&mut mounted, mount, read.into_iter().flatten()),
                    None => {
                        mounted.files.insert(mount.path.clone(), Laid::Unreadable);
                    }
                }
            }
            // Another container of the pod may fill it.
            Volume::EmptyDir => {
                mounted.files.insert(mount.path.clone(), Laid::Empty);
            }
            // The service account's token hides nothing that a server is configured by.
            Volume::Secret if mount.path.to_string().starts_with(SERVICE_ACCOUNT) => {}
            Volume::Secret | Volume::HostPath(_) | Volume::Image(_) | Volume::Other => {
                mounted.files.insert(mount.path.clone(), Laid::Unreadable);
            }
        }
    }
    mounted
}

fn set(mounted: &mut Mounted, name: &str, value: Option<&str>) {
    mounted.env.remove(name);
    mounted.hidden.remove(name);
    match value {
        Some(value) => {
            // Variables that stand before it are filled in.
            let value = dna::expand(value, &mounted.env);
            mounted.env.insert(name.to_owned(), value);
        }
        None => {
            mounted.hidden.insert(name.to_owned());
        }
    }
}

/// Relative paths and bodies of the files that a ConfigMap gives; none where it was not read.
fn contents<'a>(files: &'a ConfigMapFiles, maps: &'a ConfigMaps) -> Option<Vec<(&'a str, &'a Vec<u8>)>> {
    let map = maps.get(&files.name)?;
    Some(match &files.items {
        None => map.iter().map(|(key, body)| (key.as_str(), body)).collect(),
        Some(items) => items.iter().filter_map(|(key, path)| Some((path.as_str(), map.get(key)?))).collect(),
    })
}

fn lay<'a>(mounted: &mut Mounted, mount: &Mount, files: impl Iterator<Item = (&'a str, &'a Vec<u8>)>) {
    if mount.sub_path.is_empty() {
        mounted.files.insert(mount.path.clone(), Laid::Empty);
    }
    for (path, body) in files {
        let place = match mount.sub_path.as_str() {
            "" => mount.path.join(path.as_bytes()).ok(),
            part if part == path => Some(mount.path.clone()),
            part => path
                .strip_prefix(part)
                .and_then(|rest| rest.strip_prefix('/'))
                .and_then(|rest| below(&mount.path, rest)),
        };
        if let Some(place) = place {
            mounted.files.insert(place, Laid::File(body.clone()));
        }
    }
}

fn below(folder: &ImagePath, path: &str) -> Option<ImagePath> {
    folder.join(path.as_bytes()).ok()
}

/// What probes and hooks run.
fn beside(dna: &Dna, spec: &ContainerSpec, mounted: &Mounted, limits: &Limits) -> Vec<Beside> {
    let commands = spec.probes.iter().filter_map(|probe| match &probe.action {
        Action::Exec(command) if !command.is_empty() => Some((probe, command)),
        _ => None,
    });
    commands
        .map(|(probe, command)| Beside {
            field: probe.name.clone(),
            argv: dna::redact_argv(command),
            exec: answer(dna, command, mounted, limits).behavior.exec,
        })
        .collect()
}

/// Where the kubelet mounts the service account's token.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/";
