//! The committed BPF object is what the sources in `ebpf/` make. No compiler for BPF is needed to
//! see that one of the two has changed; `ebpf/build.sh check` builds it anew.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ebpf")
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn record() -> serde_json::Value {
    let text = fs::read_to_string(folder().join("nodeguard.bpf.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Paths of the sources, as `sources` in `ebpf/build.sh` finds them.
fn sources(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        if entry.file_type().unwrap().is_dir() {
            if name != "target" {
                sources(&entry.path(), &format!("{path}/"), found);
            }
        } else if name.ends_with(".rs")
            || name.ends_with(".sh")
            || name == "Cargo.toml"
            || name == "Cargo.lock"
        {
            found.push(path);
        }
    }
}

#[test]
fn the_object_was_made_of_the_sources_in_the_tree() {
    let mut files = Vec::new();
    sources(&folder(), "", &mut files);
    files.sort();
    let lines: String = files
        .iter()
        .map(|file| {
            let bytes = fs::read(folder().join(file)).unwrap();
            format!("{}  {file}\n", hash(&bytes))
        })
        .collect();
    let record = record();
    assert_eq!(record["files"], serde_json::json!(files));
    assert_eq!(
        record["sources"],
        hash(lines.as_bytes()),
        "the sources have changed: run ebpf/build.sh write"
    );
}

#[test]
fn the_object_is_the_recorded_one() {
    let object = fs::read(folder().join("nodeguard.bpf.o")).unwrap();
    assert_eq!(record()["object"], hash(&object));
}

#[test]
fn the_embedded_object_is_the_one_that_was_chosen() {
    let chosen = match std::env::var_os("NODEGUARD_BPF_OBJECT") {
        Some(path) => Path::new(env!("CARGO_MANIFEST_DIR")).join(path),
        None => folder().join("nodeguard.bpf.o"),
    };
    let chosen = fs::read(chosen).unwrap();
    assert_eq!(nodeguard::bpf::OBJECT_SHA256, hash(&chosen));
}
