//! Benchmarks against rivals and limits.

fn main() {}
