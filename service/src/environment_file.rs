//! The file of a unit's variables, read as systemd reads it since version 254:
//! systemd.exec(5), `EnvironmentFile=`.

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Assignments {
    /// Names and values, in their order; a name may come twice, and the last
    /// one counts.
    pub variables: Vec<(String, String)>,
    /// The numbers of the lines whose name is none.
    pub ignored: Vec<usize>,
}

/// Where the reader is.
#[derive(Clone, Copy)]
enum At {
    /// Before a name.
    Line,
    Comment,
    Name,
    /// After the sign, or after what was quoted.
    BeforeValue,
    Value,
    Single,
    Double,
}

/// Reads `NAME=value` lines. A line that begins with `#` or `;` is a comment.
/// Spaces around name and value do not count. A value may be quoted, in part
/// too, and goes on over lines then; a backslash takes the next character as it
/// is, or joins the next line.
pub fn parse(text: &str) -> Assignments {
    let mut found = Assignments::default();
    let (mut name, mut value) = (String::new(), Value::default());
    let mut at = At::Line;
    let (mut line, mut began) = (1, 1);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let ends = matches!(letter, '\n' | '\r');
        line += usize::from(letter == '\n');
        at = match at {
            At::Line if matches!(letter, '#' | ';') => At::Comment,
            At::Line if letter.is_ascii_whitespace() => At::Line,
            At::Line => {
                began = line;
                name.push(letter);
                At::Name
            }
            At::Comment if ends => At::Line,
            At::Comment => At::Comment,
            // A line without the sign says nothing.
            At::Name if ends => {
                found.ignored.push(began);
                name.clear();
                At::Line
            }
            At::Name if letter == '=' => At::BeforeValue,
            At::Name => {
                name.push(letter);
                At::Name
            }
            At::BeforeValue | At::Value if ends => {
                found.take(began, &mut name, &mut value);
                At::Line
            }
            At::BeforeValue if letter == '\'' => At::Single,
            At::BeforeValue if letter == '"' => At::Double,
            At::BeforeValue if letter.is_ascii_whitespace() => At::BeforeValue,
            At::BeforeValue | At::Value if letter == '\\' => {
                match letters.next() {
                    Some('\n') => line += 1,
                    Some('\r') | None => {}
                    Some(escaped) => value.push_kept(escaped),
                }
                At::Value
            }
            At::BeforeValue | At::Value => {
                value.push(letter);
                At::Value
            }
            At::Single if letter == '\'' => At::BeforeValue,
            At::Single => {
                value.push_kept(letter);
                At::Single
            }
            At::Double if letter == '"' => At::BeforeValue,
            At::Double if letter == '\\' => {
                match letters.next() {
                    Some('\n') => line += 1,
                    Some(escaped) if "\"\\`$".contains(escaped) => value.push_kept(escaped),
                    Some(other) => {
                        value.push_kept('\\');
                        value.push_kept(other);
                    }
                    None => {}
                }
                At::Double
            }
            At::Double => {
                value.push_kept(letter);
                At::Double
            }
        };
    }
    match at {
        At::Line | At::Comment => {}
        At::Name => found.ignored.push(began),
        At::BeforeValue | At::Value | At::Single | At::Double => {
            found.take(began, &mut name, &mut value);
        }
    }
    found
}

/// A value while it is read: spaces at its end do not count where they are
/// neither quoted nor escaped.
#[derive(Default)]
struct Value {
    text: String,
    /// The number of bytes at the beginning that are never cut.
    kept: usize,
}

impl Value {
    fn push(&mut self, letter: char) {
        self.text.push(letter);
    }

    fn push_kept(&mut self, letter: char) {
        self.text.push(letter);
        self.kept = self.text.len();
    }
}

impl Assignments {
    fn take(&mut self, line: usize, name: &mut String, value: &mut Value) {
        let Value { mut text, kept } = std::mem::take(value);
        let trimmed = text.trim_end_matches(|letter: char| letter.is_ascii_whitespace());
        text.truncate(trimmed.len().max(kept));
        let name = std::mem::take(name);
        let name = name.trim_end();
        let is_name = name
            .bytes()
            .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
            && name
                .bytes()
                .next()
                .is_some_and(|byte| !byte.is_ascii_digit());
        if is_name && !text.contains('\0') {
            self.variables.push((name.to_owned(), text));
        } else {
            self.ignored.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Option<String> {
        let mut found = parse(text).variables;
        assert!(found.len() <= 1, "{found:?}");
        found.pop().map(|(name, value)| format!("{name}|{value}"))
    }

    #[test]
    fn values_are_read_as_systemd_reads_them() {
        for (text, wanted) in [
            ("A=b", "A|b"),
            ("A=b\n", "A|b"),
            ("A=b\r\n", "A|b"),
            ("  A =  b c  \n", "A|b c"),
            ("A=\n", "A|"),
            ("A=\"\"", "A|"),
            (
                "DATABASE_URL=\"host=/run/postgresql user=av-backend dbname=av\"\n",
                "DATABASE_URL|host=/run/postgresql user=av-backend dbname=av",
            ),
            ("A='b \"c\" $d\\e'", "A|b \"c\" $d\\e"),
            (r#"A="b \"c\" \$d \\ \e""#, r#"A|b "c" $d \ \e"#),
            ("A=\"b\nc\"", "A|b\nc"),
            ("A=\"b\\\nc\"", "A|bc"),
            ("A=b\\\nc", "A|bc"),
            (r"A=b\ ", "A|b "),
            (r"A=\#b\\", r"A|#b\"),
            ("A=b # c", "A|b # c"),
            ("A=b'c'", "A|b'c'"),
            ("A='b'c", "A|bc"),
            ("A='b' \"c \"", "A|bc "),
            ("A='b", "A|b"),
            ("A=postgres://av:p%23=@h/d", "A|postgres://av:p%23=@h/d"),
            ("A='x'\"y\" z", "A|xyz"),
            ("A=b\\", "A|b"),
            ("# A=b\n;A=c\n\n \t\n", ""),
            ("=b", ""),
        ] {
            assert_eq!(one(text).unwrap_or_default(), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_line_that_names_no_variable_is_counted_and_nothing_else_is_lost() {
        let text = "export A=1\nB=2\nhost\n3C=4\n# x \\\nD='5\n6'\nB=7\nlast";
        let found = parse(text);
        let variables: Vec<(&str, &str)> = found
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(variables, [("B", "2"), ("D", "5\n6"), ("B", "7")]);
        assert_eq!(found.ignored, [1, 3, 4, 9]);
    }
}
