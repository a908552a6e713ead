//! The harness of real hosts: what the end-to-end tests and `./x demo` are made of.
//!
//! Nothing here imitates anything. A tenant's ingress is Debian's NGINX; a host is a network
//! namespace, or a Debian with its own systemd ([`real_host`]); clients are curl, h2load, openssl
//! and rustls; and [`backend::Backend`] is a socket that writes down every byte it is sent.
//!
//! Everything ends with the value that stands for it: a [`process::Process`] is ended by its pid
//! when it is dropped, and killed by the kernel if we die first; a [`namespace::Namespace`] has no
//! name in the file system, so the kernel takes it away with its last user;
//! [`machine::MachineState`] checks that this is so.

#![deny(unsafe_code)]

pub mod address;
pub mod backend;
pub mod ca;
pub mod client;
pub mod clients;
pub mod edge;
pub mod etcd;
pub mod faketime;
pub mod fleet;
pub mod flood;
pub mod folder;
pub mod guard;
pub mod guard_host;
pub mod guarded;
pub mod h2_client;
pub mod h2_clients;
pub mod interrupt;
pub mod isolation;
pub mod keepalived;
pub mod load;
pub mod machine;
pub mod namespace;
pub mod nftables;
pub mod nginx;
pub mod process;
pub mod program;
pub mod real_host;
pub mod results;
pub mod router;
#[allow(unsafe_code)]
mod spawn;
pub mod tool;
pub mod wait;
pub mod websocket;
