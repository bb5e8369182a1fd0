//! The order of places: floor 2 before floor 10.

use std::cmp::Ordering;

/// Compares two texts as a person sorts them: runs of digits by their value.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (l, r) = (digits(left), digits(right));
        if l > 0 && r > 0 {
            let (x, y) = (
                left[..l].trim_start_matches('0'),
                right[..r].trim_start_matches('0'),
            );
            let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
            if order != Ordering::Equal {
                return order;
            }
            (left, right) = (&left[l..], &right[r..]);
            continue;
        }
        let (mut x, mut y) = (left.chars(), right.chars());
        match (x.next(), y.next()) {
            // Equal by value: "01" and "1" still need an order.
            (None, None) => return a.cmp(b),
            (x, y) if x != y => return x.cmp(&y),
            _ => (left, right) = (x.as_str(), y.as_str()),
        }
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_sort_by_value() {
        let mut places = vec![
            "10", "Salle 9", "2", "Salle 10", "", "Salle 1b", "Salle 1", "02",
        ];
        places.sort_by(|a, b| natural(a, b));
        assert_eq!(
            places,
            [
                "", "02", "2", "10", "Salle 1", "Salle 1b", "Salle 9", "Salle 10"
            ]
        );
    }
}
