//! A body of a sensor: taken apart, any bytes. Items are pieces of it, in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime_bridge::{
    limits,
    sensor::{Dialect, items},
};

fuzz_target!(|body: &[u8]| {
    let mut behind = body.as_ptr();
    for item in items(body).flatten() {
        assert!(item.starts_with(b"{") && item.ends_with(b"}") && item.len() <= limits::ITEM);
        assert!(item.as_ptr() >= behind);
        behind = item.as_ptr_range().end;
    }
    let _ = Dialect::guess(body);
});
