//! The authority: one table of nftables.
