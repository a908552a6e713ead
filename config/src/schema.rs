//! JSON Schemas (draft 2020-12) for editors, made from the declarations that the parser runs.

use serde_json::Value;

use crate::cluster::ClusterSpec;
use crate::guard::{GuardConfig, PeerFile};
use crate::reader::schema;
use crate::registrar::RegistrarConfig;
use crate::route::RouteFile;
use crate::router::RouterConfig;

/// Every kind of file with its schema. What a schema cannot say (that an upstream exists, that
/// ranges do not overlap) only the parser checks.
#[must_use]
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        (
            "router",
            schema::<RouterConfig>("router.yaml", "The settings of a Gatehouse router."),
        ),
        (
            "routes",
            schema::<RouteFile>(
                "routes.d/*.yaml",
                "The host names that a tenant owns, and where their requests go.",
            ),
        ),
        (
            "nodeguard",
            schema::<GuardConfig>(
                "nodeguard.yaml",
                "What the node guard of one node enforces.",
            ),
        ),
        (
            "peers",
            schema::<PeerFile>(
                "peers.d/*.yaml",
                "Who else may reach a cluster's isolated ports.",
            ),
        ),
        (
            "registrar",
            schema::<RegistrarConfig>(
                "registrar.yaml",
                "What an instance announces to the route registries.",
            ),
        ),
        (
            "cluster",
            schema::<ClusterSpec>("cluster.yaml", "What a cluster should be."),
        ),
    ]
}
