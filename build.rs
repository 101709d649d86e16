//! Tells the binary what it is built from: `VIAFLUX_REVISION` and `VIAFLUX_RUSTC`, which the environment of the
//! build may set itself where there is no checkout.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["VIAFLUX_REVISION", "VIAFLUX_RUSTC"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    tell("VIAFLUX_REVISION", revision);
    tell("VIAFLUX_RUSTC", rustc);
}

fn tell(name: &str, find: fn() -> Option<String>) {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    if let Some(found) = given.or_else(find) {
        println!("cargo:rustc-env={name}={found}");
    }
}

/// The commit checked out, if this folder itself is the checkout: a copy unpacked inside another project's
/// checkout has no revision.
fn revision() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    // The log of HEAD grows with each commit and each change of branch.
    for file in ["logs/HEAD", "HEAD"] {
        let path = output("git", &["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
            break;
        }
    }
    output("git", &["rev-parse", "--short=12", "HEAD"])
}

fn rustc() -> Option<String> {
    let program = std::env::var("RUSTC").ok()?;
    // `rustc 1.95.0 (59807616e 2026-04-14)`: the number says it.
    let version = output(&program, &["--version"])?;
    version.split_whitespace().nth(1).map(str::to_owned)
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
