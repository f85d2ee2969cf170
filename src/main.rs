//! The `nightmail` command: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    nightmail::cli::main()
}
