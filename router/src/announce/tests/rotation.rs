//! Files that are replaced while the registrar runs, by somebody who makes mistakes.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::registry::client::scripted;

#[tokio::test]
async fn a_spoiled_token_changes_nothing_and_a_mended_one_is_used() {
    let authority = Authority::new();
    let mut registry = Scripted::start(&authority, willing).await;
    let (_one, address) = endpoint().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registrar.yaml");
    authority.token();
    let token = authority.folder.path().join("token");
    let text = format!(
        "tenant: acme\ninstance: w1\nregistries: [\"{}\"]\nca: {}\ncredentials: {{token: {}}}\n\
         renew: 1s\nroutes:\n\
         - {{host: a.example.org, endpoint: \"{address}\", check: {{kind: tcp}}}}\n",
        registry.url(),
        authority.ca().display(),
        token.display(),
    );
    fs::write(&file, text).unwrap();
    let running = Running::start(file.clone(), load(&file).unwrap());
    registry.wait_for(last_is("a")).await;
    let bearer = |number| format!("Bearer {}", scripted::token(number));

    // As root writes it, with a umask of 027.
    let new = authority.secret("new", &scripted::token(2));
    fs::set_permissions(&new, fs::Permissions::from_mode(0o640)).unwrap();
    fs::rename(&new, &token).unwrap();
    // Several looks, and a new connection.
    let so_far = registry.seen().len();
    registry.wait_for(|seen| seen.len() >= so_far + 2).await;
    registry.kill().await;
    registry.revive().await;
    let so_far = registry.seen().len();
    let seen = registry.wait_for(|seen| seen.len() >= so_far + 2).await;
    assert_eq!(seen.last().unwrap().fields["authorization"], bearer(1));

    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let with_new = |seen: &[Seen]| seen.last().unwrap().fields["authorization"] == bearer(2);
    registry.wait_for(with_new).await;
    running.stop().await;
}
