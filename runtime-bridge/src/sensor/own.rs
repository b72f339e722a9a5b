//! Mayfly's own format, for sensors that have no adapter: an [`Activity`] as JSON (`docs/sensors.md`).
//!
//! Here a wrong type is an error and not an absence: whoever writes for Mayfly wants to hear of it. The text is outside's all the same, so
//! credentials are taken out again and identities are checked.

use std::sync::Arc;

use dna::{Act, Activity, Process};
use schemars::Schema;

use super::{Malformed, OF_THE_HOST, Told, container_id, image_digest, image_name, kernel};

/// The JSON Schema of the format.
#[must_use]
pub fn schema() -> Schema {
    let mut schema = schemars::schema_for!(Activity);
    schema.insert("$id".to_owned(), "https://mayfly.dev/activity/v1".into());
    schema
}

/// Reads one activity.
///
/// # Errors
/// [`Malformed`] where it is not the JSON of one, or names a container by what is no id or digest.
pub(crate) fn decode(item: &[u8]) -> Result<Told, Malformed> {
    let mut activity: Activity = serde_json::from_slice(item)
        .map_err(|error| Malformed::new(format!("not an activity of docs/sensors.md: {error}")))?;
    let name = &activity.sensor;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(is_plain) {
        return Err(Malformed::new("`sensor` is no name of 1 to 63 lower-case letters, digits and dashes"));
    }
    let container = &mut activity.container;
    if let Some(id) = container.id.take() {
        let Some(known) = container_id(&id) else {
            return Err(Malformed::new("`container.id` is not 12 to 64 hexadecimal digits"));
        };
        container.id = Some(known);
    }
    if let Some(digest) = container.digest.take() {
        let Some(known) = image_digest(&digest) else {
            return Err(Malformed::new("`container.digest` is not `sha256:` and 64 hexadecimal digits"));
        };
        container.digest = Some(known);
    }
    container.image = container.image.take().and_then(|image| image_name(&image));
    if container.id.is_none() && container.pod.is_none() && container.pod_uid.is_none() {
        return Ok(Told::Nothing(OF_THE_HOST));
    }
    if let Act::Capability { name } = &mut activity.act {
        let Some(known) = kernel::capability(name) else {
            return Err(Malformed::new("`act.name` is no capability of capabilities(7), as `CAP_NET_RAW`"));
        };
        *name = known;
    }
    redact(&mut activity.process);
    activity.ancestors.iter_mut().for_each(redact);
    Ok(Told::Activity(Arc::new(activity)))
}

fn redact(process: &mut Process) {
    process.argv = dna::redact_argv(&process.argv);
}
