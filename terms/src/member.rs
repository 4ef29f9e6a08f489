//! Members: a pod's name is not enough to know which data is meant.

use crate::Malformed;
use crate::epoch::{Epoch, base32, is_base32};
use std::{fmt, str::FromStr};

/// The name of a member and of its pod: the set's name, a dash, an ordinal from 1 up (`orders-2`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberName {
    set: String,
    ordinal: u32,
}

impl MemberName {
    /// The longest set name whose members, volumes and tags all fit PostgreSQL's and Kubernetes' limits.
    pub const SET_LIMIT: usize = 40;

    /// The member of `set` with this ordinal.
    pub fn new(set: &str, ordinal: u32) -> Self {
        Self { set: set.to_owned(), ordinal }
    }

    /// The replica set's name.
    pub fn set(&self) -> &str {
        &self.set
    }

    /// The member's number within its set, from 1 up.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.set, self.ordinal)
    }
}

impl FromStr for MemberName {
    type Err = Malformed;

    fn from_str(s: &str) -> Result<Self, Malformed> {
        let bad = || Malformed::new("a member's name is the set's name, a dash and a number from 1 to 999", s);
        let (set, ordinal) = s.rsplit_once('-').ok_or_else(bad)?;
        let name = Self { set: set.to_owned(), ordinal: ordinal.parse().map_err(|_| bad())? };
        // Rejects what would not be written back the same: "-01", "-+1".
        if set.is_empty() || !(1..=999).contains(&name.ordinal) || name.to_string() != s {
            return Err(bad());
        }
        Ok(name)
    }
}

/// The random name of one data directory, 10 characters of base32, made together with it.
///
/// A member that lost its disk has another incarnation, so what the old one acknowledged is never taken for its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(String);

impl Incarnation {
    /// Characters in an incarnation.
    pub const LENGTH: usize = 10;

    /// Makes an incarnation out of random bits (the lowest 50 are used).
    pub fn from_random(bits: u128) -> Self {
        Self(base32(bits, Self::LENGTH))
    }

    /// The incarnation as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Incarnation {
    type Err = Malformed;

    fn from_str(s: &str) -> Result<Self, Malformed> {
        if is_base32(s, Self::LENGTH) {
            Ok(Self(s.to_owned()))
        } else {
            Err(Malformed::new("an incarnation is 10 characters of a-z and 2-7", s))
        }
    }
}

/// A member with the data it holds: name and incarnation. Two incarnations of one name are two members.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// The pod's name.
    pub name: MemberName,
    /// The data directory's name.
    pub incarnation: Incarnation,
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.incarnation)
    }
}

impl FromStr for MemberId {
    type Err = Malformed;

    fn from_str(s: &str) -> Result<Self, Malformed> {
        let (name, incarnation) =
            s.split_once('/').ok_or_else(|| Malformed::new("a member id is a name, a slash and an incarnation", s))?;
        Ok(Self { name: name.parse()?, incarnation: incarnation.parse()? })
    }
}

/// The name under which a follower streams in one epoch: its `application_name`, and its entry in
/// `synchronous_standby_names`. `m<ordinal>.<incarnation>.e<number>.<4 of the epoch's id>`, 35 bytes at most.
///
/// Only a follower that promised this epoch, with this data, can count for this epoch's quorum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag of `member` in `epoch`.
    pub fn new(member: &MemberId, epoch: &Epoch) -> Self {
        Self(format!("m{}.{}.e{}.{}", member.name.ordinal(), member.incarnation, epoch.number, epoch.id.short()))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The replication slot of this tag: the same with underscores, as slot names want it.
    pub fn slot(&self) -> String {
        self.0.replace('.', "_")
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// PostgreSQL's system identifier: the name of one `initdb`, shared by everything that descends from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SystemId {
    type Err = Malformed;

    fn from_str(s: &str) -> Result<Self, Malformed> {
        s.parse().map(Self).map_err(|_| Malformed::new("a system identifier is a decimal number", s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChangeId;

    #[test]
    fn member_names_read_back_or_are_refused() {
        for s in ["a-1", "orders-12", "a-b-3", "a-999"] {
            assert_eq!(s.parse::<MemberName>().unwrap().to_string(), s);
        }
        for s in ["", "a", "-1", "a-0", "a-01", "a-+1", "a-1000", "a-", "a-x", "a--"] {
            assert!(s.parse::<MemberName>().is_err(), "{s:?}");
        }
    }

    #[test]
    fn the_longest_tag_and_slot_fit_a_postgresql_name() {
        let member = MemberId {
            name: MemberName::new(&"s".repeat(MemberName::SET_LIMIT), 999),
            incarnation: Incarnation::from_random(u128::MAX),
        };
        let tag = Tag::new(&member, &Epoch { number: u32::MAX, id: ChangeId::from_random(0) });
        assert_eq!(tag.as_str(), "m999.7777777777.e4294967295.aaaa");
        assert!(tag.as_str().len() <= 63 && tag.slot().len() <= 63);
        assert_eq!(tag.slot(), "m999_7777777777_e4294967295_aaaa");
    }
}
