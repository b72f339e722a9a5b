//! The API's own description, OpenAPI 3.1, made of the types that are sent and read.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    alerts::{AlertPage, AlertView, AlertWhole, AlertsAsked, Why},
    blind::{BlindAsked, BlindPage, SensorList},
    drafts::{DraftSent, ReplaySent},
    events::FollowAsked,
    images::ImageView,
    incidents::{ActedOn, IncidentPage, IncidentView, IncidentWhole, IncidentsAsked},
    overlays::{AcceptSent, OverlayList, OverlayView, Proposal, RevokeAsked},
    problem::Problem,
    responses::ResponsesAsked,
    suppressions::{LiftAsked, SuppressionList, SuppressionSent, SuppressionView},
    workloads::{WorkloadList, WorkloadsAsked},
};
use crate::{
    draft::Drafted,
    replay::stored::Replayed,
    response::view::{ResponseList, ResponseView},
    snapshot::Snapshot,
};

/// The document.
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let it = &mut schemas;

    let mut paths = Map::new();
    let mut put = |path: &str, method: &str, operation: Value| {
        let methods = paths.entry(format!("/api/v1{path}")).or_insert_with(|| json!({}));
        if let Value::Object(methods) = methods {
            methods.insert(method.to_owned(), operation);
        }
    };
    put("/alerts", "get", read::<AlertPage>(it, "Lists alerts.", query::<AlertsAsked>()));
    put("/alerts/{id}", "get", read::<AlertWhole>(it, "Reads an alert with its audit trail.", path("id")));
    for (act, summary) in [
        ("acknowledge", "Says that somebody looks after an alert; of an open one."),
        ("resolve", "Says that an alert is done with; another deviation opens it again."),
        ("reopen", "Takes an acknowledgement or resolution back."),
        ("annotate", "Says something about an alert."),
    ] {
        put(&format!("/alerts/{{id}}/{act}"), "post", sent::<Why, AlertView>(it, summary, "200"));
    }
    let summary = "Suppresses an alert, and others of a scope, until a time.";
    put("/alerts/{id}/suppress", "post", sent::<SuppressionSent, SuppressionView>(it, summary, "201"));
    let summary = "Proposes that what an alert tells of is expected from now on; it counts once it is signed.";
    put("/alerts/{id}/accept", "post", sent::<AcceptSent, Proposal>(it, summary, "200"));
    put(
        "/incidents",
        "get",
        read::<IncidentPage>(it, "Lists incidents, the likeliest first.", query::<IncidentsAsked>()),
    );
    let summary =
        "Reads an incident with its alerts in order and the processes of its containers; any of its alerts names it.";
    put("/incidents/{id}", "get", read::<IncidentWhole>(it, summary, path("id")));
    let file = json!({
        "200": { "description": "A tar archive, by gzip. `Repr-Digest` is its SHA-256.", "content": { "application/gzip": {} } }
    });
    let summary = "Gives all that is known of an incident as one file, with hashes.";
    put("/incidents/{id}/evidence", "get", operation(it, summary, path("id"), file));
    for (act, summary) in [
        ("acknowledge", "Says that somebody looks after an incident: acknowledges its alerts."),
        ("resolve", "Says that an incident is done with: resolves its alerts."),
        ("reopen", "Takes that back of all its alerts."),
    ] {
        put(&format!("/incidents/{{id}}/{act}"), "post", sent::<Why, ActedOn>(it, summary, "200"));
    }
    let summary = "Lists what rules had done about alerts, the latest first.";
    put("/responses", "get", read::<ResponseList>(it, summary, query::<ResponsesAsked>()));
    put("/responses/{id}/undo", "post", sent::<Why, ResponseView>(it, "Takes a response back.", "200"));
    let summary = "Lists workloads that were seen, the latest first.";
    put("/workloads", "get", read::<WorkloadList>(it, summary, query::<WorkloadsAsked>()));
    let summary = "Holds what a workload did against what was predicted, dimension by dimension.";
    put("/workloads/{id}", "get", read::<Snapshot>(it, summary, path("id")));
    let summary = "Drafts a rule or overlays of a workload's alerts, and says what they would make of the alerts that are stored.";
    put("/workloads/{id}/draft", "post", sent::<DraftSent, Drafted>(it, summary, "200"));
    let summary = "Says what rules and overlays that nobody saved would make of the alerts that are stored.";
    put("/replay", "post", posted::<ReplaySent, Replayed>(it, summary, Vec::new(), "200"));
    put("/overlays", "get", read::<OverlayList>(it, "Lists overlays: acts that are accepted as expected.", Vec::new()));
    put("/overlays", "post", bundle(it));
    put("/overlays/{id}", "get", read::<OverlayView>(it, "Reads an overlay.", path("id")));
    let description = "The Sigstore bundle as it was given.";
    let file = json!({ "200": { "description": description, "content": { "application/json": { "schema": { "type": "object" } } } } });
    let summary = "Gives out an overlay as it is signed: to be attached to its image, or given to another bridge.";
    put("/overlays/{id}/bundle", "get", operation(it, summary, path("id"), file));
    let parameters = [path("id"), query::<RevokeAsked>()].concat();
    let done = json!({ "204": { "description": "Done." } });
    put("/overlays/{id}", "delete", operation(it, "Revokes an overlay before its time.", parameters, done));
    put("/suppressions", "get", read::<SuppressionList>(it, "Lists the suppressions that hold.", Vec::new()));
    let parameters = [path("id"), query::<LiftAsked>()].concat();
    let done = json!({ "204": { "description": "Done." } });
    put("/suppressions/{id}", "delete", operation(it, "Ends a suppression before its time.", parameters, done));
    let summary = "Reads what is known of an image digest: DNA, decisions, bindings, alerts.";
    put("/images/{digest}", "get", read::<ImageView>(it, summary, path("digest")));
    put("/sensors", "get", read::<SensorList>(it, "Tells how the sensors do.", Vec::new()));
    put("/blind", "get", read::<BlindPage>(it, "Lists when sensors could not see.", query::<BlindAsked>()));
    put("/events", "get", follow(it));
    let document = json!({ "200": { "description": "Done.", "content": { "application/json": {} } } });
    let mut own = operation(it, "Gives this document.", Vec::new(), document);
    if let Value::Object(own) = &mut own {
        // Whoever reads this page may know it.
        own.insert("security".to_owned(), json!([]));
    }
    put("/openapi.json", "get", own);

    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mayfly's runtime bridge",
            "version": "v1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "token": [] }, { "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
        },
    })
}

fn operation(schemas: &mut SchemaGenerator, summary: &str, parameters: Vec<Value>, mut answers: Value) -> Value {
    let problem = json!({ "application/problem+json": { "schema": schemas.subschema_for::<Problem>() } });
    if let Value::Object(answers) = &mut answers {
        answers.insert(
            "default".to_owned(),
            json!({ "description": "What is wrong, and what to do.", "content": problem }),
        );
    }
    let mut operation = json!({ "summary": summary, "responses": answers });
    if let (Value::Object(operation), false) = (&mut operation, parameters.is_empty()) {
        operation.insert("parameters".to_owned(), Value::Array(parameters));
    }
    operation
}

fn read<T: JsonSchema>(schemas: &mut SchemaGenerator, summary: &str, parameters: Vec<Value>) -> Value {
    let answer = json!({ "application/json": { "schema": schemas.subschema_for::<T>() } });
    operation(schemas, summary, parameters, json!({ "200": { "description": "Done.", "content": answer } }))
}

fn sent<B: JsonSchema, T: JsonSchema>(schemas: &mut SchemaGenerator, summary: &str, status: &str) -> Value {
    posted::<B, T>(schemas, summary, path("id"), status)
}

fn posted<B: JsonSchema, T: JsonSchema>(
    schemas: &mut SchemaGenerator,
    summary: &str,
    parameters: Vec<Value>,
    status: &str,
) -> Value {
    let answer = json!({ "application/json": { "schema": schemas.subschema_for::<T>() } });
    let body = json!({ "application/json": { "schema": schemas.subschema_for::<B>() } });
    let answers = json!({ status: { "description": "Done.", "content": answer } });
    let mut operation = operation(schemas, summary, parameters, answers);
    if let Value::Object(operation) = &mut operation {
        operation.insert("requestBody".to_owned(), json!({ "required": true, "content": body }));
    }
    operation
}

/// A signed overlay, which Sigstore says how to write.
fn bundle(schemas: &mut SchemaGenerator) -> Value {
    let answer = json!({ "application/json": { "schema": schemas.subschema_for::<OverlayView>() } });
    let answers = json!({
        "200": { "description": "It was taken before.", "content": answer },
        "201": { "description": "Taken.", "content": answer },
    });
    let mut operation = operation(schemas, "Takes a signed overlay.", Vec::new(), answers);
    if let Value::Object(operation) = &mut operation {
        let description = "A Sigstore bundle, as `mayfly overlay sign` writes it.";
        let body = json!({ "application/json": { "schema": { "type": "object", "description": description } } });
        operation.insert("requestBody".to_owned(), json!({ "required": true, "content": body }));
    }
    operation
}

fn follow(schemas: &mut SchemaGenerator) -> Value {
    // The data of each event; media types of streams have no schema of their own.
    let _: Schema = schemas.subschema_for::<AlertView>();
    let _: Schema = schemas.subschema_for::<IncidentView>();
    let mut parameters = query::<FollowAsked>();
    parameters.push(json!({
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the last event: all that changed since is told.",
        "schema": { "type": "integer", "minimum": 0 },
    }));
    let description = "Events `alert`: `id` is the alert's revision, `data` an AlertSummary as JSON. Events `incident`, after alerts that \
                       changed it: `data` is an IncidentSummary.";
    let answers = json!({
        "200": { "description": description, "content": { "text/event-stream": { "schema": { "type": "string" } } } }
    });
    operation(schemas, "Tells of changes of alerts and incidents as they come.", parameters, answers)
}

fn path(name: &str) -> Vec<Value> {
    vec![json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })]
}

/// The members of a query's type, as parameters.
fn query<T: JsonSchema>() -> Vec<Value> {
    // On its own and without references: what it uses stands in each parameter.
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|one| one.as_str() == Some(name)));
    let members = schema.get("properties").and_then(Value::as_object);
    let parameter = |(name, member): (&String, &Value)| {
        let mut schema = given(member.clone());
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({ "name": name, "in": "query", "required": is_required(name), "description": description, "schema": schema })
    };
    members.into_iter().flatten().map(parameter).collect()
}

/// The schema of a parameter that is given: one that is not is left out, and never `null`.
fn given(mut schema: Value) -> Value {
    let Some(members) = schema.as_object_mut() else { return schema };
    if members.get("default") == Some(&Value::Null) {
        members.remove("default");
    }
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [kind] = types.as_slice() {
            let kind = kind.clone();
            members.insert("type".to_owned(), kind);
        }
    }
    let Some(Value::Array(mut either)) = members.remove("anyOf") else { return schema };
    either.retain(|one| one.get("type") != Some(&json!("null")));
    for one in either {
        if let Value::Object(one) = one {
            // What the parameter says of itself goes before what its type says.
            for (name, value) in one {
                members.entry(name).or_insert(value);
            }
        }
    }
    schema
}
