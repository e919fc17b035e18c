//! `sliverfs sync`: makes a sliver's view what rsync brings, in a copy of its store that then takes the store's place.

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::Serialize;

use crate::backend::probe;
use crate::backend::store::{Ground, layer};
use crate::catalog::base::Base;
use crate::catalog::import::refuse_empty;
use crate::catalog::{Root, Sliver, sweep};
use crate::cli::Args;
use crate::cmd::replace::{self, Keep};
use crate::cmd::{Ctx, offline};
use crate::error::{Context, Error, Result};
use crate::kind::Kind;
use crate::layer::{Aspects, Compact, Format, Scratch, survey};
use crate::mount::plan::Step;
use crate::mount::{exec, fuse, private, seed};
use crate::out;
use crate::quota::{Limit, anew, image};
use crate::size::Size;
use crate::stay::Below;
use crate::sys::child::Answer;
use crate::sys::rsync::{Rsync, Stats};
use crate::sys::{file, statfs};
use crate::tree;
use crate::view;

/// What `sync --json` prints: see docs/json.md.
#[derive(Serialize)]
struct Sheet<'a> {
    name: &'a str,
    source: &'a str,
    dry_run: bool,
    files: u64,
    created: u64,
    deleted: u64,
    bytes: u64,
    kept_store: Option<&'static Path>,
}

/// Syncs a sliver that is mounted nowhere.
pub fn run(ctx: &mut Ctx, args: &Args) -> Result<()> {
    let name = &args.name()?;
    let root = ctx.root()?;
    let source = Source::parse(args.word(1), root)?;
    let _lock = root.lock_sliver(name)?;
    let sliver = Sliver::load(root, name)?;
    let mut rsync = Rsync::find()?;
    // Once it has listed a folder that was made anew, fuse-overlayfs 1.10 finds by name what the base has there: rsync would leave that.
    rsync.lists_last = sliver.backend == Kind::FuseOverlayfs;
    let base = view::base_of(root, sliver)?;
    offline::refuse_to_read(root, sliver)?;
    statfs::refuse_read_only(root.stores())?;
    if replace::kept(root, sliver)?.is_some_and(|kept| kept.base != sliver.base) {
        // It may have been mounted since, and what it changed then would be kept nowhere.
        return Err(Error::failed(format_args!(
            "`{name}` was rebased, and keeps the store from before: the one of now could not be kept beside it"
        ))
        .way_out(format_args!("sliverfs rebase {name} --commit, or --undo, and then again")));
    }
    let attrs = !Format::of(sliver.backend).loses().has(Aspects::ATTRS);
    if let Some(lacks) = rsync.lacks().filter(|_| attrs) {
        crate::warn!("the installed rsync is built without {lacks}: what comes has none of them");
    }
    let work = Work { root, sliver, base, source: &source, rsync, attrs };
    if sliver.backend == Kind::BtrfsSnapshot {
        // A snapshot has an empty folder where its source has a subvolume.
        let (store, base) = (
            tree::open_store(root.store(name).below("tree"))?,
            tree::open(work.ground(sliver.quota)?.tree())?,
        );
        survey(Format::Tree, &store, &base, Format::Tree)?.check(Format::Snapshot)?;
    }
    let told = if args.dry_run { work.list(args.json)? } else { work.publish(args.json)? };
    let Stats { files, created, deleted, bytes } = Stats::parse(told);
    let kept = Some(sweep::kept_store(root, name)).filter(|_| !args.dry_run);
    if args.json {
        let (name, source, dry_run) = (name.as_str(), args.word(1), args.dry_run);
        return out::json(&Sheet { name, source, dry_run, files, created, deleted, bytes, kept_store: kept });
    }
    if kept.is_none() {
        return Ok(());
    }
    out::line(format_args!(
        "`{name}` is as the source: {files} files with {} came, {created} entries are new, {deleted} are removed",
        Size(bytes)
    ))?;
    replace::tell_kept(root, name)
}

/// Where rsync reads from, as the argument that it is given.
struct Source {
    word: OsString,
    /// A folder here, held open: the namespace that rsync runs in has none of the views, of which it may be one.
    _held: Option<File>,
}

impl Source {
    /// Takes a folder here, `[USER@]HOST:PATH`, `[USER@]HOST::MODULE[/PATH]` or `rsync://[USER@]HOST[:PORT]/MODULE[/PATH]`.
    fn parse(text: &str, root: &Root) -> Result<Self> {
        let wrong = |what: &str| {
            Err(Error::usage(format_args!("`{}` {what}", out::escape(text.as_bytes()))).way_out(
                "a source is a directory, [USER@]HOST:PATH, [USER@]HOST::MODULE/PATH or rsync://HOST/MODULE/PATH",
            ))
        };
        if text.is_empty() || text.starts_with('-') {
            return wrong("is no source");
        }
        let mut folder = text.to_owned();
        if !folder.ends_with('/') {
            folder.push('/');
        }
        let away = match text.strip_prefix("rsync://") {
            Some(rest) => Some(rest.split_once('/').unwrap_or((rest, ""))),
            // rsync's own rule: a colon before any slash.
            None => {
                colon(text).filter(|colon| !text.bytes().take(*colon).any(|byte| byte == b'/')).map(|colon| {
                    let (host, path) = text.split_at(colon);
                    (host, path.trim_start_matches(':'))
                })
            }
        };
        if let Some((host, path)) = away {
            if !is_host(host) || path.is_empty() {
                return wrong("names no host, or nothing on it");
            }
            return Ok(Self { word: folder.into(), _held: None });
        }
        let path = std::fs::canonicalize(text).at("open the source", Path::new(text))?;
        if root.path().starts_with(&path) {
            return wrong("holds the slivers themselves");
        }
        if !path.is_dir() {
            return wrong("is not a directory");
        }
        refuse_empty(&path)?;
        let held = file::open(&path).at("open the source", &path)?;
        fcntl(&held, FcntlArg::F_SETFD(FdFlag::empty())).at("hand on", &path)?;
        let word = format!("/proc/self/fd/{}/", held.as_raw_fd());
        Ok(Self { word: word.into(), _held: Some(held) })
    }
}

/// Where the host ends: an address of IPv6 stands in brackets.
fn colon(text: &str) -> Option<usize> {
    let from = text.find('[').and_then(|open| text.find(']').filter(|close| open < *close)).unwrap_or(0);
    text.get(from..)?.find(':').map(|at| at + from)
}

/// Neither a user nor a host may look like an option to ssh.
fn is_host(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-[]:%+".contains(&byte);
    text.split('@').count() <= 2
        && text.split('@').all(|part| !part.is_empty() && !part.starts_with('-') && part.bytes().all(known))
}

struct Work<'a> {
    root: &'a Root,
    sliver: &'a Sliver,
    base: &'a Base,
    source: &'a Source,
    rsync: Rsync,
    attrs: bool,
}

impl Work<'_> {
    fn ground(&self, limit: Option<&'static Limit>) -> Result<Ground<'_>> {
        let kind = self.sliver.backend;
        Ok(Ground {
            root: self.root,
            base: self.base,
            kind,
            features: probe::features(self.root, kind)?,
            limit,
        })
    }

    /// Tells what would change, in a view of the store itself: nothing is written through it.
    fn list(&self, quiet: bool) -> Answer {
        let ground = self.ground(self.sliver.quota)?;
        let name = &self.sliver.name;
        private::beside(self.root, name, &mut || {
            // In this namespace it is a free mount point.
            let (stored, view) = (self.root.store(name), self.root.run().below("mounted"));
            if Format::of(ground.kind).whole() && !ground.kind.grows_image() {
                let tree = image::content(stored).join(layer(ground.kind));
                return self.rsync.run(&self.source.word, &tree, self.attrs, true, quiet, false);
            }
            let mut steps = Vec::new();
            ground.open(self.sliver, &mut steps)?;
            exec::run(&steps)?;
            steps.clear();
            ground.mount(name.as_str(), view, &mut steps)?;
            self.run(&steps, view, &|| {
                self.rsync.run(&self.source.word, view, self.attrs, true, quiet, false)
            })
        })
    }

    /// Runs rsync in a view that these steps mount, and waits for the end of what serves it.
    fn run(&self, mount: &[Step], view: &Path, rsync: &dyn Fn() -> Answer) -> Answer {
        let mut daemon = None;
        for step in mount {
            match step {
                Step::Serve(call) => daemon = Some(fuse::serve(call)?),
                step => exec::run(std::slice::from_ref(step))?,
            }
        }
        let mut done = rsync();
        if self.sliver.backend.grows_image() {
            done = done.and_then(|told| seed::written(view).map(|()| told));
        }
        let unmounted = exec::unmount(view);
        if let Some(mut daemon) = daemon {
            // One that lives on would write into what is no more its own.
            let ended = match unmounted {
                Ok(()) => daemon.wait().at("wait for the daemon of", view)?,
                // Why it cannot be unmounted says more.
                Err(_) => {
                    daemon.kill();
                    None
                }
            };
            if let (Some(how), Ok(_)) = (ended, &done) {
                return Err(Error::failed(format_args!(
                    "fuse-overlayfs failed ({how}); the sliver is as it was"
                )));
            }
        }
        done.and_then(|told| unmounted.map(|()| told))
    }

    /// Makes the new store, and lets it change places with the old one.
    fn publish(&self, quiet: bool) -> Answer {
        let (root, name) = (self.root, &self.sliver.name);
        let kept = replace::kept(root, self.sliver)?;
        let keep = if kept.is_some() { Keep::Earlier } else { Keep::Own };
        replace::prepare(root, self.sliver, kept.is_some(), self.sliver.quota)?;
        let watched = !quiet && std::io::stderr().is_terminal();
        let told = replace::beside(root, name, self.sliver.quota, false, &mut || self.make(watched))?;
        replace::put(root, name, &replace::publish(root, name, keep), &|_| Ok(()))?;
        Ok(told)
    }

    /// The new store: a copy of the old one, written through a view of it, and compacted.
    fn make(&self, watched: bool) -> Answer {
        let (root, name, kind) = (self.root, &self.sliver.name, self.sliver.backend);
        let (stored, stage) = (root.store(name), sweep::new_store(root, name));
        let view = stage.below(".view");
        let format = Format::of(kind);
        let limit = anew::renew(root, self.sliver.quota, (kind, self.base), false)?;
        let ground = &self.ground(limit)?;
        let mut steps = Vec::new();
        ground.open(self.sliver, &mut steps)?;
        let inner = ground.begin(stage, image::shape(stored), &mut steps);
        let new = inner.below(layer(kind));
        ground.again(image::content(stored).below(layer(kind)), inner, &mut steps);
        steps.push(Step::CreateDir(view));
        exec::run(&steps)?;
        steps.clear();
        ground.mount(&format!(".new.{name}"), view, &mut steps)?;
        let told = self.run(&steps, view, &|| {
            self.rsync.run(&self.source.word, view, self.attrs, false, true, watched)
        })?;
        exec::run(&[Step::RemoveDir(view)])?;
        if !format.whole() {
            let scratch = Scratch::beside(tree::open(inner)?);
            let (mut tell, mut compared) = (|_: &str, _: &[u8]| Ok(()), |_| ());
            let compact = Compact::new(format, &scratch, Aspects::NONE, false, &mut tell, &mut compared);
            compact.run(tree::open(new)?, &tree::open(ground.tree())?)?;
        }
        replace::finish(root, &self.sliver.anew(limit))?;
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in ["node", "root@10.0.0.1", "[fe80::1%eth0]", "u@[::1]", "h:873"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "-oProxyCommand=x", "u@-o", "-l@h", "a b", "@h", "h;x", "a@b@c", "$(x)"] {
            assert!(!is_host(host), "{host}");
        }
        assert_eq!(colon("u@[::1]:p"), Some(7));
        assert_eq!(colon("h::m"), Some(1));
    }
}
