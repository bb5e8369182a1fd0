//! One sort for lists of every type.
//!
//! The standard library's is compiled anew for each type and each order, at
//! 4 to 5 KB; the agent is to be small. This one is compiled once. Likewise a
//! `BTreeMap` that is collected sorts first, and one that is extended does not:
//! `map.extend(entries)` is the smaller where it is not many.

use std::cmp::Ordering;

/// Sorts as [`slice::sort_by`] does: what is equal stays in its order.
pub fn sort_by<T>(list: &mut Vec<T>, order: impl Fn(&T, &T) -> Ordering) {
    let places = sorted(list.len(), &|a, b| order(&list[a], &list[b]));
    let mut old: Vec<Option<T>> = std::mem::take(list).into_iter().map(Some).collect();
    list.extend(places.into_iter().filter_map(|place| old[place].take()));
}

/// The places `0..length` in the order of what stands there.
fn sorted(length: usize, order: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..length).collect();
    places.sort_by(|a, b| order(*a, *b));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_equals_keep_their_order() {
        let mut empty: Vec<String> = Vec::new();
        sort_by(&mut empty, Ord::cmp);
        assert!(empty.is_empty());
        // Long enough for more than the sort of a few.
        let mut ours: Vec<(u32, u32)> = (0..1000u32).map(|n| (n * 7919 % 10, n)).collect();
        let mut theirs = ours.clone();
        sort_by(&mut ours, |a, b| b.0.cmp(&a.0));
        theirs.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
        assert_eq!(ours, theirs);
    }
}
