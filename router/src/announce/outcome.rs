//! What an answer of a registry means to a registrar.

use http::StatusCode;

use super::state::{Outcome, Refusal};
use crate::registry::api::problem::reason;
use crate::registry::client::{ClientError, Problem};

/// Classifies how a call has ended; a success says whether it has only renewed.
#[must_use]
pub fn outcome(result: Result<bool, ClientError>) -> Outcome {
    let error = match result {
        Ok(renewed) => return Outcome::Accepted { renewed },
        Err(error) => error,
    };
    match error.problem() {
        Some(problem) if problem.status.is_client_error() => refused(problem, &error),
        problem => Outcome::Failed {
            error: error.to_string(),
            retry_after: problem.and_then(|problem| problem.retry_after),
            elsewhere: error.is_worth_another_registry(),
        },
    }
}

fn refused(problem: &Problem, error: &ClientError) -> Outcome {
    let refusal = || Refusal {
        reason: match &problem.reason {
            Some(reason) => reason.clone(),
            None => problem.status.as_u16().to_string(),
        },
        detail: problem.detail.clone(),
        host: problem.host.clone(),
    };
    let whoever = problem.reason.as_deref() == Some(reason::WRONG_TENANT)
        || problem.reason.as_deref() == Some(reason::OPERATORS_ONLY);
    match problem.status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::Busy(problem.retry_after),
        // Our own slowness, or the network's.
        StatusCode::REQUEST_TIMEOUT => Outcome::Failed {
            error: error.to_string(),
            retry_after: None,
            elsewhere: true,
        },
        // Nobody it knows, or no registry at all.
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Outcome::Unwelcome(refusal())
        }
        StatusCode::FORBIDDEN if whoever => Outcome::Unwelcome(refusal()),
        _ => Outcome::Refused(refusal()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn answered(status: u16, reason: &str) -> Outcome {
        let problem = Problem {
            status: StatusCode::from_u16(status).unwrap(),
            reason: Some(reason.to_owned()),
            detail: "no".to_owned(),
            host: Some("a.example.org".to_owned()),
            retry_after: Some(Duration::from_secs(3)),
        };
        outcome(Err(ClientError::Refused {
            address: "https://a.example".parse().unwrap(),
            problem: Box::new(problem),
        }))
    }

    #[test]
    fn each_refusal_has_its_meaning() {
        let wait = Some(Duration::from_secs(3));
        for (status, reason) in [
            (401, "unauthenticated"),
            (403, "wrong-tenant"),
            (403, "operators-only"),
            (404, "not-found"),
        ] {
            let answered = answered(status, reason);
            assert!(matches!(answered, Outcome::Unwelcome(_)), "{answered:?}");
        }
        for (status, reason) in [
            (400, "invalid"),
            (403, "outside-zones"),
            (409, "too-many-routes"),
            (413, "too-large"),
        ] {
            let answered = answered(status, reason);
            let about = |refusal: &Refusal| refusal.host.as_deref() == Some("a.example.org");
            assert!(
                matches!(&answered, Outcome::Refused(refusal) if about(refusal)),
                "{answered:?}"
            );
        }
        assert_eq!(answered(429, "too-many-requests"), Outcome::Busy(wait));
        for status in [500, 503] {
            let Outcome::Failed {
                retry_after,
                elsewhere,
                ..
            } = answered(status, "store-unreachable")
            else {
                panic!("{status}");
            };
            assert_eq!((retry_after, elsewhere), (wait, true));
        }
        let renewed = false;
        assert_eq!(outcome(Ok(renewed)), Outcome::Accepted { renewed });
    }

    #[test]
    fn what_is_wrong_with_our_own_files_is_wrong_everywhere() {
        let failed = outcome(Err(ClientError::File {
            file: "token".into(),
            reason: "cannot be read".to_owned(),
        }));
        let expected = Outcome::Failed {
            error: "token: cannot be read".to_owned(),
            retry_after: None,
            elsewhere: false,
        };
        assert_eq!(failed, expected);
    }
}
