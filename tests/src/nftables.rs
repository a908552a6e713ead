//! nftables in a namespace: the nft program's and nodeguard's own.

use nodeguard::nft::drift::Integrity;
use nodeguard::nft::{Nft, Ownership, sample};
use nodeguard::ruleset::Ruleset;

use crate::namespace::Namespace;
use crate::tool::{Output, Tool};

/// Runs the nft program inside.
///
/// # Panics
/// If it is not installed.
#[must_use]
pub fn nft(namespace: &Namespace, arguments: &[&str]) -> Output {
    let tool = Tool::new("nft").args(arguments).namespace(Some(namespace));
    tool.run().expect("nft is installed")
}

/// Runs lines of nft's own language and insists that they succeed.
///
/// # Panics
/// If they do not.
pub fn script(namespace: &Namespace, lines: &str) {
    let tool = Tool::new("nft")
        .args(["-f", "-"])
        .namespace(Some(namespace));
    tool.input(lines).succeed().expect("nft takes these lines");
}

/// nodeguard's nftables inside.
///
/// # Panics
/// Without root.
#[must_use]
pub fn open(namespace: &Namespace, ownership: Ownership) -> Nft {
    namespace
        .run(|| Nft::open_with(ownership))
        .expect("root, and nftables in the kernel")
}

/// The same, which is to own its table.
///
/// # Panics
/// Without root, and if the kernel is older than Linux 6.9.
#[must_use]
pub fn exclusive(namespace: &Namespace) -> Nft {
    let nft = namespace
        .run(Nft::open)
        .expect("root, and nftables in the kernel");
    assert!(nft.is_exclusive(), "this kernel cannot keep a table");
    nft
}

/// Everything in which the table is not as meant.
///
/// # Panics
/// If the kernel cannot be asked.
#[must_use]
pub fn drifted(nft: &mut Nft, ruleset: &Ruleset) -> Vec<String> {
    match nft.check(ruleset).expect("the kernel answers") {
        Integrity::Intact => Vec::new(),
        Integrity::Drifted { what } => what,
    }
}

/// The sample with other nodes.
///
/// # Panics
/// If the sample has lost its set of nodes.
#[must_use]
pub fn with_nodes(nodes: impl IntoIterator<Item = [u8; 4]>) -> Ruleset {
    let mut ruleset = sample::ruleset();
    let set = ruleset.sets.iter_mut().find(|it| it.name == "nodes4");
    *set.expect("the sample has nodes4") = sample::hosts("nodes4", nodes);
    ruleset
}
