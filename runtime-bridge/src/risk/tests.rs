use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::Class;

fn deviation(class: Class, subject: &str, risk: f64) -> Deviation {
    Deviation {
        class,
        subject: subject.to_owned(),
        message: "something".to_owned(),
        after: None,
        layer: None,
        package: None,
        risk,
        drivers: Vec::new(),
        technique: "T1105".to_owned(),
        blocked: false,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

const WHOSE: Whose = Whose { owner: 1, image: 2, container: 3 };

/// It asks whether rules say more than a half, then how many deviations came earlier.
fn model() -> Model {
    let earlier =
        u16::try_from(NAMES.iter().position(|name| name == "earlier deviations of the workload").expect("it"))
            .expect("small");
    let tree = vec![
        Node(0.5, Some((0, 0.5, 1, 2))),
        Node(0.1, None),
        Node(0.7, Some((earlier, 0.1, 3, 4))),
        Node(0.6, None),
        Node(0.9, None),
    ];
    let classes = BTreeSet::from([Class::Write, Class::ProgramNotInImage]);
    Model::new("of a test".to_owned(), Data::default(), classes, [0.0, 1.0], vec![tree]).expect("a model")
}

#[test]
fn a_model_gives_a_probability_and_what_drove_it() {
    let mut ranking = Ranking::new(Some(Arc::new(model())));
    let mut first = [deviation(Class::Write, "/a", 0.8)];
    ranking.rank(WHOSE, &Scene::default(), &mut first, at(0));
    assert!((first[0].risk - 0.6).abs() < 1e-9, "{}", first[0].risk);
    let drivers: Vec<(&str, f64)> = first[0].drivers.iter().map(|it| (it.feature.as_str(), it.weight)).collect();
    assert_eq!(drivers[0], ("risk by rules", 0.847));
    assert_eq!(drivers[1], ("earlier deviations of the workload", -0.442));
    assert!((first[0].drivers[0].value - 0.8).abs() < 1e-9);
    let mut second = [deviation(Class::Write, "/b", 0.8)];
    ranking.rank(WHOSE, &Scene::default(), &mut second, at(1));
    assert!((second[0].risk - 0.9).abs() < 1e-9);
    // After silence nothing came earlier.
    let mut later = [deviation(Class::Write, "/c", 0.8)];
    ranking.rank(WHOSE, &Scene::default(), &mut later, at(4000));
    assert!((later[0].risk - 0.6).abs() < 1e-9);
}

#[test]
fn rules_rank_what_the_model_has_not_seen_and_all_without_one() {
    let mut strange = [deviation(Class::Capability, "CAP_X", 0.5)];
    Ranking::new(Some(Arc::new(model()))).rank(WHOSE, &Scene::default(), &mut strange, at(0));
    assert_eq!(strange, [deviation(Class::Capability, "CAP_X", 0.5)]);
    let mut any = [deviation(Class::Write, "/a", 0.8)];
    Ranking::default().rank(WHOSE, &Scene::default(), &mut any, at(0));
    assert_eq!(any, [deviation(Class::Write, "/a", 0.8)]);
}

#[test]
fn what_other_containers_of_the_image_do_is_known() {
    let mut past = Past::default();
    let other = |container| Whose { owner: container, container, ..WHOSE };
    let same = deviation(Class::Write, "/a", 0.4);
    (10..14).for_each(|container| past.meet(other(container), at(0)));
    past.keep(other(10), &same, at(1));
    past.keep(other(10), &same, at(2));
    past.keep(other(11), &same, at(3));
    let earlier = past.earlier(WHOSE, &same, at(4));
    assert_eq!((earlier.count, earlier.others, earlier.share), (0, 4, 0.5));
    // Its own deeds say nothing of how rare they are.
    let earlier = past.earlier(other(10), &same, at(4));
    assert_eq!((earlier.count, earlier.is_known, earlier.others), (2, true, 3));
    assert!((earlier.share - 1.0 / 3.0).abs() < 1e-9);
    assert_eq!(past.earlier(WHOSE, &deviation(Class::Write, "/b", 0.4), at(4)).share, 0.0);
}

#[test]
fn the_past_is_bounded() {
    let mut past = Past::default();
    for number in 0..20_000_u64 {
        let whose = Whose { owner: number, image: number, container: number };
        past.keep(
            whose,
            &deviation(Class::Write, &format!("/{number}"), 0.4),
            at(i64::try_from(number).expect("small")),
        );
    }
    assert!(past.len() < 10_000, "{}", past.len());
    // The latest are kept.
    let last = Whose { owner: 19_999, image: 19_999, container: 1 };
    let earlier = past.earlier(last, &deviation(Class::Write, "/19999", 0.4), at(20_000));
    assert_eq!((earlier.count, earlier.others, earlier.share), (1, 1, 1.0));
}

#[test]
fn a_broken_model_is_refused_and_says_why() {
    let good = serde_json::to_value(model()).expect("JSON");
    let read = |json: &Value| Model::parse(json.to_string().as_bytes());
    assert_eq!(read(&good), Ok(model()));
    let with = |path: &str, value: Value| {
        let mut broken = good.clone();
        *broken.pointer_mut(path).expect("a place") = value;
        read(&broken).expect_err("broken").to_string()
    };
    assert!(with("/format", json!("mayfly-risk/2")).contains("mayfly-risk/2"));
    assert!(with("/features/1", json!("moon phase")).contains("descends from a command from outside"));
    assert!(with("/features", json!([])).contains("0 features"));
    assert!(with("/calibration", json!([0.0, -1.0])).contains("calibration"));
    assert!(with("/trees", json!([])).contains("no tree"));
    assert!(with("/trees/0", json!([])).contains("tree 0"));
    // A question that leads back would be asked for ever.
    assert!(with("/trees/0/2", json!([0.7, [0, 0.1, 0, 4]])).contains("node 2 of tree 0"));
    assert!(with("/trees/0/2", json!([0.7, [9999, 0.1, 3, 4]])).contains("node 2 of tree 0"));
    assert!(with("/trees/0/1", json!([1.5])).contains("node 1 of tree 0"));
    assert!(Model::parse(b"[").expect_err("no JSON").to_string().contains("no model"));
}

#[test]
fn the_shipped_model_is_whole_and_used_only_where_it_beats_both_controls() {
    let shipped = Model::parse(include_bytes!("../../model/risk.json")).expect("whole");
    let figures = |name: &str| shipped.figures.get(name).copied().expect("it is told");
    let is_better = figures("model").beat(&figures("rules")) && figures("model").beat(&figures("class"));
    assert_eq!(shipped.is_on, is_better);
    assert_eq!(Model::shipped().expect("whole").is_some(), is_better);
    assert!(shipped.data.images > 1 && !shipped.data.recorded.is_empty());
}
