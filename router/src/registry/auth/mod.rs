//! Who is calling the registry's API.
//!
//! ```text
//! client certificate --certificate--+
//!                                   +--> Caller { id, role } --limits--> handlers --> audit
//! bearer token --credential, tokens-+
//! ```
//!
//! What a caller may do is decided elsewhere (`claims`), but for what its credential is not meant for
//! (`scope`). All of this runs on the API's own thread;
//! no worker of the data plane looks at any of it.

pub mod audit;
pub mod certificate;
pub mod credential;
pub mod guard;
pub mod limits;
pub mod operators;
pub mod refusals;
pub mod scope;
pub mod standing;
pub mod tokens;

pub use audit::{Change, Unchanged};
pub use credential::{BearerToken, Caller, Role, TokenKind};
pub use guard::{Guard, Peer, guard};
pub use tokens::{NewToken, TokenSource, Tokens, new_token};
