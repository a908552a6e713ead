//! The fast plane: eBPF drops early what nftables would drop.
