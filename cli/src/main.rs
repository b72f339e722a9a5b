//! The program `mayfly`.
fn main() {}
