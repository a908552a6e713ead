//! Watches end with what their callers were let in by.

use super::client::{BOTH, request};
use super::*;

#[tokio::test]
async fn a_watch_ends_when_its_token_is_revoked_or_has_expired() {
    let setup = Setup::with(
        ApiOptions {
            standing: Duration::from_millis(10),
            ..ApiOptions::default()
        },
        1000,
    );
    let stays = setup.store.issue("acme", 9, None).token.reveal();
    let watch = async |client: &mut Client, token: &str| {
        let watch = request("GET", "/v1/watch", Some(token), "");
        let answer = client.begin(watch).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer
    };
    for (seed, http) in [(1, BOTH[0]), (2, BOTH[1])] {
        let revoked = setup.store.issue("acme", seed, None);
        let expiring = setup.store.issue("acme", seed + 2, None);
        for token in [&revoked, &expiring] {
            let mut client = setup.connect(None, http).await.unwrap();
            let mut other = setup.connect(None, http).await.unwrap();
            let ends = watch(&mut client, &token.token.reveal()).await;
            let mut goes_on = watch(&mut other, &stays).await.into_body();
            assert!(goes_on.frame().await.unwrap().is_ok());
            if token == &revoked {
                setup.store.revoke(token);
            } else {
                let record = token.record("acme", "", 0, Some(1));
                let id = token.token.id.clone();
                setup.store.0.lock().unwrap().insert(id, record);
            }
            let heard = setup.heard(ends).await.unwrap();
            assert_eq!(heard, "begins\n", "{http:?}: it ends, and cleanly");
            let more = timeout(Duration::from_millis(100), goes_on.frame()).await;
            assert!(more.is_err(), "{http:?}: another's watch has ended");
        }
    }
}

#[tokio::test]
async fn a_watch_ends_with_the_line_of_its_operator() {
    let setup = Setup::with(
        ApiOptions {
            standing: Duration::from_millis(10),
            ..ApiOptions::default()
        },
        1000,
    );
    let new = new_token(TokenKind::Operator, &[9; 40]);
    write(&setup.path("operators"), &new.operators_line("jane"));
    let token = new.token.reveal();
    let mut client = setup.connect(None, Http::Two).await.unwrap();
    let known = async || {
        setup
            .who(None, Http::Two, Some(&token))
            .await
            .unwrap()
            .status
            == 200
    };
    setup.until("jane is known", known).await;
    let watch = request("GET", "/v1/watch", Some(&token), "");
    let watch = client.begin(watch).await.unwrap();
    write(&setup.path("operators"), "# nobody\n");
    assert_eq!(setup.heard(watch).await.unwrap(), "begins\n");
}
