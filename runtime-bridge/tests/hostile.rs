//! Bytes of no sensor: nothing panics, whatever they are.

use proptest::prelude::*;
use runtime_bridge::sensor::{Dialect, Told, decode, key, split};

/// Names and values that adapters look for, put together at random.
fn event() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "time",
        "timestamp",
        "timestamp_raw",
        "rule",
        "output_fields",
        "evt.type",
        "container.id",
        "process_kprobe",
        "process",
        "pod",
        "docker",
        "function_name",
        "args",
        "return",
        "int_arg",
        "string_arg",
        "file_arg",
        "sock_arg",
        "path",
        "eventName",
        "name",
        "data",
        "value",
        "workload",
        "container",
        "id",
        "remote_addr",
        "sin_port",
        "Operation",
        "Data",
        "Resource",
        "ContainerID",
        "UpdatedTime",
        "k8s",
        "runtime",
        "containerId",
        "podName",
        "dst",
        "port",
        "type",
        "auditID",
        "stage",
        "objectRef",
        "requestURI",
        "subresource",
        "act",
        "at",
        "sensor",
        "kind",
    ]);
    let text = prop::sample::select(vec![
        "\"2026-01-02T03:04:05Z\"",
        "\"execve\"",
        "\"3ad7b26ded6d\"",
        "\"tcp_connect\"",
        "\"sched_process_exec\"",
        "\"Process\"",
        "\"syscall=SYS_EXECVE\"",
        "\"pods\"",
        "\"exec\"",
        "\"ResponseComplete\"",
        "\"/x?command=%\"",
        "\"\"",
        "\"\\u0000\\\"\"",
        "1767323045120000001",
        "18446744073709551615",
        "-1",
        "1e400",
        "0.5",
        "true",
        "null",
        "\"<NA>\"",
        "\"💥\"",
    ]);
    let leaf = text.prop_map(str::to_owned);
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|entries| {
                let entries: Vec<String> = entries.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        for dialect in Dialect::ALL {
            let _ = decode(dialect, &bytes);
            let _ = key(dialect, &bytes);
        }
        let _ = Dialect::guess(&bytes);
        for dialect in Dialect::ALL {
            let _ = split(dialect, &bytes);
        }
    }

    #[test]
    fn any_event(event in event()) {
        for dialect in Dialect::ALL {
            let once = decode(dialect, event.as_bytes());
            prop_assert_eq!(&once, &decode(dialect, event.as_bytes()));
            prop_assert_eq!(key(dialect, event.as_bytes()), key(dialect, event.as_bytes()));
        }
        let _ = Dialect::guess(event.as_bytes());
    }
}

#[test]
fn bytes_that_are_no_text_hide_no_event() {
    let event = r#"{"process_exec":{"process":{"binary":"/x","arguments":"A","pod":{"name":"p"}}},"time":"2026-01-02T03:04:05Z"}"#;
    let mut event = event.as_bytes().to_vec();
    let at = event.iter().position(|byte| *byte == b'A').expect("an argument");
    event.splice(at..=at, [0xff, 0xfe]);
    let told = decode(Dialect::Tetragon, &event).expect("an event");
    assert!(matches!(told, Told::Activity(activity) if activity.process.argv == ["/x", "\u{fffd}\u{fffd}"]));
}

#[test]
fn depth_costs_no_stack() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(500_000), "]".repeat(500_000));
    for dialect in Dialect::ALL {
        let _ = decode(dialect, deep.as_bytes());
        let _ = key(dialect, deep.as_bytes());
    }
    let _ = Dialect::guess(deep.as_bytes());
    for dialect in Dialect::ALL {
        assert!(split(dialect, deep.as_bytes()).items.len() <= 1);
    }
}
