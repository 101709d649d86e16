//! `viaflux schema`.

use clap::{Args, Subcommand, ValueEnum};

use super::{cli, config};

/// Print a schema or a document made from it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  viaflux schema config > viaflux.schema.json\n  \
                        viaflux schema config --format toml > viaflux.toml\n  \
                        viaflux schema config --format markdown")]
pub struct SchemaArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The configuration file.
    #[command(after_help = "Examples:\n  viaflux schema config > viaflux.schema.json\n  \
                            viaflux schema config --format toml > viaflux.toml")]
    Config {
        /// JSON Schema for editors, the commented default file, or the reference.
        #[arg(long, default_value = "json")]
        format: Format,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// JSON Schema, draft 2020-12.
    Json,
    /// A configuration file that says all defaults.
    Toml,
    /// The reference of all keys (docs/config.md).
    Markdown,
}

impl SchemaArgs {
    /// Prints what was asked for.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn run(self) -> anyhow::Result<()> {
        let What::Config { format } = self.what;
        let text = match format {
            Format::Json => format!("{:#}", config::json_schema()),
            Format::Toml => config::example(),
            Format::Markdown => config::document(),
        };
        cli::print(&text)?;
        Ok(())
    }
}
