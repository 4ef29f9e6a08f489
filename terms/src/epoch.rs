//! Epochs: who leads, counted.

use crate::{Malformed, TimelineId};
use std::{fmt, str::FromStr};

/// The random name of one change of the term, 13 characters of base32 (65 bits).
///
/// Ids, not numbers, tell one change from another: an API server restored from a backup repeats numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(String);

pub(crate) const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

pub(crate) fn base32(random: u128, characters: usize) -> String {
    (0..characters).map(|i| char::from(BASE32[(random >> (5 * i)) as usize & 31])).collect()
}

pub(crate) fn is_base32(s: &str, characters: usize) -> bool {
    s.len() == characters && s.bytes().all(|b| BASE32.contains(&b))
}

impl ChangeId {
    /// Characters in an id.
    pub const LENGTH: usize = 13;

    /// Makes an id out of random bits (the lowest 65 are used).
    pub fn from_random(bits: u128) -> Self {
        Self(base32(bits, Self::LENGTH))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first four characters, as they stand in a [`crate::Tag`].
    pub fn short(&self) -> &str {
        &self.0[..4]
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ChangeId {
    type Err = Malformed;

    fn from_str(s: &str) -> Result<Self, Malformed> {
        if is_base32(s, Self::LENGTH) {
            Ok(Self(s.to_owned()))
        } else {
            Err(Malformed::new("a change id is 13 characters of a-z and 2-7", s))
        }
    }
}

/// One reign: its number, and the random id of the Open that began it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Counts up by one; the timeline id of the WAL that its leader writes. 0 = no epoch yet.
    pub number: u32,
    /// The id of its Open.
    pub id: ChangeId,
}

impl Epoch {
    /// The timeline that this epoch's leader writes.
    pub fn timeline(&self) -> TimelineId {
        TimelineId(self.number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.id)
    }
}

impl FromStr for Epoch {
    type Err = Malformed;

    fn from_str(s: &str) -> Result<Self, Malformed> {
        let bad = || Malformed::new("an epoch is a number, a dot and a change id", s);
        let (number, id) = s.split_once('.').ok_or_else(bad)?;
        Ok(Self { number: number.parse().map_err(|_| bad())?, id: id.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_use_every_bit_they_are_given() {
        assert_eq!(ChangeId::from_random(0).as_str(), "aaaaaaaaaaaaa");
        assert_eq!(ChangeId::from_random(u128::MAX).as_str(), "7777777777777");
        assert_ne!(ChangeId::from_random(1 << 64), ChangeId::from_random(0));
    }

    #[test]
    fn epoch_reads_what_it_writes() {
        let e = Epoch { number: 7, id: ChangeId::from_random(123_456_789) };
        assert_eq!(e.to_string().parse::<Epoch>().unwrap(), e);
        for s in ["", "7", "7.", "x.aaaaaaaaaaaaa", "7.AAAAAAAAAAAAA", "-1.aaaaaaaaaaaaa"] {
            assert!(s.parse::<Epoch>().is_err(), "{s:?}");
        }
    }
}
