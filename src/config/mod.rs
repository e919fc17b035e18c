//! What the operator wants: UCI text, sections, typed configuration.

pub mod lxcconf;
pub mod node;
pub mod uci;
mod words;

use std::fmt;
use std::path::Path;

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::sys::file;
pub use node::{AUTO, BaseWanted, Main, SliverWanted};

/// Where the configuration lies. The first that exists is taken whole, as libuci does since 2025: `/var/run/uci` is
/// where a controller puts a package's configuration for this boot.
///
/// Changes that are not committed (`uci set` keeps them in `/tmp/.uci`) are not read: until `uci commit` they are
/// somebody's draft, and an `apply` for another reason (boot, a disk that appears) must not act on half of it.
pub const FILES: [&str; 2] = ["/var/run/uci/sliverfs", "/etc/config/sliverfs"];

/// The most bytes a configuration may have: a thousand slivers take about a tenth of it.
const MAX_BYTES: usize = 2 << 20;

/// What the operator wants of this node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from; empty where there is none.
    pub file: String,
    /// `config sliverfs 'main'`.
    pub main: Main,
    /// `config base`, in the order of the file, each name once.
    pub bases: Vec<BaseWanted>,
    /// `config sliver`, in the order of the file, each name once; disabled ones too.
    pub slivers: Vec<SliverWanted>,
    /// What is wrong, section by section.
    pub problems: Vec<Problem>,
    /// Why `main` cannot be relied on.
    main_problem: Option<Problem>,
}

/// Where a section lies in its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The line, counted from 1.
    pub line: u32,
    /// The section as its owner knows it: `sliver 'web'`, or `@sliver[2]`.
    pub section: String,
}

/// Something wrong with one section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line of the option, or of the section, counted from 1.
    pub line: u32,
    /// The section as its owner knows it.
    pub section: String,
    /// What is wrong, and the way out.
    pub what: String,
    /// The section was left out for it. Otherwise it is only a warning.
    pub fatal_for_section: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.section, self.what)
    }
}

impl Config {
    /// Types the text of a UCI file; `file` names it in problems.
    ///
    /// # Errors
    /// The text is not UCI. Then nothing of it is used, as libuci does: what follows an open quote may be anything.
    pub fn parse(text: &[u8], file: &str) -> Result<Self> {
        let package = uci::parse(text, file).map_err(|err| {
            Error::usage(err.to_string())
                .way_out("nothing of this file was used: correct it, and apply again")
        })?;
        Ok(node::read(&package, file))
    }

    /// Says no where the `sliverfs` section has a wrong value. What works on the lxcpath of the configuration asks this
    /// first: a default in place of what the operator meant may be another disk.
    pub fn check_main(&self) -> Result<()> {
        match &self.main_problem {
            None => Ok(()),
            Some(problem) => Err(Error::usage(problem.to_string())),
        }
    }

    /// A problem that was found out later, when the node was made what the section at `place` wants.
    pub fn problem(&self, place: &Place, what: impl Into<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            line: place.line,
            section: place.section.clone(),
            what: what.into(),
            fatal_for_section: true,
        }
    }
}

/// Reads the given configuration, or the first of [`FILES`]; without any of them, a node wants nothing.
///
/// # Errors
/// A given file that is missing, a file that cannot be read or is larger than 2 MiB, a text that is not UCI.
pub fn load(path: Option<&Path>) -> Result<Config> {
    match path {
        Some(path) => from_file(path),
        None => first_of(&FILES.map(Path::new)),
    }
}

fn first_of(paths: &[&Path]) -> Result<Config> {
    for path in paths {
        match from_file(path) {
            Err(err) if err.errno() == Some(Errno::ENOENT) => {}
            done => return done,
        }
    }
    Ok(Config::default())
}

fn from_file(path: &Path) -> Result<Config> {
    let file = file::open(path).at("open", path)?;
    let text = file::read_all(file, MAX_BYTES + 1).at("read", path)?;
    if text.len() > MAX_BYTES {
        return Err(Error::usage(format_args!("{} is larger than {MAX_BYTES} bytes", path.display()))
            .way_out("give the UCI file with --config"));
    }
    Config::parse(&text, &path.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    struct Dir(PathBuf);

    impl Dir {
        fn new(of: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("sliverfs-config-{of}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn file(&self, name: &str, text: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_override_is_taken_whole_and_no_file_wants_nothing() {
        let dir = Dir::new("override");
        let (over, etc) = (dir.0.join("run"), dir.0.join("etc"));
        assert_eq!(first_of(&[&over, &etc]).unwrap(), Config::default());

        dir.file("etc", b"config sliver 'a'\noption base 'b'\nconfig sliverfs main\noption lxcpath /x");
        let config = first_of(&[&over, &etc]).unwrap();
        assert_eq!((config.slivers.len(), config.main.lxcpath.is_some()), (1, true));

        dir.file("run", b"");
        let config = first_of(&[&over, &etc]).unwrap();
        assert_eq!((config.slivers.len(), config.main.lxcpath.is_some()), (0, false));
        assert_eq!(config.file, over.display().to_string());
    }

    #[test]
    fn a_given_file_must_be_there_and_be_uci() {
        let dir = Dir::new("given");
        let missing = dir.0.join("missing");
        assert_eq!(load(Some(&missing)).unwrap_err().errno(), Some(Errno::ENOENT));
        assert_eq!(load(Some(&dir.0)).unwrap_err().errno(), Some(Errno::EISDIR));

        let wrong = dir.file("wrong", b"config sliver 'a'\n\toption base b c\n");
        let text = load(Some(&wrong)).unwrap_err().to_string();
        assert!(
            text.starts_with(&format!("{}:2: sliver 'a': `c` is one word too many", wrong.display())),
            "{text}"
        );

        let huge = dir.file("huge", &vec![b'#'; MAX_BYTES + 1]);
        assert!(load(Some(&huge)).unwrap_err().to_string().contains("larger than"));
    }
}
