//! What the API takes, and what it refuses whoever asks.

use serde_json::{Value, json};

use super::lab::{Lab, operator, tenant};
use crate::registry::api::document;

#[tokio::test]
async fn a_check_may_not_take_long() {
    let lab = Lab::new().await;
    let a = tenant("a");
    for (timeout, status) in [(10, 201), (11, 422), (3600, 422)] {
        let check = json!({"interval": 3600, "timeout": timeout, "failures": 1});
        let body = json!({"endpoints": ["10.0.1.1:1"], "check": check});
        let answer = lab
            .call(&a, "PUT", "/v1/routes/www.a.example.org", body)
            .await;
        assert_eq!(answer.status, status, "{timeout}: {answer:?}");
    }
}

#[tokio::test]
async fn no_call_ignores_a_parameter_that_it_does_not_know() {
    let lab = Lab::new().await;
    let document = document();
    let before = lab.everything().await;
    let mut calls = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let target = path
            .replace("{host}", "www.a.example.org")
            .replace("{pattern}", "*.a.example.org")
            .replace("{tenant}", "a")
            .replace("{instance}", "w1")
            .replace("{id}", "0123456789abcdef");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            let target = format!("{target}?surprise=1");
            let answer = lab.call(&operator(), &method, &target, Value::Null).await;
            let what = format!("{method} {target}: {answer:?}");
            assert_eq!((answer.status, answer.reason()), (400, "invalid"), "{what}");
            calls += 1;
        }
    }
    assert!(calls > 12, "{calls}");
    assert_eq!(lab.everything().await, before);
}
