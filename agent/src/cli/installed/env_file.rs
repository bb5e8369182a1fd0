//! Files of variables in the syntax of systemd's `EnvironmentFile=`
//! (systemd.exec(5)).

/// The variables of a file in their order. A line that is none is left out, as
/// systemd does.
pub(super) fn parse(text: &str) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.find(|c| !c.is_whitespace()) {
        if matches!(first, '#' | ';') {
            comment(&mut rest);
            continue;
        }
        let mut key = first.to_string();
        let ended = rest.by_ref().find(|&c| {
            let ends = matches!(c, '=' | '\n');
            if !ends {
                key.push(c);
            }
            ends
        });
        if ended != Some('=') {
            continue;
        }
        let value = value(&mut rest);
        let key = key.trim_end();
        if is_name(key) {
            variables.push((key.to_owned(), value));
        }
    }
    variables
}

/// Whether it can be a variable's name.
fn is_name(key: &str) -> bool {
    !key.starts_with(|c: char| c.is_ascii_digit())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Goes to the end of a comment, which a backslash carries over a line's end.
fn comment(rest: &mut impl Iterator<Item = char>) {
    while let Some(c) = rest.next() {
        match c {
            '\n' => return,
            '\\' => {
                rest.next();
            }
            _ => {}
        }
    }
}

/// A value to the end of its line: parts in quotes, and parts without.
fn value(rest: &mut impl Iterator<Item = char>) -> String {
    let mut value = String::new();
    // What blanks at the end of a part without quotes are cut to.
    let mut kept = 0;
    let mut bare = false;
    while let Some(c) = rest.next() {
        match c {
            '\n' => break,
            // Quotes count where a part begins.
            '\'' if !bare => {
                value.extend(rest.by_ref().take_while(|&c| c != '\''));
                kept = value.len();
            }
            '"' if !bare => {
                double(rest, &mut value);
                kept = value.len();
            }
            '\\' => {
                if let Some(c) = rest.next().filter(|&c| c != '\n') {
                    value.push(c);
                    kept = value.len();
                    bare = true;
                }
            }
            c if c.is_whitespace() => {
                if bare {
                    value.push(c);
                }
            }
            c => {
                value.push(c);
                kept = value.len();
                bare = true;
            }
        }
    }
    value.truncate(kept);
    value
}

/// A part in double quotes, in which a backslash takes the meaning from some
/// characters only.
fn double(rest: &mut impl Iterator<Item = char>, value: &mut String) {
    while let Some(c) = rest.next() {
        match c {
            '"' => return,
            '\\' => match rest.next() {
                Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                Some('\n') | None => {}
                Some(c) => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_systemd_reads_them() {
        for (text, expected) in [
            ("A=b", &[("A", "b")][..]),
            ("A=b\nC=d\n", &[("A", "b"), ("C", "d")]),
            ("# A=x\n; B=y\n\n  C = d e \t\n", &[("C", "d e")]),
            ("A='x y'\nB=\"x y\"", &[("A", "x y"), ("B", "x y")]),
            ("A=\"a\\\"b\\\\c\\$d\\n\"", &[("A", "a\"b\\c$d\\n")]),
            ("A='a\\b'", &[("A", "a\\b")]),
            ("A=one\\\ntwo", &[("A", "onetwo")]),
            ("A=\"one\\\ntwo\"", &[("A", "onetwo")]),
            ("A='one\ntwo'\nB=3", &[("A", "one\ntwo"), ("B", "3")]),
            ("A='x'\"y\" z", &[("A", "xyz")]),
            ("A=x'y'", &[("A", "x'y'")]),
            ("A=a\\ b\\'", &[("A", "a b'")]),
            ("A=\nB=", &[("A", ""), ("B", "")]),
            ("A=b=c # no comment", &[("A", "b=c # no comment")]),
            ("# goes on \\\nA=b\nB=c", &[("B", "c")]),
            ("no assignment\nA=b", &[("A", "b")]),
            ("1A=b\nA-B=c\n=d", &[]),
            ("A=\"never closed", &[("A", "never closed")]),
            ("A=b\\", &[("A", "b")]),
            ("", &[]),
        ] {
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
