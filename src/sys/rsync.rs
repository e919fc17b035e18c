//! The installed rsync: what it can do, how it is called, and what its end means.

use std::ffi::OsStr;
use std::path::Path;

use super::child::Answer;
use super::file::{read_all, read_some, say};
use super::tool::{self, Stream};
use crate::error::{Context, Error, Result};
use crate::sum::Sum;

const PROGRAM: &str = "rsync";
/// As much of its output is kept as holds the statistics at its end.
const TAIL: usize = 1 << 13;

/// What the installed program was built with.
#[derive(Clone, Copy, Debug)]
pub struct Rsync {
    acls: bool,
    xattrs: bool,
    /// Knows `--info` (3.1.0, protocol 31).
    info: bool,
    /// Lists no folder of the view before it has made what is missing in there.
    pub lists_last: bool,
}

/// What was transferred, as `--stats` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files whose content came.
    pub files: u64,
    /// Entries that were made. 0 before 3.1, which does not tell.
    pub created: u64,
    /// Entries that were removed. 0 before 3.1, which does not tell.
    pub deleted: u64,
    /// Bytes of the files whose content came.
    pub bytes: u64,
}

impl Rsync {
    /// Asks the installed program.
    pub fn find() -> Result<Self> {
        let asked = tool::start(PROGRAM, &["--version".as_ref()], [Stream::Null, Stream::Pipe, Stream::Null]);
        let mut asked = asked.map_err(|errno| tool::absent(PROGRAM, PROGRAM, "", errno))?;
        let mut text = Vec::new();
        if let Some(out) = asked.stdout.take() {
            text = read_all(out, usize::MAX).at("read what it says of itself from", PROGRAM.as_ref())?;
        }
        asked.wait().at("wait for", PROGRAM.as_ref())?;
        Ok(Self::parse(&text))
    }

    fn parse(version: &[u8]) -> Self {
        let built_with = |what: &str| {
            let mut words = version.split(|byte| matches!(byte, b',' | b'\n'));
            words.any(|word| word.trim_ascii() == what.as_bytes())
        };
        let protocol = after(version, "protocol version ");
        Self {
            acls: built_with("ACLs"),
            xattrs: built_with("xattrs"),
            info: protocol >= 31,
            lists_last: false,
        }
    }

    /// What it does not keep, for a warning.
    pub fn lacks(self) -> Option<&'static str> {
        match (self.acls, self.xattrs) {
            (true, true) => None,
            (false, true) => Some("ACLs"),
            (true, false) => Some("extended attributes"),
            (false, false) => Some("ACLs and extended attributes"),
        }
    }

    /// Makes the folder `to` what the source is. `attrs` are kept where the view shows them; a `dry_run` only lists what would
    /// change, on standard output unless `quiet`; `watched` shows the progress on standard error. What it wrote last comes back, for
    /// [`Stats`].
    pub fn run(
        self,
        from: &OsStr,
        to: &Path,
        attrs: bool,
        dry_run: bool,
        quiet: bool,
        watched: bool,
    ) -> Answer {
        let mut target = to.as_os_str().to_owned();
        target.push("/");
        // What the other end's shell would make of a path is none of its business: -s.
        // Where it begins before it knows all names, it waits forever for those of a file that it could not make (3.5.0, on a full disk).
        let mut options = String::from("-aHSs --numeric-ids --delete --stats --no-inc-recursive");
        if self.lists_last {
            options.push_str(" --delete-after");
        }
        if attrs && self.acls {
            options.push_str(" -A");
        }
        if attrs && self.xattrs {
            options.push_str(" -X");
        }
        if dry_run {
            options.push_str(" -n");
            if !quiet {
                options.push_str(" -i");
            }
        } else if watched && self.info {
            options.push_str(" --info=progress2");
        }
        options.push_str(" --");
        let mut words = tool::on(&options, Path::new(from));
        words.push(&target);
        let program = Path::new(PROGRAM);
        let mut child =
            tool::start(PROGRAM, &words, [Stream::Null, Stream::Pipe, Stream::Ours]).at("start", program)?;
        let mut tail = Vec::new();
        if let Some(out) = child.stdout.take() {
            let mut buffer = vec![0; 1 << 12];
            loop {
                let got = read_some(&out, &mut buffer).at("read from", program)?;
                let part = buffer.get(..got).unwrap_or_default();
                if part.is_empty() {
                    break;
                }
                if dry_run && !quiet {
                    say(1, part).at("write to", Path::new("standard output"))?;
                } else if watched && part.contains(&b'\r') {
                    let _unseen = say(2, part);
                }
                tail.extend_from_slice(part);
                let old = tail.len().saturating_sub(TAIL);
                tail.drain(..old);
            }
        }
        match child.wait().at("wait for", program)? {
            None => Ok(tail.leak()),
            Some(ended) => Err(failed(&ended)),
        }
    }
}

impl Stats {
    /// Reads them where they stand at the end of what it wrote.
    pub fn parse(text: &[u8]) -> Self {
        let of = |what: &str| after(text, what);
        // "files transferred: " before 3.1, "regular files transferred: " since.
        Self {
            files: of("files transferred: "),
            created: of("Number of created files: "),
            deleted: of("Number of deleted files: "),
            bytes: of("Total transferred file size: "),
        }
    }
}

/// The number behind the first of these words in a text; 0 where there is none.
fn after(text: &[u8], words: &str) -> u64 {
    let at = text.windows(words.len()).position(|here| here == words.as_bytes());
    at.and_then(|at| text.get(at + words.len()..)).map_or(0, number)
}

/// The number that a text starts with; its digits may stand in groups.
fn number(text: &[u8]) -> u64 {
    let mut number = 0_u64;
    for byte in text {
        match byte {
            b' ' | b'\n' => break,
            b'0'..=b'9' => number = number.times(10).plus(u64::from(byte - b'0')),
            _ => {}
        }
    }
    number
}

/// What its end means (rsync(1), EXIT VALUES).
fn failed(ended: &str) -> Error {
    // 0 where a signal ended it.
    let (what, way_out) = match after(ended.as_bytes(), "exit code ") {
        5 => ("the daemon refused it", "look at the module's name and its rights"),
        10 | 30 | 35 => ("the source did not answer", "is its host up?"),
        11 => ("files could not be read or written", "mostly the disk is full: free some of it"),
        12 => ("the connection broke", "does the other end have rsync, and does the login work?"),
        23 => ("not everything came over", "make what it names readable, or free space"),
        24 => ("files vanished from the source", "sync from a source that nobody writes to"),
        127 | 255 => ("no connection", "does ssh to that host work without a password?"),
        _ => ("it failed", "what it wrote above says why"),
    };
    Error::failed(format_args!("rsync: {what} ({ended}); the sliver is as it was")).way_out(way_out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_it_says_of_itself() {
        let debian = Rsync::parse(
            b"rsync  version 3.2.7  protocol version 31\nCapabilities:\n    socketpairs, symlinks, symtimes, hardlinks, \
             hardlink-specials,\n    append, ACLs, xattrs, optional secluded-args, iconv\n",
        );
        assert!(debian.info && debian.lacks().is_none());
        let router = Rsync::parse(
            b"rsync  version 3.0.9  protocol version 30\nCapabilities:\n    batchfiles, inplace,\n    append, no ACLs, no xattrs, no iconv\n",
        );
        assert!(!router.info);
        assert_eq!(router.lacks(), Some("ACLs and extended attributes"));
    }

    #[test]
    fn statistics() {
        let text = b"\nNumber of files: 9 (reg: 3)\nNumber of created files: 1,002 (reg: 1)\nNumber of deleted files: 4\n\
                    Number of regular files transferred: 3\nTotal file size: 4 bytes\nTotal transferred file size: 1,048,576 bytes\n";
        assert_eq!(Stats::parse(text), Stats { files: 3, created: 1002, deleted: 4, bytes: 1 << 20 });
        assert!(failed("exit code 23").to_string().contains("not everything"));
    }
}
