//! UCI text to sections and options, with the same verdict and the same values as OpenWrt's libuci.
//!
//! libuci refuses a whole file for one syntax error, and so does this: a half-read file could name half of the slivers.
//! Three differences are meant. A file with a NUL byte is refused: libuci reads on and drops a piece of text whose
//! length depends on its buffer, and NULs are what a power cut leaves in a file. The names that libuci makes up for
//! unnamed sections (`cfg02ab34`) are not made up here, so that a later section cannot merge into one by such a name.
//! And a section may be opened a third time, which libuci of 2021 (not today's) answers with a parse error.
//!
//! Values stay bytes. UCI does not say in which encoding a value is, and a Latin-1 byte in one option must not take the
//! whole node down: who needs text asks for it option by option, and can name the section that has none.

use std::fmt;

use super::words::{Syntax, Words};
use crate::out::{escape, joined};

/// One UCI file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// The sections, in the order in which the file first names them.
    pub sections: Vec<Section>,
}

/// What follows a `config` line; sections of the same name are one.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// The section's type.
    pub kind: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// How many sections of this type come before it.
    pub nth: usize,
    /// The line of its (first) `config`, counted from 1.
    pub line: u32,
    /// The options, in the order that libuci keeps: a changed value moves its option to the end.
    pub options: Vec<Opt>,
}

/// One option of a section.
#[derive(Debug, PartialEq, Eq)]
pub struct Opt {
    /// Its name, once per section.
    pub name: String,
    /// The line that gave it the value it has, counted from 1.
    pub line: u32,
    /// The value.
    pub value: Value,
}

/// An option's value, any bytes but NUL.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// Of `option`; never empty, since an empty value does not set an option.
    One(Vec<u8>),
    /// Of `list`, in order; items may be empty.
    Many(Vec<Vec<u8>>),
}

impl Section {
    /// How to name the section to its owner: `sliver 'web'`, or `@sliver[2]` as `uci show` does.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{} '{name}'", self.kind),
            None => format!("@{}[{}]", self.kind, self.nth),
        }
    }

    /// The option of that name.
    pub fn option(&self, name: &str) -> Option<&Opt> {
        self.options.iter().find(|option| option.name == name)
    }
}

/// A text that is not UCI.
#[derive(Debug, PartialEq, Eq)]
pub struct UciError {
    /// The file, as given to [`parse`].
    pub file: String,
    /// The line, counted from 1; of an open quote, the line that opens it.
    pub line: u32,
    /// The section that was open there, as [`Section::label`] names it.
    pub section: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for UciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if let Some(section) = &self.section {
            write!(f, "{section}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for UciError {}

/// Reads the text of one UCI file; `file` only names it in the error.
pub fn parse(text: &[u8], file: &str) -> Result<Package, UciError> {
    let mut parser = Parser { words: Words::new(text), package: Package::default(), open: None };
    let done = match text.iter().position(|&c| c == 0) {
        Some(at) => Err(Syntax::new(at, "a NUL byte: the file is damaged, write it again")),
        None => parser.file(),
    };
    match done {
        Ok(()) => Ok(parser.package),
        Err(Syntax { at, what }) => Err(UciError {
            file: file.to_owned(),
            line: parser.words.line(at),
            section: parser.section().map(|section| section.label()),
            what,
        }),
    }
}

struct Parser<'a> {
    words: Words<'a>,
    package: Package,
    /// The section that options go to.
    open: Option<usize>,
}

impl Parser<'_> {
    fn section(&mut self) -> Option<&mut Section> {
        self.package.sections.get_mut(self.open?)
    }

    fn file(&mut self) -> Result<(), Syntax> {
        while self.words.next_line() {
            while let Some(command) = self.words.command() {
                let line = self.words.line(command.at);
                match (command.name, command.cut) {
                    (b"p" | b"package", false) => self.package()?,
                    (b"c" | b"config", false) => self.config(line)?,
                    (b"o" | b"option", false) => self.option(command.at, line, false)?,
                    (b"l" | b"list", false) => self.option(command.at, line, true)?,
                    (b"p" | b"package" | b"c" | b"config" | b"o" | b"option" | b"l" | b"list", true) => {
                        return Err(Syntax::new(command.at, "the file ends in the middle of a command"));
                    }
                    (name, _) => {
                        let what = format!(
                            "{} is no UCI command: config, option, list, package, or # for a comment",
                            quote(name)
                        );
                        return Err(Syntax::new(command.at, what));
                    }
                }
            }
        }
        Ok(())
    }

    /// `package NAME`: checked, and else of no meaning in a file that is one package.
    fn package(&mut self) -> Result<(), Syntax> {
        let at = self.words.pos();
        self.name(at, "package", b"-")?;
        self.end_of_command()
    }

    /// `config TYPE [NAME]`: opens a new section, or again the one of that name.
    fn config(&mut self, line: u32) -> Result<(), Syntax> {
        self.open = None;
        let at = self.words.pos();
        let kind = self.words.word()?;
        if kind.is_empty() {
            return Err(Syntax::new(at, "config wants a type: config sliver 'web'"));
        }
        let Some(kind) = text_of(kind, |c| c.is_ascii_graphic()) else {
            return Err(Syntax::new(at, "a section's type is of printable characters"));
        };
        let at = self.words.pos();
        let name = self.words.word()?;
        let name = if name.is_empty() { None } else { Some(checked(name, at, "section", b"")?) };
        self.end_of_command()?;

        let sections = &mut self.package.sections;
        let known = sections.iter().position(|section| section.name.is_some() && section.name == name);
        if let Some(section) = known.and_then(|index| sections.get(index)) {
            if section.kind != kind {
                let what = format!(
                    "the section's name is taken by {} of line {}: give each its own name",
                    section.label(),
                    section.line
                );
                return Err(Syntax::new(at, what));
            }
            self.open = known;
        } else {
            let nth = sections.iter().filter(|section| section.kind == kind).count();
            self.open = Some(sections.len());
            sections.push(Section { kind, name, nth, line, options: Vec::new() });
        }
        Ok(())
    }

    /// `option NAME [VALUE]` and `list NAME [VALUE]`.
    fn option(&mut self, command: usize, line: u32, list: bool) -> Result<(), Syntax> {
        if self.open.is_none() {
            return Err(Syntax::new(command, "an option before the first config line"));
        }
        let at = self.words.pos();
        let name = self.name(at, "option", b"")?;
        let value = self.words.word()?;
        self.end_of_command()?;
        if let Some(section) = self.section() {
            section.set(name, line, value, list);
        }
        Ok(())
    }

    fn name(&mut self, at: usize, of: &str, also: &[u8]) -> Result<String, Syntax> {
        let word = self.words.word()?;
        if word.is_empty() {
            return Err(Syntax::new(at, format!("the {of}'s name is missing")));
        }
        checked(word, at, of, also)
    }

    fn end_of_command(&mut self) -> Result<(), Syntax> {
        let at = self.words.pos();
        match self.words.word()? {
            none if none.is_empty() => Ok(()),
            extra => {
                let what =
                    format!("{} is one word too many: a value with spaces wants quotes", quote(&extra));
                Err(Syntax::new(at, what))
            }
        }
    }
}

impl Section {
    fn set(&mut self, name: String, line: u32, value: Vec<u8>, list: bool) {
        let known = self.options.iter().position(|option| option.name == name);
        if let Some(option) = known.and_then(|index| self.options.get_mut(index)) {
            match &mut option.value {
                Value::Many(items) if list => {
                    option.line = line;
                    return items.push(value);
                }
                Value::One(old) if !list && *old == value => return,
                _ => {}
            }
        }
        if !list && value.is_empty() {
            return;
        }
        let value = match (list, known.map(|index| self.options.remove(index).value)) {
            (false, _) => Value::One(value),
            (true, Some(Value::One(first))) => Value::Many(vec![first, value]),
            (true, _) => Value::Many(vec![value]),
        };
        self.options.push(Opt { name, line, value });
    }
}

/// The word as a name, of letters, digits, `_` and what `also` holds.
fn checked(word: Vec<u8>, at: usize, of: &str, also: &[u8]) -> Result<String, Syntax> {
    let shown = quote(&word);
    let hint = if of == "section" { "; other names go to `option name`" } else { "" };
    text_of(word, |c| c.is_ascii_alphanumeric() || c == b'_' || also.contains(&c)).ok_or_else(|| {
        Syntax::new(at, format!("{shown} is no {of} name: UCI allows A-Z a-z 0-9 and _{hint}"))
    })
}

fn text_of(word: Vec<u8>, legal: impl Fn(u8) -> bool) -> Option<String> {
    String::from_utf8(word).ok().filter(|text| text.bytes().all(legal))
}

/// The start of a word, fit for a message.
fn quote(word: &[u8]) -> String {
    let (start, more) = match word.get(..40) {
        Some(start) if word.len() > 40 => (start, "…"),
        _ => (word, ""),
    };
    let lines: Vec<String> = start.split(|b| *b == b'\n').map(escape).collect();
    format!("`{}{more}`", joined(&lines, "\\n"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
