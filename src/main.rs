//! The `viaflux` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    viaflux::service::cli::main()
}
