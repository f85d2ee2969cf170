//! The `nightmail` command.

fn main() {}
