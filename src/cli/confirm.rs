//! Asking before what cannot be undone.

use std::io::IsTerminal;

use clap::Args;

use super::output::note;

/// Confirms what cannot be undone.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Sure {
    /// Do not ask
    #[arg(long, short = 'y')]
    pub(super) yes: bool,
}

/// Asks on a terminal; without one, `--yes` is required.
pub(super) fn confirm(sure: Sure, question: &str) -> anyhow::Result<()> {
    if sure.yes {
        return Ok(());
    }
    let hint = "there is no terminal to ask on: say --yes";
    anyhow::ensure!(std::io::stdin().is_terminal(), "{question} Nothing was done; {hint}");
    note(format_args!("{question} [y/N]"));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    anyhow::ensure!(matches!(line.trim(), "y" | "Y" | "yes"), "nothing was done");
    Ok(())
}
