//! Workloads that were seen.

use lineage::{UsedRow, WorkloadRow};

use super::*;

pub(super) fn workload(namespace: &str, dna: &Digest) -> WorkloadRow {
    let place = Place {
        cluster: "east".into(),
        namespace: namespace.into(),
        owner: "Deployment/web".into(),
        container: "web".into(),
        image: String::new(),
        digest: digest("web").to_string(),
    };
    WorkloadRow {
        id: crate::usage::workload(&place),
        cluster: place.cluster,
        namespace: place.namespace,
        owner: place.owner,
        container: place.container,
        digest: place.digest,
        dna: dna.clone(),
        expectation: None,
        starts: 2,
        first_seen: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn what_a_workload_did_is_held_against_its_dna() {
    let server = server().await;
    let dna = crate::compare::tests::dna();
    let json = dna.to_canonical_json().expect("JSON");
    let name = server.api.ledger.put_dna(&dna, json, Timestamp::now()).await.expect("kept");
    let (mine, other) = (workload("shop", &name), workload("bank", &name));
    let used = UsedRow {
        workload: mine.id.clone(),
        dimension: "exec".into(),
        item: "/bin/strange".into(),
        is_predicted: false,
        first_seen: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
    };
    server.api.ledger.add_used(&[mine.clone(), other.clone()], &[used]).await.expect("kept");
    server.commit(&[alert("shop", "tcp/4444", 0.8, 1), alert("bank", "tcp/5", 0.8, 1)], &[]).await;
    let list = server.get("/workloads", READER).await.json();
    assert_eq!(list["workloads"].as_array().map(Vec::len), Some(2));
    let list = server.get("/workloads?owner=Deployment/web", SHOP_READER).await.json();
    assert_eq!((list["workloads"].as_array().map(Vec::len), &list["workloads"][0]["id"]), (Some(1), &json!(mine.id)));
    let whole = server.get(&format!("/workloads/{}", mine.id), SHOP_READER).await.json();
    let (exec, listen) = (&whole["dimensions"]["exec"], &whole["dimensions"]["listen"]);
    assert_eq!(
        (&exec["notPredicted"][0]["item"], &exec["isObserved"]),
        (&json!("/bin/strange"), &json!(true)),
        "{whole}"
    );
    assert_eq!(
        (&listen["alerts"][0]["subject"], listen["alerts"].as_array().map(Vec::len)),
        (&json!("tcp/4444"), Some(1))
    );
    server.get(&format!("/workloads/{}", other.id), SHOP_READER).await.problem(404);
    let gone = workload("lost", &Digest::sha256(b"gone"));
    server.api.ledger.add_used(std::slice::from_ref(&gone), &[]).await.expect("kept");
    server.get(&format!("/workloads/{}", gone.id), READER).await.problem(409);
}
