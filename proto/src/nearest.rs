//! The known word that a misspelt one was meant to be.

/// The one of `names` that is nearest to `word`, where it may be a slip of the
/// finger: a third of the letters differ at most, or one word begins with the
/// other (`pass` for `password`). Capitals count as small letters.
pub fn nearest<T: AsRef<str>>(word: &str, names: impl IntoIterator<Item = T>) -> Option<T> {
    let word = word.to_lowercase();
    let rated = names.into_iter().filter_map(|name| {
        let known = name.as_ref().to_lowercase();
        rate(&word, &known).map(|rank| ((rank, known), name))
    });
    rated
        .min_by(|(one, _), (other, _)| one.cmp(other))
        .map(|(_, name)| name)
}

/// Whether `word` is `known` but for a slip of the finger.
#[must_use]
pub fn is_slip(word: &str, known: &str) -> bool {
    distance(&word.to_lowercase(), &known.to_lowercase()) * 3 <= known.chars().count()
}

/// The shortest word that may be the beginning of a longer one.
const STEM_MIN: usize = 4;

/// How far apart two words are, where they are near enough.
fn rate(word: &str, known: &str) -> Option<usize> {
    let slips = distance(word, known);
    if slips * 3 <= known.chars().count() {
        return Some(slips);
    }
    let is_stem = |short: &str, long: &str| short.len() >= STEM_MIN && long.starts_with(short);
    // After every slip of the finger.
    (is_stem(word, known) || is_stem(known, word)).then_some(known.len() + slips)
}

/// How many letters must be put in, left out, changed or swapped with their
/// neighbour to get from one word to the other (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    let mut last = None;
    for (index, letter) in from.chars().enumerate() {
        let mut next = vec![index + 1];
        for (at, &other) in to.iter().enumerate() {
            let changed = row[at] + usize::from(letter != other);
            let mut least = changed.min(row[at + 1] + 1).min(next[at] + 1);
            if at > 0 && last == Some(other) && to[at - 1] == letter {
                least = least.min(before[at - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(letter);
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_left_out_doubled_changed_and_swapped_are_counted() {
        for (from, to, slips) in [
            ("", "", 0),
            ("", "ab", 2),
            ("port", "port", 0),
            ("prot", "port", 1),
            ("pasword", "password", 1),
            ("allways_on", "always_on", 1),
            ("kitten", "sitting", 3),
            ("éa", "aé", 1),
            ("ca", "abc", 3),
        ] {
            assert_eq!(distance(from, to), slips, "{from} {to}");
            assert_eq!(distance(to, from), slips, "{to} {from}");
        }
    }

    #[test]
    fn a_slip_is_told_from_another_word() {
        assert!(is_slip("Pasword", "password") && is_slip("comunnity", "community"));
        assert!(!is_slip("pass", "password") && !is_slip("auth_protocol", "auth_password"));
    }

    #[test]
    fn the_nearest_is_one_that_may_have_been_meant() {
        let names = ["password", "port", "timeout_s", "passphrase", "retries"];
        for (word, meant) in [
            ("pasword", Some("password")),
            ("Password", Some("password")),
            ("prot", Some("port")),
            ("timeout", Some("timeout_s")),
            ("pass", Some("password")),
            ("ports_of_it", Some("port")),
            ("pot", Some("port")),
            ("po", None),
            ("community", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), meant, "{word}");
        }
        assert_eq!(nearest("port", Vec::<String>::new()), None);
    }
}
