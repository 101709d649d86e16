//! `viaflux completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::cli::{self, Cli};

/// Print shell completions.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  viaflux completions bash > ~/.local/share/bash-completion/completions/viaflux"
)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

impl CompletionsArgs {
    /// Prints the completions.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "viaflux", &mut script);
        cli::print(&String::from_utf8_lossy(&script))?;
        Ok(())
    }
}
