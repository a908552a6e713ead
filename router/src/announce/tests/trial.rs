//! Trying out a configuration.

use super::*;
use crate::announce::trial::try_out;

#[tokio::test]
async fn a_trial_asks_everybody_and_changes_nothing() {
    let authority = Authority::new();
    let ready = |seen: &Seen| match &*seen.path {
        "/v1/health" => Reply::json(200, &json!({"store": "reachable", "revision": 1})),
        path if path.starts_with("/v1/instances?tenant=acme&") => {
            Reply::json(200, &json!({"instances": [], "revision": 1}))
        }
        _ => Reply::status(500),
    };
    let first = Scripted::start(&authority, ready).await;
    let stranger = Scripted::start(&authority, move |seen| match &*seen.path {
        "/v1/health" => ready(seen),
        _ => Reply::problem(401, "unauthenticated", None),
    })
    .await;
    let mut dead = Scripted::start(&authority, ready).await;
    dead.kill().await;
    let ((_one, one), (two, closed)) = (endpoint().await, endpoint().await);
    drop(two);
    let routes = vec![wanted("a", one), wanted("b", closed)];
    let both = loaded(&authority, &[&first, &stranger, &dead], routes);
    let trial = try_out(&both).await;
    assert!(!trial.ok);
    let healthy = trial
        .routes
        .iter()
        .map(|route| (route.healthy, route.reason.is_some()));
    assert_eq!(healthy.collect::<Vec<_>>(), [(true, false), (false, true)]);
    let ready: Vec<_> = trial.registries.iter().map(|it| it.ok).collect();
    assert_eq!(ready, [true, false, false], "{trial:?}");
    let reason = trial.registries[1].reason.as_deref().unwrap();
    assert!(reason.contains("401 unauthenticated"), "{reason}");
    let trial = try_out(&loaded(&authority, &[&first], vec![wanted("a", one)])).await;
    assert!(trial.ok, "{trial:?}");
    for seen in first.seen().iter().chain(&stranger.seen()) {
        assert_eq!(seen.method, Method::GET);
    }
}
