//! Addresses, ranges, host names and amounts, each parsed once into a type that cannot be wrong.

mod amount;
mod host_name;
mod ip_range;
pub mod kinds;
pub mod url;

pub use amount::{parse_duration, parse_size};
pub use host_name::HostName;
pub use ip_range::IpRange;
