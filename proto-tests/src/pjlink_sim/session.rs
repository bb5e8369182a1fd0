//! What one connection may do: the greeting and the password (section 5).

/// The answer to a wrong password, and the greeting of a projector that
/// locked itself.
pub const WRONG_PASSWORD: &str = "PJLINK ERRA";

/// One connection's side of the authentication.
#[derive(Debug)]
pub struct Session {
    /// The random number as it was sent and the digest that it wants.
    /// `None`: no password.
    lock: Option<Lock>,
    /// Digests are needed on the first command only (section 5.3).
    admitted: bool,
}

#[derive(Debug)]
struct Lock {
    random: String,
    digest: String,
}

/// What a session makes of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<'a> {
    /// The command line, without its digest.
    Command(&'a [u8]),
    /// The digest is wrong or missing.
    Wrong,
}

impl Session {
    /// A session with this password, if any, and 32 random bits.
    #[must_use]
    pub fn new(password: Option<&str>, random: u32, upper_case: bool) -> Self {
        let lock = password.map(|password| {
            let random = if upper_case {
                format!("{random:08X}")
            } else {
                format!("{random:08x}")
            };
            let digest = format!("{:x}", md5::compute(format!("{random}{password}")));
            Lock { random, digest }
        });
        Self {
            admitted: lock.is_none(),
            lock,
        }
    }

    /// The greeting, without the carriage return.
    #[must_use]
    pub fn greeting(&self) -> String {
        match &self.lock {
            None => "PJLINK 0".to_owned(),
            Some(lock) => format!("PJLINK 1 {}", lock.random),
        }
    }

    /// Reads the digest before a command, if there is one. A command after
    /// the first may have it or not.
    pub fn admit<'a>(&mut self, line: &'a [u8]) -> Admission<'a> {
        let Some(lock) = &self.lock else {
            return Admission::Command(line);
        };
        match line.split_at_checked(32) {
            Some((digest, command)) if command.first() == Some(&b'%') => {
                if digest.eq_ignore_ascii_case(lock.digest.as_bytes()) {
                    self.admitted = true;
                    Admission::Command(command)
                } else {
                    Admission::Wrong
                }
            }
            _ if self.admitted => Admission::Command(line),
            _ => Admission::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The standard's own example: random number 498e4a67, password
    // "JBMIAProjectorLink".
    const RANDOM: u32 = 0x498e_4a67;
    const PASSWORD: &str = "JBMIAProjectorLink";
    const DIGEST: &str = "5d8409bc1c3fa39749434aa3a5c38682";

    #[test]
    fn the_digest_is_the_standards_example() {
        let mut session = Session::new(Some(PASSWORD), RANDOM, false);
        assert_eq!(session.greeting(), "PJLINK 1 498e4a67");
        let line = format!("{DIGEST}%1POWR ?");
        assert_eq!(
            session.admit(line.as_bytes()),
            Admission::Command(b"%1POWR ?")
        );
    }

    #[test]
    fn the_first_command_needs_the_digest_and_later_ones_may_have_it() {
        let mut session = Session::new(Some(PASSWORD), RANDOM, false);
        assert_eq!(session.admit(b"%1POWR ?"), Admission::Wrong);
        let wrong = format!("{}%1POWR ?", "0".repeat(32));
        assert_eq!(session.admit(wrong.as_bytes()), Admission::Wrong);
        let right = format!("{}%1POWR ?", DIGEST.to_uppercase());
        assert_eq!(
            session.admit(right.as_bytes()),
            Admission::Command(b"%1POWR ?")
        );
        assert_eq!(session.admit(b"%1LAMP ?"), Admission::Command(b"%1LAMP ?"));
        assert_eq!(
            session.admit(right.as_bytes()),
            Admission::Command(b"%1POWR ?")
        );
        assert_eq!(session.admit(wrong.as_bytes()), Admission::Wrong);
    }

    #[test]
    fn without_a_password_every_line_is_a_command() {
        let mut session = Session::new(None, RANDOM, false);
        assert_eq!(session.greeting(), "PJLINK 0");
        assert_eq!(session.admit(b"%1POWR ?"), Admission::Command(b"%1POWR ?"));
    }

    #[test]
    fn an_upper_case_number_is_hashed_as_it_was_sent() {
        let mut session = Session::new(Some("admin"), 0xab, true);
        assert_eq!(session.greeting(), "PJLINK 1 000000AB");
        let digest = format!("{:x}", md5::compute("000000ABadmin"));
        let line = format!("{digest}%1POWR ?");
        assert_eq!(
            session.admit(line.as_bytes()),
            Admission::Command(b"%1POWR ?")
        );
    }
}
