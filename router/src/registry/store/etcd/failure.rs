//! What a failed call to etcd means.

use etcd_client::Error;
use tonic::{Code, Status};

use super::super::StoreError;

/// What a failed call means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// That is the cluster's answer; any other member would give the same.
    Answer(StoreError),
    /// This member could not do it. Another may.
    Member {
        /// Why, for people.
        reason: String,
        /// Whether it is certain that nothing was done.
        undone: bool,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::GRpcStatus(status) => of_status(status),
            // How the client tells that a renewal was answered with no time left.
            Error::LeaseKeepAliveError(reason) if reason == "lease not found" => {
                Self::Answer(StoreError::LeaseGone)
            }
            _ => Self::Member {
                reason: with_causes(&error),
                undone: false,
            },
        }
    }
}

/// The texts are etcd's own (`api/v3rpc/rpctypes/error.go`).
fn of_status(status: &Status) -> Failure {
    let says = |text: &str| status.message().contains(text);
    let failed = || Failure::Answer(StoreError::Failed(format!("etcd: {}", status.message())));
    match status.code() {
        Code::NotFound if says("requested lease not found") => {
            Failure::Answer(StoreError::LeaseGone)
        }
        // An alarm of the whole cluster, which stays until an operator disarms it.
        Code::ResourceExhausted if says("database space exceeded") => {
            Failure::Answer(StoreError::Full)
        }
        Code::OutOfRange if says("has been compacted") => Failure::Answer(StoreError::Compacted),
        // What tonic says of an answer that is larger than it may be: a smaller one can be asked for.
        Code::OutOfRange if says("message length too large") => Failure::Member {
            reason: status.message().to_owned(),
            undone: false,
        },
        Code::NotFound
        | Code::OutOfRange
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => failed(),
        // Overloaded, not the leader; or nobody is.
        Code::ResourceExhausted | Code::FailedPrecondition => Failure::Member {
            reason: status.message().to_owned(),
            undone: true,
        },
        Code::Unavailable if says("etcdserver: no leader") => Failure::Member {
            reason: status.message().to_owned(),
            undone: true,
        },
        _ => Failure::Member {
            reason: with_causes(status),
            undone: false,
        },
    }
}

/// An error with all its causes; the outermost alone is "transport error".
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Many repeat what is beneath them.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, text: &str) -> Failure {
        Failure::from(Error::GRpcStatus(Status::new(code, text)))
    }

    #[test]
    fn answers_of_the_cluster_are_told_from_troubles_of_a_member() {
        let answers = [
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                StoreError::LeaseGone,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                StoreError::Compacted,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                StoreError::Full,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
                StoreError::Failed("etcd: etcdserver: too many operations in txn request".into()),
            ),
        ];
        for (code, text, expected) in answers {
            assert_eq!(of(code, text), Failure::Answer(expected));
        }
        for (code, text, expected) in [
            (Code::Unavailable, "etcdserver: no leader", true),
            (Code::Unavailable, "etcdserver: request timed out", false),
            (Code::Unavailable, "etcdserver: leader changed", false),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                true,
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
                false,
            ),
            (Code::Unknown, "transport error", false),
            (Code::Cancelled, "Timeout expired", false),
            (Code::Internal, "h2 protocol error", false),
        ] {
            let Failure::Member { reason, undone } = of(code, text) else {
                panic!("{text}")
            };
            assert!(reason.contains(text), "{reason}");
            assert_eq!(undone, expected, "{text}");
        }
    }
}
