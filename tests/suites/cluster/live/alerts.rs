//! What the bridge's API says of that namespace, to an administrator of the cluster.

use serde_json::Value;
use tests::run;

use super::{API, servers::NAMESPACE};
use crate::world::World;

/// Its alerts, without what only each by itself shows.
pub(super) fn heads(world: &World) -> Vec<Value> {
    let (mut heads, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(world, &[&format!("alerts?namespace={NAMESPACE}&limit=500{cursor}")]).remove(0);
        heads.extend(page["alerts"].as_array().unwrap_or_else(|| panic!("no alerts: {page}")).iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return heads,
        }
    }
}

/// Its alerts, with their pods and users.
pub(super) fn all(world: &World) -> Vec<Value> {
    let heads = heads(world);
    let paths: Vec<String> =
        heads.iter().map(|head| format!("alerts/{}", head["id"].as_str().expect("an id"))).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    paths.chunks(50).flat_map(|paths| get(world, paths)).collect()
}

/// An alert in a few lines, with the first event and what went before it.
pub(super) fn told(alert: &Value) -> String {
    let act = |activity: &Value| format!("{} {} by {}", activity["at"], activity["act"], activity["process"]["argv"]);
    let sample = &alert["samples"][0];
    let before =
        sample["before"].as_array().into_iter().flatten().map(|activity| format!("\n    after {}", act(activity)));
    let head = format!(
        "{} {}, {} times: {} {}\n    {}",
        alert["class"],
        alert["subject"],
        alert["count"],
        alert["owner"],
        alert["message"],
        act(&sample["activity"])
    );
    head + &before.collect::<String>()
}

/// What paths of the API answer.
pub(super) fn get(world: &World, paths: &[&str]) -> Vec<Value> {
    let mut command = world.cluster.inside("curl");
    command.args(["-sS", "-m", "20", "-H", "Authorization: Bearer admin-token"]);
    command.args(paths.iter().map(|path| format!("http://{API}/api/v1/{path}")));
    let done = run(&mut command).ok();
    serde_json::Deserializer::from_slice(&done.stdout).into_iter().map(|value| value.expect("JSON")).collect()
}
