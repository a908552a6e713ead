//! Rules as the kernel's expressions: small programs over registers, the same ones that the `nft`
//! program makes of the same words, so that its listings read well.

use std::net::IpAddr;

use config::net::IpRange;

use super::attributes::Writer;
use super::uapi::{element, expression as nft, family, object};
use crate::ruleset::{Field, Match, Rule, Verdict};

/// The first register, of 16 bytes (`NFT_REG_1`). Register 0 holds the verdict.
const FIRST: u32 = 1;

/// Writes the expressions of a rule as items of a list.
pub(super) fn write(writer: &mut Writer, rule: &Rule) {
    let mut program = Program {
        writer,
        family: None,
    };
    for condition in &rule.matches {
        program.condition(condition);
    }
    if let Some(counter) = rule.counter {
        program.push("objref", |data| {
            data.number(nft::OBJREF_TYPE, object::COUNTER);
            data.text(nft::OBJREF_NAME, counter);
        });
    }
    if let Some(verdict) = rule.verdict {
        program.verdict(verdict);
    }
}

struct Program<'a> {
    writer: &'a mut Writer,
    /// The family that the packet is known to have from here on.
    family: Option<u8>,
}

impl Program<'_> {
    fn push(&mut self, name: &str, fill: impl FnOnce(&mut Writer)) {
        self.writer.nest(element::ITEM, |item| {
            item.text(nft::NAME, name);
            item.nest(nft::DATA, fill);
        });
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::LoopbackDevice => {
                self.meta(nft::META_IIF, FIRST);
                self.equals(&1_u32.to_ne_bytes());
            }
            Match::DestinationIn(range) => self.destination_in(range),
            Match::InSet { fields, set } => self.in_set(fields, set),
            Match::DestinationIsLocal => {
                self.fib(nft::FIB_TYPE, nft::FIB_DADDR);
                self.equals(&nft::LOCAL_ADDRESS.to_ne_bytes());
            }
            Match::Forwarded => {
                self.meta(nft::META_OIF, FIRST);
                self.differs(&0_u32.to_ne_bytes());
            }
            Match::DestinationChanged => {
                self.push("ct", |data| {
                    data.number(nft::CT_DREG, FIRST);
                    data.number(nft::CT_KEY, nft::CT_STATUS);
                });
                self.mask(&nft::CT_DST_NAT.to_ne_bytes());
                self.differs(&0_u32.to_ne_bytes());
            }
            Match::ReversePathMissing => {
                self.fib(
                    nft::FIB_OIF,
                    nft::FIB_SADDR | nft::FIB_IIF | nft::FIB_PRESENT,
                );
                self.equals(&0_u32.to_ne_bytes());
            }
        }
    }

    /// Bytes of a network header mean an address only once the family is known.
    fn require(&mut self, family: u8) {
        if self.family != Some(family) {
            self.meta(nft::META_NFPROTO, FIRST);
            self.equals(&[family]);
            self.family = Some(family);
        }
    }

    fn destination_in(&mut self, range: &IpRange) {
        let (field, address, mask) = match range.base() {
            IpAddr::V4(base) => {
                let mask = ones(range.prefix(), 32).to_be_bytes();
                (
                    Field::DestinationV4,
                    base.octets().to_vec(),
                    mask[12..].to_vec(),
                )
            }
            IpAddr::V6(base) => {
                let mask = ones(range.prefix(), 128).to_be_bytes();
                (Field::DestinationV6, base.octets().to_vec(), mask.to_vec())
            }
        };
        let place = place(field);
        if let Some(family) = place.family {
            self.require(family);
        }
        let whole = usize::from(range.prefix() / 8);
        if range.prefix().is_multiple_of(8) && whole > 0 {
            self.load(
                &Place {
                    len: range.prefix() / 8,
                    ..place
                },
                FIRST,
            );
            self.equals(&address[..whole]);
        } else {
            self.load(&place, FIRST);
            self.mask(&mask);
            self.equals(&address);
        }
    }

    fn in_set(&mut self, fields: &[Field], set: &str) {
        let places: Vec<Place> = fields.iter().map(|field| place(*field)).collect();
        for family in places.iter().filter_map(|place| place.family) {
            self.require(family);
        }
        let mut words = 0;
        for place in &places {
            self.load(place, register(words));
            words += u32::from(place.len).div_ceil(4);
        }
        self.push("lookup", |data| {
            data.text(nft::LOOKUP_SET, set);
            data.number(nft::LOOKUP_SREG, FIRST);
        });
    }

    fn load(&mut self, place: &Place, register: u32) {
        match place.source {
            Source::Meta(key) => self.meta(key, register),
            Source::Header(base, offset) => self.push("payload", |data| {
                data.number(nft::PAYLOAD_DREG, register);
                data.number(nft::PAYLOAD_BASE, base);
                data.number(nft::PAYLOAD_OFFSET, offset);
                data.number(nft::PAYLOAD_LEN, u32::from(place.len));
            }),
        }
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.push("meta", |data| {
            data.number(nft::META_DREG, register);
            data.number(nft::META_KEY, key);
        });
    }

    /// Leaves the masked bits of the first register and clears the others.
    fn mask(&mut self, mask: &[u8]) {
        self.push("bitwise", |data| {
            data.number(nft::BITWISE_SREG, FIRST);
            data.number(nft::BITWISE_DREG, FIRST);
            let len = u32::try_from(mask.len()).expect("a register has 16 bytes");
            data.number(nft::BITWISE_LEN, len);
            data.nest(nft::BITWISE_MASK, |inner| inner.raw(nft::VALUE, mask));
            data.nest(nft::BITWISE_XOR, |xor| {
                xor.raw(nft::VALUE, &vec![0; mask.len()]);
            });
        });
    }

    fn equals(&mut self, value: &[u8]) {
        self.compare(nft::CMP_EQ, value);
    }

    fn differs(&mut self, value: &[u8]) {
        self.compare(nft::CMP_NEQ, value);
    }

    fn compare(&mut self, operator: u32, value: &[u8]) {
        self.push("cmp", |data| {
            data.number(nft::CMP_SREG, FIRST);
            data.number(nft::CMP_OP, operator);
            data.nest(nft::CMP_DATA, |inner| inner.raw(nft::VALUE, value));
        });
    }

    fn fib(&mut self, result: u32, flags: u32) {
        self.push("fib", |data| {
            data.number(nft::FIB_DREG, FIRST);
            data.number(nft::FIB_RESULT, result);
            data.number(nft::FIB_FLAGS, flags);
        });
    }

    fn verdict(&mut self, verdict: Verdict) {
        self.push("immediate", |data| {
            data.number(nft::IMMEDIATE_DREG, 0);
            data.nest(nft::IMMEDIATE_DATA, |inner| {
                inner.nest(nft::VERDICT, |words| match verdict {
                    Verdict::Accept => words.number(nft::VERDICT_CODE, nft::ACCEPT),
                    Verdict::Drop => words.number(nft::VERDICT_CODE, nft::DROP),
                    Verdict::Goto(chain) => {
                        words.number(nft::VERDICT_CODE, nft::GOTO);
                        words.text(nft::VERDICT_CHAIN, chain);
                    }
                });
            });
        });
    }
}

/// Where a field is found.
#[derive(Clone, Copy)]
struct Place {
    source: Source,
    /// Bytes.
    len: u8,
    /// The family without which it is not there.
    family: Option<u8>,
}

#[derive(Clone, Copy)]
enum Source {
    Meta(u32),
    Header(u32, u32),
}

fn place(field: Field) -> Place {
    let network = |offset| Source::Header(nft::NETWORK_HEADER, offset);
    let (source, len, family) = match field {
        Field::SourceV4 => (network(12), 4, Some(family::IPV4)),
        Field::DestinationV4 => (network(16), 4, Some(family::IPV4)),
        Field::SourceV6 => (network(8), 16, Some(family::IPV6)),
        Field::DestinationV6 => (network(24), 16, Some(family::IPV6)),
        Field::Family => (Source::Meta(nft::META_NFPROTO), 1, None),
        Field::Protocol => (Source::Meta(nft::META_L4PROTO), 1, None),
        Field::DestinationPort => (Source::Header(nft::TRANSPORT_HEADER, 2), 2, None),
    };
    Place {
        source,
        len,
        family,
    }
}

/// The register that begins that many words of four bytes after the first. Those at multiples of
/// 16 bytes have two numbers, of which the kernel and `nft` use the older (`NFT_REG_1` ..., and
/// else `NFT_REG32_00` ...).
fn register(words: u32) -> u32 {
    if words.is_multiple_of(4) {
        FIRST + words / 4
    } else {
        8 + words
    }
}

/// As many ones as the prefix says, at the upper end of the lower `width` bits.
fn ones(prefix: u8, width: u8) -> u128 {
    let zeros = u32::from(width.saturating_sub(prefix));
    let all = u128::MAX
        .checked_shr(u32::from(128 - width))
        .unwrap_or(u128::MAX);
    u128::MAX.checked_shl(zeros).unwrap_or(0) & all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(matches: Vec<Match>, verdict: Option<Verdict>) -> Vec<u8> {
        let mut writer = Writer::default();
        let rule = Rule {
            name: "rule",
            matches,
            counter: None,
            verdict,
        };
        write(&mut writer, &rule);
        writer.bytes
    }

    /// Names of the expressions, in order.
    fn names(bytes: &[u8]) -> Vec<String> {
        super::super::attributes::Attributes::new(bytes)
            .map(|item| item.unwrap().nested().next().unwrap().unwrap().text())
            .collect()
    }

    #[test]
    fn the_loopback_device_is_the_one_with_index_1() {
        #[rustfmt::skip]
        let expected = [
            36, 0, 1, 0x80, 9, 0, 1, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0,
            20, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 4,
            44, 0, 1, 0x80, 8, 0, 1, 0, b'c', b'm', b'p', 0,
            32, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0,
            12, 0, 3, 0x80, 8, 0, 1, 0, 1, 0, 0, 0,
            48, 0, 1, 0x80, 14, 0, 1, 0, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0,
            0, 0, 28, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0,
            16, 0, 2, 0x80, 12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1,
        ];
        assert_eq!(
            bytes(vec![Match::LoopbackDevice], Some(Verdict::Accept)),
            expected
        );
    }

    #[test]
    fn the_family_is_asked_for_once_and_before_the_address() {
        let range = IpRange::parse("127.0.0.0/8").unwrap();
        let set = |fields: &[Field]| Match::InSet {
            fields: fields.to_vec(),
            set: "set",
        };
        let program = bytes(
            vec![
                set(&[Field::Protocol, Field::DestinationPort]),
                Match::DestinationIn(range),
                set(&[Field::SourceV4]),
            ],
            None,
        );
        let expected = [
            "meta", "payload", "lookup", "meta", "cmp", "payload", "cmp", "payload", "lookup",
        ];
        assert_eq!(names(&program), expected);
    }

    #[test]
    fn ranges_of_whole_bytes_need_no_mask() {
        for (range, masked) in [
            ("127.0.0.0/8", false),
            ("127.0.0.1", false),
            ("0.0.0.0/0", true),
            ("10.0.0.0/9", true),
            ("fd00::/64", false),
            ("fe80::/10", true),
        ] {
            let range = IpRange::parse(range).unwrap();
            let program = bytes(vec![Match::DestinationIn(range)], None);
            let has_mask = names(&program).contains(&"bitwise".to_owned());
            assert_eq!(has_mask, masked, "{range}");
        }
    }

    #[test]
    fn registers_have_the_number_that_listings_show() {
        let numbers: Vec<u32> = (0..7).map(register).collect();
        assert_eq!(numbers, [1, 9, 10, 11, 2, 13, 14]);
    }

    #[test]
    fn masks_have_their_ones_at_the_top() {
        assert_eq!(ones(0, 32), 0);
        assert_eq!(ones(9, 32), 0xff80_0000);
        assert_eq!(ones(32, 32), 0xffff_ffff);
        assert_eq!(ones(0, 128), 0);
        assert_eq!(ones(10, 128), 0xffc0_u128 << 112);
        assert_eq!(ones(128, 128), u128::MAX);
    }
}
