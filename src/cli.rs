//! The command line: what argh parses, and nothing else.
//!
//! What argh derives from a struct for each command, a parser, a help text and a way to redact, is many times the size of what
//! differs between commands. So the commands are a table here, and argh's parser works on it.

mod commands;
mod options;

use std::path::Path;

use argh::{CommandInfo, EarlyExit, FromArgs, ParseStructOptions, ParseStructPositional};
use argh::{ParseStructPositionals, ParseStructSubCommand, ParseValueSlot};

use crate::error::Result;
use crate::name::Name;
pub use commands::Command;
use commands::{PROGRAM, Spec, What};
pub use options::Args;
use options::{Kind, OPTIONS};

/// What asks for help.
const HELP: &[&str] = &["-h", "--help", "help"];
static SHOWS_HELP: CommandInfo = commands::info("-h, --help, help", "display usage information");

/// The command line: what is to be done, and how.
pub struct Cli {
    /// What is to be done.
    pub command: Command,
    /// With what.
    pub args: Args,
}

impl FromArgs for Cli {
    fn from_args(path: &[&str], given: &[&str]) -> std::result::Result<Self, EarlyExit> {
        parse(&PROGRAM, path, given)
    }
}

impl Args {
    /// The word at a place; an empty one behind the last.
    pub fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// The name that a command on one sliver, or on one base, is given.
    pub fn name(&self) -> Result<Name> {
        Name::parse(self.word(0))
    }

    /// The names that a command on any number of slivers is given.
    pub fn names(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        for word in &self.words {
            names.push(Name::parse(word)?);
        }
        Ok(names)
    }
}

/// The value of an option, as it was given. It stays until the program ends, as the command line itself does: what need not be
/// given back needs no code for it.
#[derive(Clone, Copy, Default)]
pub struct Value(Option<&'static str>);

impl Value {
    /// As text.
    pub fn text(self) -> Option<&'static str> {
        self.0
    }

    /// As a path.
    pub fn path(self) -> Option<&'static Path> {
        self.0.map(Path::new)
    }

    /// As what `parse` makes of it.
    pub fn parse<T>(self, parse: fn(&str) -> Result<T>) -> Result<Option<T>> {
        self.0.map(parse).transpose()
    }
}

impl ParseValueSlot for Value {
    fn fill_slot(&mut self, _option: &str, value: &str) -> std::result::Result<(), String> {
        match self.0.replace(value.to_owned().leak()) {
            None => Ok(()),
            Some(_) => Err("it was given before".to_owned()),
        }
    }
}

/// The words that are no options.
struct Words<'a>(&'a mut Vec<String>);

impl ParseValueSlot for Words<'_> {
    fn fill_slot(&mut self, _: &str, word: &str) -> std::result::Result<(), String> {
        self.0.push(word.to_owned());
        Ok(())
    }
}

/// Parses what stands behind the name of a command, or of the program; `path` is that name with those before it.
fn parse(spec: &'static Spec, path: &[&str], given: &[&str]) -> std::result::Result<Cli, EarlyExit> {
    let infos = spec.commands();
    let (mut args, mut words, mut inner) = (Args::default(), Vec::new(), None);
    let mut positional = [ParseStructPositional { name: "", slot: &mut Words(&mut words) }];
    let mut enter = |path: &[&str], rest: &[&str]| {
        let named = spec.group().iter().find(|spec| path.last() == Some(&spec.info.name));
        inner = named.map(|spec| parse(spec, path, rest)).transpose()?;
        Ok(())
    };
    argh::parse_struct_args(
        path,
        given,
        ParseStructOptions { arg_to_slot: spec.options, slots: &mut args.slots(), help_triggers: HELP },
        ParseStructPositionals {
            // All that argh is told of them: whether any may come.
            positionals: if spec.words.is_empty() { &mut [] } else { &mut positional },
            last_is_repeating: true,
            last_is_greedy: false,
        },
        Some(ParseStructSubCommand { subcommands: &[], dynamic_subcommands: &infos, parse_func: &mut enter }),
        &|| help(spec, path),
    )?;
    let command = match spec.what {
        What::One(command) => command,
        What::Group(_) => {
            let Some(mut inner) = inner else { return Err(help(spec, path).into()) };
            (inner.args.lxcpath, inner.args.config) = (args.lxcpath, args.config);
            inner.args.verbose = args.verbose;
            return Ok(inner);
        }
    };
    let many = spec.words.last().is_some_and(|word| word.name.ends_with('.'));
    if let Some(word) = words.get(spec.words.len()).filter(|_| !many) {
        return Err(["Unrecognized argument: ", word, "\n"].concat().into());
    }
    if let Some(word) = spec.words.get(words.len()).filter(|_| words.len() < spec.needed) {
        return Err(["Required positional argument not provided: ", word.name, "\n"].concat().into());
    }
    args.words = words;
    Ok(Cli { command, args })
}

/// The help for a command, or for the program.
fn help(spec: &Spec, path: &[&str]) -> String {
    let mut text = String::new();
    let mut put = |parts: &[&str]| parts.iter().for_each(|part| text.push_str(part));
    put(&["Usage: ", &path.join(" ")]);
    let mut options = Vec::new();
    for (name, place) in spec.options {
        let Some(option) = OPTIONS.get(*place).filter(|_| name.starts_with("--")) else { continue };
        options.push(&option.info);
        let value = name.trim_start_matches('-');
        match option.kind {
            Kind::Needed => put(&[" ", name, " <", value, ">"]),
            Kind::Valued => put(&[" [", name, " <", value, ">]"]),
            Kind::Switch => put(&[" [", name, "]"]),
        }
    }
    options.push(&SHOWS_HELP);
    for (at, word) in spec.words.iter().enumerate() {
        let (before, behind) = if at < spec.needed { (" <", ">") } else { (" [<", ">]") };
        put(&[before, word.name, behind]);
    }
    let commands = spec.commands();
    if !commands.is_empty() {
        put(&[" <command> [<args>]"]);
    }
    put(&["\n\n", spec.info.description]);
    for (heading, list) in [
        ("\n\nPositional Arguments:", spec.words.iter().collect()),
        ("\n\nOptions:", options),
        ("\n\nCommands:", commands),
    ] {
        if !list.is_empty() {
            put(&[heading, &argh::print_subcommands(list.into_iter())]);
        }
    }
    put(&["\n"]);
    text
}
