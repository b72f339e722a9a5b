//! Which partition an event belongs to: all that is told of one container goes to one, so that one loop sees it in order.
//!
//! Sensors of the kernel all know the container's id, whatever else they know; its first digits choose. Where there is none, the pod
//! does. What is of no container goes anywhere, but always to the same place, so that it is known when it comes again. Who asked the API
//! server for a command (`kubectl exec`) is told in terms of pods, and the container's partition is not known then: it goes to all.

use crate::sensor::{self, Dialect, Told};

/// Where an item goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// To this partition.
    One(u16),
    /// To each.
    All,
}

/// The place of an item that has this key.
pub(super) fn place(dialect: Dialect, item: &[u8], key: &str, partitions: u16) -> Place {
    let name = match sensor::decode(dialect, item) {
        Ok(Told::Call(_)) => return Place::All,
        Ok(Told::Activity(activity)) => {
            let seen = &activity.container;
            match (&seen.id, &seen.pod_uid, &seen.namespace, &seen.pod) {
                (Some(id), ..) => id.get(..DIGITS).unwrap_or(id).to_owned(),
                (None, _, Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
                (None, Some(uid), ..) => uid.clone(),
                _ => key.to_owned(),
            }
        }
        Ok(_) | Err(_) => key.to_owned(),
    };
    Place::One(hash(&name, partitions))
}

/// A number below `partitions`. It must not change: bridges of two versions share a stream.
fn hash(name: &str, partitions: u16) -> u16 {
    let sum = crc32fast::hash(name.as_bytes());
    u16::try_from(sum % u32::from(partitions.max(1))).unwrap_or(0)
}

/// The digits of an id that every sensor has.
const DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(item: &serde_json::Value) -> Place {
        place(Dialect::Mayfly, item.to_string().as_bytes(), "key", 16)
    }

    fn exec(container: &serde_json::Value) -> serde_json::Value {
        json!({"at": "2026-01-02T03:04:05Z", "sensor": "s", "container": container, "process": {}, "act": {"kind": "exec"}})
    }

    #[test]
    fn one_container_has_one_partition_whatever_is_known_beside_its_id() {
        let short = of(&exec(&json!({"id": "0123456789ab"})));
        let long = of(&exec(&json!({"id": "0123456789abcdef", "pod": "web-1", "namespace": "shop"})));
        assert_eq!(short, long);
        let places: std::collections::BTreeSet<String> =
            (0..200).map(|n| format!("{:?}", of(&exec(&json!({"id": format!("{n:012x}")}))))).collect();
        assert_eq!(places.len(), 16, "all partitions are used");
    }

    #[test]
    fn a_pod_chooses_where_there_is_no_id_and_the_key_where_there_is_nothing() {
        let pod = of(&exec(&json!({"pod": "web-1", "namespace": "shop"})));
        assert_eq!(pod, Place::One(hash("shop/web-1", 16)));
        assert_eq!(of(&json!({"no": "event"})), Place::One(hash("key", 16)));
    }

    #[test]
    fn numbers_stay_as_they_are() {
        assert_eq!([hash("0123456789ab", 16), hash("shop/web-1", 16), hash("", 16)], [2, 11, 0]);
        assert_eq!(hash("anything", 1), 0);
    }

    #[test]
    fn who_ran_a_command_is_told_to_all() {
        let call = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "a", "stage": "ResponseStarted",
            "requestURI": "/api/v1/namespaces/shop/pods/web-1/exec?command=sh", "verb": "create", "user": {"username": "jane"},
            "objectRef": {"resource": "pods", "namespace": "shop", "name": "web-1", "apiVersion": "v1", "subresource": "exec"},
            "requestReceivedTimestamp": "2026-01-02T03:04:05.000000Z", "stageTimestamp": "2026-01-02T03:04:05.000000Z"});
        assert_eq!(place(Dialect::KubernetesAudit, call.to_string().as_bytes(), "key", 16), Place::All);
    }
}
