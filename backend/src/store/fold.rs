//! Text compared as people search: without case and without accents,
//! whatever locale the database has. In the locale C, `lower` leaves É alone.

/// Letters of Latin alphabets, small and capital, and what each is folded to.
const LETTERS: &str = "àáâãäåāăąçćčďđèéêëēėęěğìíîïīįıłñńňòóôõöøōőŕřśšşșťțùúûüūůűųýÿžźż\
                       ÀÁÂÃÄÅĀĂĄÇĆČĎĐÈÉÊËĒĖĘĚĞÌÍÎÏĪĮİŁÑŃŇÒÓÔÕÖØŌŐŔŘŚŠŞȘŤȚÙÚÛÜŪŮŰŲÝŸŽŹŻŒÆ";
const FOLDED: &str = "aaaaaaaaacccddeeeeeeeegiiiiiiilnnnoooooooorrssssttuuuuuuuuyyzzz\
                      aaaaaaaaacccddeeeeeeeegiiiiiiilnnnoooooooorrssssttuuuuuuuuyyzzzœæ";

/// A text in its folded form.
#[must_use]
pub fn fold(text: &str) -> String {
    text.chars()
        .map(|letter| {
            LETTERS
                .chars()
                .zip(FOLDED.chars())
                .find(|(from, _)| *from == letter)
                .map_or(letter.to_ascii_lowercase(), |(_, to)| to)
        })
        .collect()
}

/// The same as SQL, of the expression `text`.
pub(super) fn folded(text: &str) -> String {
    format!(
        "translate(translate({text}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz'), \
         '{LETTERS}', '{FOLDED}')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_letter_has_its_fold() {
        assert_eq!(LETTERS.chars().count(), FOLDED.chars().count());
        for (text, folded) in [
            ("BÂTIMENT Élysée", "batiment elysee"),
            ("Łódź Žižkov Ångström", "lodz zizkov angstrom"),
            ("ŒUVRE 10.0.0.1 日本", "œuvre 10.0.0.1 日本"),
        ] {
            assert_eq!(fold(text), folded);
        }
    }
}
