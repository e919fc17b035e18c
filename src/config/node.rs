//! The sections that sliverfs knows, from UCI's bytes to types; what is wrong is kept as problems of its section.

use std::path::PathBuf;

use super::uci::{Package, Section, Value};
use super::{Config, Place, Problem};
use crate::error::Result;
use crate::name::Name;
use crate::out::escape;
use crate::quota::admission::{ONE, Policy, parse_factor};
use crate::quota::{Means, parse_mode};
use crate::size::Size;

/// The backend that stands for "the first that works here".
pub const AUTO: &str = "auto";

/// `config sliverfs 'main'`: what holds for the whole node.
#[derive(Debug, PartialEq, Eq)]
pub struct Main {
    /// `lxcpath`: the folder of the containers; without it, LXC's own ([`super::lxcconf::default_lxcpath`]).
    pub lxcpath: Option<PathBuf>,
    /// `backend`: [`AUTO`] or the name of a kind, not checked here.
    pub backend: String,
    /// `convert`: [`AUTO`] converts a store that this kernel cannot show. No, unless told so.
    pub convert: bool,
    /// `quota_mode`: what keeps slivers to their limit; none for what holds.
    pub quota_mode: Option<Means>,
    /// `reserve`, `overcommit` and `image_journal`: what may be promised of the disk, and how.
    pub policy: Policy,
}

impl Default for Main {
    fn default() -> Self {
        Self {
            lxcpath: None,
            backend: AUTO.to_owned(),
            convert: false,
            quota_mode: None,
            policy: Policy::default(),
        }
    }
}

/// `config base`.
#[derive(Debug, PartialEq, Eq)]
pub struct BaseWanted {
    /// `name`, or the section's name.
    pub name: Name,
    /// `source`: an absolute path on this node to make the base from.
    pub source: Option<PathBuf>,
    /// Where it is asked for.
    pub place: Place,
}

/// `config sliver`.
#[derive(Debug, PartialEq, Eq)]
pub struct SliverWanted {
    /// `name`, or the section's name.
    pub name: Name,
    /// `base`: the base it is made of, which need not be named in the configuration.
    pub base: Name,
    /// `backend`, or the one of [`Main`].
    pub backend: String,
    /// `data`: an absolute path to an archive that is unpacked over the base when the sliver is created.
    pub data: Option<PathBuf>,
    /// `size`: the limit of a store that is an image, in bytes.
    pub size: Option<u64>,
    /// `quota`: the bytes that it may add to its base.
    pub quota: Option<u64>,
    /// `mount`: mount it at boot and on reload. Yes, unless told otherwise.
    pub mount: bool,
    /// `enabled`: no leaves the sliver as it is. Yes, unless told otherwise.
    pub enabled: bool,
    /// Where it is asked for.
    pub place: Place,
}

impl Section {
    fn is_main(&self) -> bool {
        self.kind == "sliverfs" && self.name.as_deref() == Some("main")
    }
}

/// Takes the sections of a package one by one.
pub(super) fn read(package: &Package, file: &str) -> Config {
    let mut config = Config { file: file.to_owned(), ..Config::default() };
    // First of all, since its backend is the default of each sliver, also of those before it.
    if let Some(section) = package.sections.iter().find(|section| section.is_main()) {
        config.main = Fields::new(section, file).main();
    }
    for section in &package.sections {
        let mut fields = Fields::new(section, file);
        match section.kind.as_str() {
            "sliverfs" => {
                if section.is_main() {
                    fields.main();
                } else {
                    let what =
                        "the section that is read is `config sliverfs 'main'`: move these options there";
                    fields.fatal(section.line, what);
                }
                config.main_problem = config.main_problem.or_else(|| fields.first_fatal().cloned());
            }
            "base" => {
                let known = config.bases.iter().map(|base| (&base.name, &base.place));
                if let Some(base) = fields.base(known) {
                    config.bases.push(base);
                }
            }
            "sliver" => {
                let known = config.slivers.iter().map(|sliver| (&sliver.name, &sliver.place));
                if let Some(sliver) = fields.sliver(&config.main, known) {
                    config.slivers.push(sliver);
                }
            }
            _ => fields.warn(section.line, "an unknown type of section; known are sliverfs, base, sliver"),
        }
        config.problems.append(&mut fields.problems);
    }
    config
}

/// One section, and what was found wrong with it.
struct Fields<'a> {
    section: &'a Section,
    file: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    fn new(section: &'a Section, file: &'a str) -> Self {
        Self { section, file, problems: Vec::new() }
    }

    fn main(&mut self) -> Main {
        self.known(&[
            "lxcpath",
            "backend",
            "convert",
            "quota_mode",
            "reserve",
            "overcommit",
            "image_journal",
        ]);
        Main {
            lxcpath: self.path("lxcpath"),
            backend: self.text("backend").unwrap_or(AUTO).to_owned(),
            convert: self.convert(),
            quota_mode: self.parsed("quota_mode", parse_mode).flatten(),
            policy: Policy {
                reserve: self.size("reserve").unwrap_or(0),
                overcommit: self.parsed("overcommit", parse_factor).unwrap_or(ONE),
                journal: self.yes("image_journal"),
            },
        }
    }

    fn convert(&mut self) -> bool {
        let text = self.text("convert").unwrap_or("no");
        if !matches!(text, AUTO | "no" | "0") {
            let what = format!("convert `{}` is neither {AUTO} nor no", escape(text.as_bytes()));
            self.fatal_at("convert", what);
        }
        text == AUTO
    }

    fn base<'b>(&mut self, known: impl Iterator<Item = (&'b Name, &'b Place)>) -> Option<BaseWanted> {
        self.known(&["name", "source"]);
        let name = self.own_name(known);
        let source = self.path("source");
        if self.first_fatal().is_some() {
            return None;
        }
        Some(BaseWanted { name: name?, source, place: self.place() })
    }

    fn sliver<'b>(
        &mut self,
        main: &Main,
        known: impl Iterator<Item = (&'b Name, &'b Place)>,
    ) -> Option<SliverWanted> {
        self.known(&["name", "base", "backend", "size", "quota", "data", "mount", "enabled"]);
        let name = self.own_name(known);
        let base = self.name("base");
        if self.section.option("base").is_none() {
            self.fatal(self.section.line, "a sliver wants a base: option base 'NAME'");
        }
        let backend = self.text("backend").unwrap_or(&main.backend).to_owned();
        let (size, quota) = (self.size("size"), self.size("quota"));
        let (data, mount, enabled) = (self.path("data"), self.yes("mount"), self.yes("enabled"));
        if self.first_fatal().is_some() {
            return None;
        }
        Some(SliverWanted {
            name: name?,
            base: base?,
            backend,
            size,
            quota,
            data,
            mount,
            enabled,
            place: self.place(),
        })
    }

    /// The name of what the section asks for, which no earlier section of the type has.
    fn own_name<'b>(&mut self, mut known: impl Iterator<Item = (&'b Name, &'b Place)>) -> Option<Name> {
        let name = match (self.section.option("name"), &self.section.name) {
            (None, Some(name)) => self.parse_name(self.section.line, name),
            (None, None) => {
                self.fatal(self.section.line, "the section has no name: add option name 'NAME'");
                None
            }
            (Some(_), _) => self.name("name"),
        }?;
        if let Some((_, place)) = known.find(|(other, _)| **other == name) {
            let what =
                format!("{name} is asked for in line {} ({}), which counts", place.line, place.section);
            self.fatal(self.section.line, what);
        }
        Some(name)
    }

    /// Warns of options that are none of these.
    fn known(&mut self, options: &[&str]) {
        for option in self.section.options.iter().filter(|option| !options.contains(&option.name.as_str())) {
            let what = format!("option {} is not known here; known are {}", option.name, options.join(", "));
            self.warn(option.line, what);
        }
    }

    fn text(&mut self, option: &str) -> Option<&'a str> {
        let option = self.section.option(option)?;
        let what = match &option.value {
            Value::One(value) => match std::str::from_utf8(value) {
                Ok(text) => return Some(text),
                Err(_) => format!("{} is not UTF-8: write it again", option.name),
            },
            Value::Many(_) => {
                format!("{0} is a list: write one `option {0}` in its place", option.name)
            }
        };
        self.fatal(option.line, what);
        None
    }

    fn path(&mut self, option: &str) -> Option<PathBuf> {
        let text = self.text(option)?;
        if text.starts_with('/') {
            return Some(PathBuf::from(text));
        }
        let what =
            format!("{option} `{}` is no path on this node: one starts with /", escape(text.as_bytes()));
        self.fatal_at(option, what);
        None
    }

    fn size(&mut self, option: &str) -> Option<u64> {
        self.parsed(option, |text| Size::parse(text).map(|size| size.0))
    }

    fn parsed<T>(&mut self, option: &str, parse: fn(&str) -> Result<T>) -> Option<T> {
        let text = self.text(option)?;
        parse(text).map_err(|err| self.fatal_at(option, err.to_string())).ok()
    }

    fn name(&mut self, option: &str) -> Option<Name> {
        let text = self.text(option)?;
        let line = self.line(option);
        self.parse_name(line, text)
    }

    fn parse_name(&mut self, line: u32, text: &str) -> Option<Name> {
        Name::parse(text).map_err(|err| self.fatal(line, err.to_string())).ok()
    }

    /// A switch that is on unless it is off, in the words that `config_get_bool` and procd's validation know.
    fn yes(&mut self, option: &str) -> bool {
        let Some(text) = self.text(option) else {
            return true;
        };
        let is = |word: &&str| text.eq_ignore_ascii_case(word);
        let on = ["1", "true", "on", "yes", "enabled"].iter().any(is);
        if !on && !["0", "false", "off", "no", "disabled"].iter().any(is) {
            let what = format!(
                "{option} `{}` is neither 1, true, on, yes, enabled nor 0, false, off, no, disabled",
                escape(text.as_bytes())
            );
            self.fatal_at(option, what);
        }
        on
    }

    fn place(&self) -> Place {
        Place { line: self.section.line, section: self.section.label() }
    }

    fn line(&self, option: &str) -> u32 {
        self.section.option(option).map_or(self.section.line, |option| option.line)
    }

    fn first_fatal(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| problem.fatal_for_section)
    }

    fn warn(&mut self, line: u32, what: impl Into<String>) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            section: self.section.label(),
            what: what.into(),
            fatal_for_section: false,
        });
    }

    fn fatal(&mut self, line: u32, what: impl Into<String>) {
        self.warn(line, what);
        if let Some(problem) = self.problems.last_mut() {
            problem.fatal_for_section = true;
        }
    }

    fn fatal_at(&mut self, option: &str, what: String) {
        self.fatal(self.line(option), what);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
