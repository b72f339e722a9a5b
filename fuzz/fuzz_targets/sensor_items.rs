//! A body of a sensor: taken apart, any bytes. Items are pieces of it, in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime_bridge::sensor::{Dialect, split};

fuzz_target!(|body: &[u8]| {
    for dialect in [Dialect::Falco, Dialect::KubernetesAudit] {
        let mut behind = body.as_ptr();
        for item in split(dialect, body).items {
            assert!(item.starts_with(b"{") && item.ends_with(b"}"));
            assert!(item.as_ptr() >= behind);
            behind = item.as_ptr_range().end;
        }
    }
    let _ = Dialect::guess(body);
});
