//! What a registry takes of an announcement: the numbers that registrars and registries agree on.

use std::ops::RangeInclusive;

/// Routes of one announcement at most; at least one.
pub const MOST_ROUTES: usize = 32;
/// Seconds that an announcement may hold without renewal. Every store keeps to the shortest.
pub const TTL_SECONDS: RangeInclusive<u32> = 5..=3600;
/// Bytes of the certificate authorities of one route, in PEM. Routers keep them for each route.
pub const MOST_PEM_BYTES: usize = 16 << 10;
