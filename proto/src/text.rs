//! Foreign text (device answers, names, file contents) made safe to show.

/// `text` on one line: controls, line and paragraph separators and the marks
/// that change the direction of writing become U+FFFD, so that no name can
/// forge a log line or reorder a page.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if is_unsafe(c) { '\u{fffd}' } else { c })
        .collect()
}

/// [`one_line`] cut to at most `max` characters, the last an ellipsis where
/// something was cut.
#[must_use]
pub fn excerpt(text: &str, max: usize) -> String {
    let clean = one_line(text);
    if clean.chars().count() <= max {
        return clean;
    }
    let mut cut: String = clean.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_marks_are_replaced_and_letters_kept() {
        assert_eq!(one_line("Salle é 😀"), "Salle é 😀");
        assert_eq!(
            one_line("a\nb\u{1b}[31m\u{202e}c\u{0}"),
            "a\u{fffd}b\u{fffd}[31m\u{fffd}c\u{fffd}"
        );
    }

    #[test]
    fn an_excerpt_counts_characters() {
        assert_eq!(excerpt("éééé", 4), "éééé");
        assert_eq!(excerpt("ééééé", 4), "ééé…");
        assert_eq!(excerpt("abc", 0), "…");
    }
}
