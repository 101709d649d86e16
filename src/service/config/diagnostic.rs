//! What is wrong with a configuration, shown where it stands.

use std::fmt;
use std::ops::Range;

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Full name of the key, such as `source[0].topic`; empty if the fault has no key.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, shown beside the caret; may be empty.
    pub remedy: String,
    /// Where it was given.
    pub place: Place,
}

/// Where a value of the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The built-in default.
    Default,
    /// Bytes of the file.
    File(Range<usize>),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

/// A configuration that cannot be used: every fault found, each with its place. Exit code 78.
#[derive(Debug)]
pub struct ConfigError {
    /// Name and text of the file, if there is one.
    file: Option<(String, String)>,
    /// The faults, at least one.
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Faults of a configuration that was read from `file` (name and text), if from one.
    pub fn new(file: Option<(String, String)>, mut problems: Vec<Problem>) -> Self {
        let rank = |p: &Problem| match &p.place {
            Place::File(span) => (0, span.start, String::new()),
            Place::Environment(name) => (1, 0, name.clone()),
            Place::Flag(name) => (2, 0, name.clone()),
            Place::Default => (3, 0, p.key.clone()),
        };
        problems.sort_by_key(rank);
        Self { file, problems }
    }

    /// A fault that has no place in a file.
    pub fn plain(message: impl Into<String>) -> Self {
        let message = message.into();
        let problem = Problem {
            key: String::new(),
            message,
            remedy: String::new(),
            place: Place::Default,
        };
        Self {
            file: None,
            problems: vec![problem],
        }
    }

    /// Line and column of a fault in the file, both from 1, if it stands there.
    pub fn location(&self, problem: &Problem) -> Option<(usize, usize)> {
        let (Place::File(span), Some((_, text))) = (&problem.place, &self.file) else {
            return None;
        };
        let at = Location::of(text, span.start);
        Some((at.line, at.column))
    }

    /// The faults.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\nerror: ")?;
            }
            show(f, problem, self.file.as_ref())?;
        }
        Ok(())
    }
}

/// The fault, then its place; in a file with the line and a caret below it:
///
/// ```text
/// unknown key `server.lisen`
///   --> viaflux.toml:12:1
///    |
/// 12 | lisen = "127.0.0.1:8080"
///    | ^^^^^ did you mean `listen`?
/// ```
fn show(f: &mut fmt::Formatter<'_>, problem: &Problem, file: Option<&(String, String)>) -> fmt::Result {
    f.write_str(&problem.message)?;
    let tail = |f: &mut fmt::Formatter<'_>, place: &str| {
        write!(f, "\n  --> {place}")?;
        if problem.remedy.is_empty() {
            Ok(())
        } else {
            write!(f, "\n  = {}", problem.remedy)
        }
    };
    match (&problem.place, file) {
        (Place::File(span), Some((name, text))) => {
            let at = Location::of(text, span.start);
            let number = at.line.to_string();
            let margin = " ".repeat(number.len());
            let shown: String = at.text.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
            let end = span.end.min(at.start + at.text.len());
            let width = text
                .get(span.start..end)
                .map_or(0, |part| part.chars().map(columns).sum())
                .max(1);
            let before: usize = at.text.chars().take(at.column - 1).map(columns).sum();
            write!(f, "\n {margin}--> {name}:{}:{}", at.line, at.column)?;
            write!(f, "\n {margin} |\n {number} | {shown}")?;
            write!(f, "\n {margin} | {}{}", " ".repeat(before), "^".repeat(width))?;
            if !problem.remedy.is_empty() {
                write!(f, " {}", problem.remedy)?;
            }
            Ok(())
        }
        (Place::Environment(name), _) => tail(f, &format!("environment variable {name}")),
        (Place::Flag(name), _) => tail(f, &format!("flag {name}")),
        _ if problem.key.is_empty() && problem.remedy.is_empty() => Ok(()),
        _ if problem.key.is_empty() => write!(f, "\n  = {}", problem.remedy),
        _ => tail(
            f,
            &format!("key `{}` (its default, not set anywhere)", problem.key),
        ),
    }
}

/// Columns that a character takes on a terminal: two for the wide East Asian ranges.
fn columns(c: char) -> usize {
    match c as u32 {
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// A place in a text as people count it.
struct Location<'a> {
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    /// The line without its line feed.
    text: &'a str,
    /// Byte where the line begins.
    start: usize,
}

impl<'a> Location<'a> {
    fn of(text: &'a str, byte: usize) -> Self {
        let mut byte = byte.min(text.len());
        while !text.is_char_boundary(byte) {
            byte -= 1;
        }
        let start = text[..byte].rfind('\n').map_or(0, |i| i + 1);
        let line = text[..start].matches('\n').count() + 1;
        let column = text[start..byte].chars().count() + 1;
        let whole = text[start..]
            .split('\n')
            .next()
            .unwrap_or("")
            .trim_end_matches('\r');
        Self {
            line,
            column,
            text: whole,
            start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>, remedy: &str) -> String {
        let problem = Problem {
            key: "a.b".into(),
            message: "it is wrong".into(),
            remedy: remedy.into(),
            place: Place::File(span),
        };
        ConfigError::new(Some(("f.toml".into(), text.into())), vec![problem]).to_string()
    }

    #[test]
    fn points_at_line_and_column() {
        let text = "[a]\n\n  名 = 1\n";
        let at = text.find('1').unwrap();
        assert_eq!(
            shown(text, at..at + 1, "so it is right"),
            "it is wrong\n  --> f.toml:3:7\n   |\n 3 |   名 = 1\n   |        ^ so it is right"
        );
    }

    #[test]
    fn survives_places_at_the_end_and_beyond() {
        assert!(shown("a = ", 4..4, "").contains("f.toml:1:5"));
        assert!(shown("a", 90..99, "").contains("f.toml:1:2"));
        assert!(shown("", 0..0, "").contains("f.toml:1:1"));
    }

    #[test]
    fn faults_stand_in_the_order_of_the_file() {
        let problem = |place, key: &str| Problem {
            key: key.into(),
            message: key.into(),
            remedy: String::new(),
            place,
        };
        let error = ConfigError::new(
            Some(("f".into(), "ab\ncd".into())),
            vec![
                problem(Place::Environment("V".into()), "third"),
                problem(Place::File(3..4), "second"),
                problem(Place::File(0..1), "first"),
            ],
        );
        let order: Vec<&str> = error.problems().iter().map(|p| p.key.as_str()).collect();
        assert_eq!(order, ["first", "second", "third"]);
    }
}
