# `just check` is what CI checks.

default:
    @just --list

# Format, lints, documentation, tests.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p nightmail --no-default-features --lib --bins -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet
    cargo test

# What CI runs, installs included.
ci:
    ./.ci/run

# The whole pipeline on this machine in a minute.
demo *args:
    cargo run --release -- demo {{args}}

# Fuzzes TARGET (record, frame or recovery) for so many seconds; see CONTRIBUTING.md.
fuzz target seconds="30":
    cp Cargo.lock fuzz/Cargo.lock
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{target}} -- -max_total_time={{seconds}}

# Changes lines in the files changed since BASE, 40 at a time, and says which changes no test notices.
mutants base="HEAD~10" count="40" seed="1":
    ./scripts/mutants {{base}} {{count}} {{seed}}
