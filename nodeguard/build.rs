//! Puts the BPF object where the crate embeds it from: the committed one, or the one that
//! `NODEGUARD_BPF_OBJECT` names, such as what `ebpf/build.sh check` has just built. So an ordinary
//! build needs no compiler for BPF.

use std::error::Error;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

const CHOICE: &str = "NODEGUARD_BPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={CHOICE}");
    let object = match std::env::var_os(CHOICE) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from("../ebpf/nodeguard.bpf.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = std::fs::read(&object)
        .map_err(|error| format!("the BPF object {}: {error}", object.display()))?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("nodeguard.bpf.o");
    std::fs::write(out, &bytes)?;
    let hash: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    println!("cargo::rustc-env=NODEGUARD_BPF_SHA256={hash}");
    Ok(())
}
