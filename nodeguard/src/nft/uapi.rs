//! Numbers of the kernel's interface, under the names that they have there.
//!
//! Sources: `include/uapi/linux/netfilter/nf_tables.h`, `nfnetlink.h`, `netlink.h` and
//! `include/uapi/linux/netfilter.h`. The `libc` crate has some of them, with types that change
//! from one group to the next.

/// Kinds of netlink messages that every protocol shares (`NLMSG_*`).
pub(super) mod control {
    pub(crate) const ERROR: u16 = 2;
    pub(crate) const DONE: u16 = 3;
    pub(crate) const OVERRUN: u16 = 4;
    /// What is below belongs to netlink itself (`NLMSG_MIN_TYPE`).
    pub(crate) const FIRST_FREE: u16 = 0x10;
}

/// Flags of a message (`NLM_F_*`).
pub(super) mod flag {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    /// The dump met a change half way and is not one picture.
    pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
    /// The quoted request in an error is its header alone.
    pub(crate) const CAPPED: u16 = 0x100;
    /// Attributes follow the quoted request.
    pub(crate) const ACK_ATTRIBUTES: u16 = 0x200;
}

/// `NFNL_MSG_BATCH_BEGIN`.
pub(super) const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
pub(super) const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`: the upper byte of a message's kind.
pub(super) const SUBSYSTEM: u16 = 10;
/// `NFNLGRP_NFTABLES`: the multicast group of changes.
pub(super) const GROUP: u32 = 7;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words about an error.
pub(super) const ERROR_TEXT: u16 = 1;
/// `NLA_F_NESTED`.
pub(super) const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`: what is left of an attribute's kind without its flags.
pub(super) const KIND_MASK: u16 = 0x3fff;

/// Messages (`NFT_MSG_*`).
pub(super) mod message {
    pub(crate) const NEWTABLE: u8 = 0;
    pub(crate) const GETTABLE: u8 = 1;
    pub(crate) const DELTABLE: u8 = 2;
    pub(crate) const NEWCHAIN: u8 = 3;
    pub(crate) const GETCHAIN: u8 = 4;
    pub(crate) const NEWRULE: u8 = 6;
    pub(crate) const GETRULE: u8 = 7;
    pub(crate) const NEWSET: u8 = 9;
    pub(crate) const GETSET: u8 = 10;
    pub(crate) const NEWSETELEM: u8 = 12;
    pub(crate) const GETSETELEM: u8 = 13;
    pub(crate) const DELSETELEM: u8 = 14;
    pub(crate) const NEWGEN: u8 = 15;
    pub(crate) const GETGEN: u8 = 16;
    pub(crate) const NEWOBJ: u8 = 18;
    pub(crate) const GETOBJ: u8 = 19;
}

/// Families (`NFPROTO_*`).
pub(super) mod family {
    pub(crate) const UNSPEC: u8 = 0;
    pub(crate) const INET: u8 = 1;
    pub(crate) const IPV4: u8 = 2;
    pub(crate) const IPV6: u8 = 10;
}

/// Attributes of tables (`NFTA_TABLE_*`) and their flags (`NFT_TABLE_F_*`).
pub(super) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const OWNER: u16 = 7;
    /// `NFT_TABLE_F_OWNER`, since Linux 5.12: nobody but the socket that made it changes it.
    pub(crate) const F_OWNER: u32 = 0x2;
    /// `NFT_TABLE_F_PERSIST`, since Linux 6.9: it stays when that socket is closed.
    pub(crate) const F_PERSIST: u32 = 0x4;
}

/// Attributes of chains (`NFTA_CHAIN_*`) and their hooks (`NFTA_HOOK_*`, `enum nf_inet_hooks`).
pub(super) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
    pub(crate) const HOOK_NUMBER: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
    pub(crate) const PREROUTING: u32 = 0;
    pub(crate) const INPUT: u32 = 1;
    pub(crate) const FORWARD: u32 = 2;
    /// `NF_ACCEPT`.
    pub(crate) const POLICY_ACCEPT: u32 = 1;
}

/// Attributes of rules (`NFTA_RULE_*`).
pub(super) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const EXPRESSIONS: u16 = 4;
    pub(crate) const USERDATA: u16 = 7;
    /// `NFTNL_UDATA_RULE_COMMENT` of libnftnl: a kind byte, a length byte, the text with its NUL.
    pub(crate) const COMMENT: u8 = 0;
}

/// Attributes of sets (`NFTA_SET_*`) and their flags (`NFT_SET_*`).
pub(super) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LEN: u16 = 5;
    pub(crate) const ID: u16 = 10;
    pub(crate) const EXPR: u16 = 17;
    pub(crate) const EXPRESSIONS: u16 = 18;
    pub(crate) const F_INTERVAL: u32 = 0x4;
}

/// Attributes of lists of elements and of elements (`NFTA_SET_ELEM_LIST_*`, `NFTA_SET_ELEM_*`).
pub(super) mod element {
    pub(crate) const LIST_TABLE: u16 = 1;
    pub(crate) const LIST_SET: u16 = 2;
    pub(crate) const LIST_ELEMENTS: u16 = 3;
    /// `NFTA_LIST_ELEM`.
    pub(crate) const ITEM: u16 = 1;
    pub(crate) const KEY: u16 = 1;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const EXPR: u16 = 7;
    pub(crate) const KEY_END: u16 = 10;
    pub(crate) const EXPRESSIONS: u16 = 11;
    /// `NFT_SET_ELEM_INTERVAL_END`: the first key that a range no longer holds.
    pub(crate) const F_INTERVAL_END: u32 = 1;
}

/// Attributes of named objects (`NFTA_OBJ_*`), of counters (`NFTA_COUNTER_*`) and of generations.
pub(super) mod object {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const TYPE: u16 = 3;
    pub(crate) const DATA: u16 = 4;
    /// `NFT_OBJECT_COUNTER`.
    pub(crate) const COUNTER: u32 = 1;
    pub(crate) const COUNTER_BYTES: u16 = 1;
    pub(crate) const COUNTER_PACKETS: u16 = 2;
    /// `NFTA_GEN_ID`.
    pub(crate) const GENERATION: u16 = 1;
}

/// Attributes of expressions, by kind of expression.
pub(super) mod expression {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    /// `NFTA_DATA_VALUE`.
    pub(crate) const VALUE: u16 = 1;
    /// `NFTA_DATA_VERDICT`.
    pub(crate) const VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
    /// `NF_DROP`, `NF_ACCEPT` and `NFT_GOTO`, which is -4.
    pub(crate) const DROP: u32 = 0;
    pub(crate) const ACCEPT: u32 = 1;
    pub(crate) const GOTO: u32 = 4_u32.wrapping_neg();

    pub(crate) const IMMEDIATE_DREG: u16 = 1;
    pub(crate) const IMMEDIATE_DATA: u16 = 2;
    pub(crate) const META_DREG: u16 = 1;
    pub(crate) const META_KEY: u16 = 2;
    pub(crate) const META_IIF: u32 = 4;
    pub(crate) const META_OIF: u32 = 5;
    pub(crate) const META_NFPROTO: u32 = 15;
    pub(crate) const META_L4PROTO: u32 = 16;
    pub(crate) const PAYLOAD_DREG: u16 = 1;
    pub(crate) const PAYLOAD_BASE: u16 = 2;
    pub(crate) const PAYLOAD_OFFSET: u16 = 3;
    pub(crate) const PAYLOAD_LEN: u16 = 4;
    pub(crate) const NETWORK_HEADER: u32 = 1;
    pub(crate) const TRANSPORT_HEADER: u32 = 2;
    pub(crate) const CMP_SREG: u16 = 1;
    pub(crate) const CMP_OP: u16 = 2;
    pub(crate) const CMP_DATA: u16 = 3;
    pub(crate) const CMP_EQ: u32 = 0;
    pub(crate) const CMP_NEQ: u32 = 1;
    pub(crate) const BITWISE_SREG: u16 = 1;
    pub(crate) const BITWISE_DREG: u16 = 2;
    pub(crate) const BITWISE_LEN: u16 = 3;
    pub(crate) const BITWISE_MASK: u16 = 4;
    pub(crate) const BITWISE_XOR: u16 = 5;
    pub(crate) const CT_DREG: u16 = 1;
    pub(crate) const CT_KEY: u16 = 2;
    pub(crate) const CT_STATUS: u32 = 2;
    /// `IPS_DST_NAT` of `nf_conntrack_common.h`.
    pub(crate) const CT_DST_NAT: u32 = 1 << 5;
    pub(crate) const LOOKUP_SET: u16 = 1;
    pub(crate) const LOOKUP_SREG: u16 = 2;
    pub(crate) const OBJREF_TYPE: u16 = 1;
    pub(crate) const OBJREF_NAME: u16 = 2;
    pub(crate) const FIB_DREG: u16 = 1;
    pub(crate) const FIB_RESULT: u16 = 2;
    pub(crate) const FIB_FLAGS: u16 = 3;
    pub(crate) const FIB_OIF: u32 = 1;
    pub(crate) const FIB_TYPE: u32 = 3;
    pub(crate) const FIB_SADDR: u32 = 1;
    pub(crate) const FIB_DADDR: u32 = 2;
    pub(crate) const FIB_IIF: u32 = 8;
    /// Only whether there is a result, not which.
    pub(crate) const FIB_PRESENT: u32 = 32;
    /// `RTN_LOCAL` of `rtnetlink.h`.
    pub(crate) const LOCAL_ADDRESS: u32 = 2;
}
