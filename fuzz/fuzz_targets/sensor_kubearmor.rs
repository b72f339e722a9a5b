//! An event of KubeArmor: read, any bytes.
#![no_main]

#[path = "common/sensor.rs"]
mod sensor;

use libfuzzer_sys::fuzz_target;
use runtime_bridge::sensor::Dialect;

fuzz_target!(|item: &[u8]| sensor::event(Dialect::KubeArmor, item));
