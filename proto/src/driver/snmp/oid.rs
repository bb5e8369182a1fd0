//! Object identifiers.

use std::fmt;
use std::str::FromStr;

/// As many numbers as one can have (RFC 2578, 3.5).
const ARCS_MAX: usize = 128;

/// An object identifier (RFC 2578, 3.5): 2 to 128 numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(Box<[u32]>);

impl Oid {
    /// Checks that the numbers are an identifier's: 2 to 128 of them, of which
    /// the first is 0 to 2, and the second below 40 where the first is not 2
    /// (X.690, 8.19.4).
    #[must_use]
    pub fn new(arcs: &[u32]) -> Option<Self> {
        match arcs {
            [0 | 1, 0..=39, ..] | [2, 0..=0xffff_ffaf, ..] if arcs.len() <= ARCS_MAX => {
                Some(Self(arcs.into()))
            }
            _ => None,
        }
    }

    /// Its numbers.
    #[must_use]
    pub fn arcs(&self) -> &[u32] {
        &self.0
    }

    /// What follows `self` in an identifier below it: the index of a table's
    /// row where `self` is a column. `None` where it is not below `self`.
    #[must_use]
    pub fn index_of<'a>(&self, below: &'a Self) -> Option<&'a [u32]> {
        below
            .0
            .strip_prefix(&*self.0)
            .filter(|index| !index.is_empty())
    }

    /// `self` followed by `index`; `None` where that is too long.
    #[must_use]
    pub fn child(&self, index: &[u32]) -> Option<Self> {
        Self::new(&[&*self.0, index].concat())
    }
}

impl FromStr for Oid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const PROBLEM: &str = "is not an object identifier such as 1.3.6.1.2.1.1.5.0";
        let text = text.strip_prefix('.').unwrap_or(text);
        let arcs: Vec<u32> = text
            .split('.')
            // `parse` takes a plus sign.
            .filter(|arc| arc.bytes().all(|byte| byte.is_ascii_digit()))
            .map_while(|arc| arc.parse().ok())
            .collect();
        if arcs.len() != text.split('.').count() {
            return Err(PROBLEM);
        }
        Self::new(&arcs).ok_or(PROBLEM)
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, arc) in self.0.iter().enumerate() {
            write!(f, "{}{arc}", if i == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Oid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_read() {
        for text in ["1.3.6.1.2.1.1.5.0", "0.0", "2.999.4294967295"] {
            assert_eq!(text.parse::<Oid>().unwrap().to_string(), text);
        }
        assert_eq!(".1.3.6".parse::<Oid>().unwrap().to_string(), "1.3.6");
        let long = ["1.3", &".1".repeat(127)].concat();
        for text in [
            "",
            "1",
            "1.",
            ".",
            "1..3",
            "1.3.x",
            "1.+3",
            "1.3.-1",
            "3.1",
            "1.40",
            "1.3.4294967296",
            "sysDescr.0",
            "1.3.*",
            &long,
        ] {
            assert!(text.parse::<Oid>().is_err(), "{text}");
        }
    }

    #[test]
    fn rows_of_a_column() {
        let oid = |text: &str| text.parse::<Oid>().unwrap();
        let column = oid("1.3.6.1.2.1.2.2.1.2");
        assert_eq!(
            column.index_of(&oid("1.3.6.1.2.1.2.2.1.2.7.1")),
            Some(&[7, 1][..])
        );
        assert_eq!(column.index_of(&column), None);
        assert_eq!(column.index_of(&oid("1.3.6.1.2.1.2.2.1.20.7")), None);
        assert_eq!(column.child(&[7, 1]), Some(oid("1.3.6.1.2.1.2.2.1.2.7.1")));
        assert_eq!(column.child(&[1; 128]), None);
    }
}
