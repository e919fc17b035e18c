//! The command: arguments, logger, run, exit code.

use std::process::ExitCode;

use sliverfs::cli::{Cli, Command};
use sliverfs::error::Class;
use sliverfs::sys::file::say;
use sliverfs::sys::signals::hear_of_children;
use sliverfs::{cmd, logger};

fn main() -> ExitCode {
    hear_of_children();
    let cli: Cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // LXC throws a hook's output away, and nobody watches procd's.
    let unseen = matches!(cli.command, Command::Hook | Command::Apply);
    logger::start(cli.args.verbose, unseen);
    match cmd::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            log::error!("{err}");
            exit(err.class())
        }
    }
}

/// Parses the arguments. Asked for help, it prints to standard output and ends well; a wrong argument is a usage error.
fn parse() -> Result<Cli, ExitCode> {
    let mut words: Vec<&str> = Vec::new();
    for word in std::env::args_os().skip(1) {
        match word.into_string() {
            // argh takes a lone `-` as an option.
            Ok(word) if word == "-" => words.push("/dev/stdin"),
            Ok(word) => words.push(word.leak()),
            Err(word) => {
                let _unread = say(2, format!("`{}` is not UTF-8\n", word.to_string_lossy()).as_bytes());
                return Err(exit(Class::Usage));
            }
        }
    }
    if words == ["--version"] {
        words = vec!["version"];
    }
    argh::FromArgs::from_args(&["sliverfs"], &words).map_err(|early: argh::EarlyExit| match early.status {
        Ok(()) => {
            let _unread = say(1, early.output.as_bytes());
            ExitCode::SUCCESS
        }
        Err(()) => {
            let _unread = say(2, early.output.as_bytes());
            let _unread =
                say(2, b"`sliverfs help` lists the commands and the options before them, `sliverfs COMMAND --help` its options: `--base NAME`, not `--base=NAME`\n");
            exit(Class::Usage)
        }
    })
}

fn exit(class: Class) -> ExitCode {
    ExitCode::from(class as u8)
}
