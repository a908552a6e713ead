//! Our own programs: where the one that is to be tested stands.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Names a program's binary if it is not beside the test's own: `GATEHOUSE_ROUTER`.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("GATEHOUSE_{}", name.to_uppercase())
}

/// Where a program of ours is.
///
///
/// # Errors
/// If it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let variable = variable(name);
    if let Some(path) = std::env::var_os(&variable) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{variable} names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let own = std::env::current_exe()?;
    // target/debug/deps/TEST or target/release/demo: the program stands in the same profile.
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|it| it.join(name))
        .find(|it| it.is_file());
    found.with_context(|| {
        format!(
            "there is no {name} beside {}: build it with `cargo build -p {name}` (or \
             `--release`), or name one in {variable}",
            own.display()
        )
    })
}
