//! The commands, out of the Markdown.

use av_proto_tests::process::workspace;

/// What a block of commands is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// A script.
    Shell,
    /// Commands behind `$`, with what they print.
    Session,
    Sql,
    Python,
}

/// A fenced block with commands.
#[derive(Debug)]
pub struct Block {
    /// The guide's file name.
    pub guide: String,
    /// The line of its fence.
    pub line: usize,
    pub language: Language,
    pub text: String,
}

/// The guides that exist in both languages: English, French.
pub const PAIRS: &[(&str, &str)] = &[
    ("administration.md", "administration.fr.md"),
    ("technician.md", "technicien.md"),
    ("tls.md", "tls.fr.md"),
    ("troubleshooting.md", "troubleshooting.fr.md"),
];

/// The English name of a guide, whose commands both languages have.
pub fn english(guide: &str) -> &str {
    let pair = PAIRS.iter().find(|(_, french)| *french == guide);
    pair.map_or(guide, |(english, _)| english)
}

/// Every guide: file name and text.
pub fn guides() -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(workspace().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    files.push(workspace().join("README.md"));
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Every fenced block: the line of its fence, its language and its lines
/// without the indentation of the fence.
pub fn fenced_at(text: &str) -> Vec<(usize, String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let body: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| line.trim() != "```")
            .map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()))
            .collect();
        blocks.push((number + 1, language.to_owned(), body));
    }
    blocks
}

/// [`fenced_at`] without the lines' numbers.
pub fn fenced(text: &str) -> Vec<(String, String)> {
    fenced_at(text)
        .into_iter()
        .map(|(_, language, body)| (language, body))
        .collect()
}

/// What is outside of fences.
pub fn prose(text: &str) -> String {
    let mut inside = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            prose += line;
            prose.push('\n');
        }
    }
    prose
}

/// The text of every `code` span outside of fences.
pub fn spans(text: &str) -> Vec<String> {
    prose(text)
        .split("\n\n")
        .flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2))
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

impl Block {
    /// The blocks of a guide that have commands.
    pub fn all(guide: &str, text: &str) -> Vec<Self> {
        fenced_at(text)
            .into_iter()
            .filter_map(|(line, language, text)| {
                let language = match language.as_str() {
                    "sh" => Language::Shell,
                    "console" => Language::Session,
                    "sql" => Language::Sql,
                    "python" => Language::Python,
                    "" if text.lines().any(|line| line.starts_with("$ ")) => Language::Session,
                    _ => return None,
                };
                Some(Self {
                    guide: guide.to_owned(),
                    line,
                    language,
                    text,
                })
            })
            .collect()
    }

    /// The commands of a session, each with what it prints.
    pub fn commands(&self) -> Vec<(String, String)> {
        commands(&self.text)
    }
}

/// The commands of a session: behind `$`, with their further lines behind `>`
/// or after a `\`; and what stands below each.
pub fn commands(session: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for line in session.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            all.push((format!("{command}\n"), String::new()));
            continue;
        }
        let (command, printed) = all.last_mut().expect("a session begins with a command");
        let goes_on = printed.is_empty() && command.ends_with("\\\n");
        if let Some(more) = line.strip_prefix("> ").filter(|_| printed.is_empty()) {
            *command += &format!("{more}\n");
        } else if goes_on {
            *command += &format!("{line}\n");
        } else {
            *printed += &format!("{line}\n");
        }
    }
    all
}

#[test]
fn a_session_is_taken_apart() {
    let session = "$ one \\\n    more\nprinted\n\n$ two '{\n> }'\n> printed\n";
    let parts = [
        ("one \\\n    more\n", "printed\n\n"),
        ("two '{\n}'\nprinted\n", ""),
    ];
    assert_eq!(
        commands(session),
        parts.map(|(command, printed)| (command.to_owned(), printed.to_owned()))
    );
}
