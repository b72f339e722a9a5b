//! `mayfly response`: what rules had done about alerts, from a bridge's API, and taking it back.

use runtime_bridge::response::view::{ResponseList as List, ResponseView};

use crate::{
    api::Api,
    args::api::{Response as Command, ResponseList, ResponseUndo},
    output, remote,
    text::clean,
};

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(args),
        Command::Undo(args) => undo(args),
    }
}

fn list(args: &ResponseList) -> anyhow::Result<()> {
    let api = Api::new(&args.api)?;
    let mut query = Vec::new();
    query.extend(args.state.as_deref().map(|state| ("state", state)));
    query.extend(args.namespace.as_deref().map(|name| ("namespace", name)));
    let list: List = remote::block_on(api.json(&["responses"], &query))?;
    output::show(args.format, &list.responses, |all| match all.is_empty() {
        true => "no responses\n".to_owned(),
        false => all.iter().map(line).collect(),
    })
}

fn undo(args: &ResponseUndo) -> anyhow::Result<()> {
    let api = Api::new(&args.api)?;
    let body = serde_json::json!({"reason": args.reason});
    let done: ResponseView = remote::block_on(api.post(&["responses", &args.response, "undo"], &body))?;
    output::say(line(&done).trim_end());
    Ok(())
}

fn line(one: &ResponseView) -> String {
    let more = match (one.note.is_empty(), one.actor.is_empty()) {
        (_, false) => format!(", taken back by {}: {}", one.actor, one.reason),
        (false, true) => format!(": {}", one.note),
        (true, true) => String::new(),
    };
    let text = format!(
        "{} {} {} {} in {} {}, by {} for alert {}{more}",
        one.changed_at,
        one.id,
        one.state.as_str(),
        format_args!("{} {}", one.action, one.target),
        one.cluster,
        one.namespace,
        one.rules.join(", "),
        one.alert
    );
    clean(&text).into_owned() + "\n"
}
