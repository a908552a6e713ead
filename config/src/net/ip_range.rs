//! An address or a CIDR range.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::{InvalidValue, quoted};

/// A range of IPv4 or IPv6 addresses, written as an address or in CIDR notation (RFC 4632,
/// RFC 4291).
///
/// IPv4-mapped IPv6 addresses (`::ffff:10.0.0.1`) are IPv4 addresses here, in ranges and in
/// questions, since a dual-stack socket reports IPv4 peers that way. `::/0` holds no IPv4 address.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct IpRange {
    base: IpAddr,
    prefix: u8,
}

impl IpRange {
    /// The range of one address.
    #[must_use]
    pub fn single(address: IpAddr) -> Self {
        let base = address.to_canonical();
        Self {
            base,
            prefix: width(base),
        }
    }

    /// Reads `10.0.0.1`, `10.0.0.0/8`, `fd00::1` or `fd00::/8`.
    ///
    /// # Errors
    /// If the text is neither, or if bits beyond the prefix are set: `10.0.0.1/8` is more often a
    /// mistake than a range.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| {
            InvalidValue::new(format!("{} is not an address or range", quoted(text)))
                .help("write for example `10.0.0.1`, `10.0.0.0/8` or `fd00::/8`")
        })?;
        let Some(prefix) = prefix else {
            return Ok(Self::single(written));
        };
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let length = prefix
            .parse()
            .ok()
            .filter(|length: &u8| digits && *length <= width(written));
        let Some(length) = length else {
            let most = width(written);
            return Err(InvalidValue::new(format!(
                "{} is not a prefix length from 0 to {most}",
                quoted(prefix)
            )));
        };
        let network = mask(written, length);
        if network != written {
            return Err(InvalidValue::new(format!(
                "{} has address bits set beyond /{length}",
                quoted(text)
            ))
            .help(format!(
                "write `{network}/{length}`, or `{written}` for the one address"
            )));
        }
        // A range of mapped addresses is a range of IPv4 ones; a wider one is not.
        match (network, network.to_canonical(), length.checked_sub(96)) {
            (IpAddr::V6(_), IpAddr::V4(base), Some(prefix)) => Ok(Self {
                base: IpAddr::V4(base),
                prefix,
            }),
            _ => Ok(Self {
                base: network,
                prefix: length,
            }),
        }
    }

    /// First address of the range.
    #[must_use]
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// Length of the prefix in bits: 0 to 32 or 0 to 128.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The address, if the range holds exactly one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        (self.prefix == width(self.base)).then_some(self.base)
    }

    /// Whether an address lies in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.base.is_ipv4() && mask(address, self.prefix) == self.base
    }

    /// Whether two ranges share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.prefix <= other.prefix {
            self.contains(other.base)
        } else {
            other.contains(self.base)
        }
    }
}

impl FromStr for IpRange {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text)
    }
}

impl TryFrom<String> for IpRange {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        Self::parse(&text)
    }
}

impl From<IpRange> for String {
    fn from(range: IpRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => write!(f, "{address}"),
            None => write!(f, "{}/{}", self.base, self.prefix),
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let kept = u32::MAX
                .checked_shl(32_u32.saturating_sub(prefix))
                .unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & kept))
        }
        IpAddr::V6(address) => {
            let kept = u128::MAX
                .checked_shl(128_u32.saturating_sub(prefix))
                .unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & kept))
        }
    }
}
