//! Unpacks a layer: an OCI image layer, or the dump of an overlayfs store.
//!
//! What comes out is a store of aufs's: OCI has its whiteouts from there. Its folders that the layer does not name are marked
//! ([`super::is_unnamed`]). Where a whiteout's own name would be too long, a socket has the name that it hides: no archive holds any.

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::place::{components, is_unnamed};
use super::reader::{Member, Reader, What};
use super::refuse;
use super::stream::Stream;
use super::unpack::{ONE_OF_BOTH, Policy, Unpack};
use crate::error::Result;
use crate::layer::{OPAQUE, TARGET, WH};
use crate::tree::{Dir, Kind, Meta, SELF, Stat, Step, Walk, c_name, sys};

/// Bytes of a name, on each disk that a base may lie on.
const NAME_MAX: usize = 255;

/// Unpacks a layer into an empty folder, by the rules of [`super::unpack`] and more: whiteouts are empty regular files; the root is
/// not opaque; no folder has a whiteout's name. `dump` says whether it is a dump of an overlayfs store; where that is not known,
/// the first whiteout tells. Was it one? Links to `(overlay-whiteout)` were taken as whiteouts then, and its marks as such.
pub fn unpack_layer(from: &mut dyn Stream, root: &Dir, dump: Option<bool>) -> Result<bool> {
    let mut to = Unpack::new(root, Policy::Layer)?;
    let mut reader = Reader::new(from);
    let mut kind = dump;
    while let Some(mut member) = reader.member()? {
        let marked = dump != Some(false) && take_mark(&mut member);
        let path = &member.path;
        let parts = components(path, path, "has a path that")?;
        let Some((name, parents)) = parts.split_last() else {
            to.member(&member, &mut reader)?;
            continue;
        };
        // aufs's own, in layers that were made on it: they mean nothing to others.
        let first = parts.first().map(|part| part.to_bytes()).unwrap_or_default();
        if first.starts_with(b".wh..wh.") && first != OPAQUE.to_bytes() {
            continue;
        }
        let is_mark = |name: &CString| name.to_bytes().starts_with(WH);
        if parents.iter().any(is_mark) {
            return Err(refuse(path, "lies in a folder with the name of a whiteout"));
        }
        if is_mark(name) {
            if kind == Some(true) {
                return Err(refuse(path, "has the name of an OCI whiteout, in a dump of overlayfs"));
            }
            kind = Some(false);
            if !matches!(member.what, What::File(0, _)) {
                return Err(refuse(path, "has the name of a whiteout, and is no empty file"));
            }
            if name.as_c_str() == OPAQUE && parents.is_empty() {
                return Err(refuse(path, "hides the whole base, which then is none"));
            }
            if name.to_bytes().starts_with(b".wh..wh.") && name.as_c_str() != OPAQUE
                || matches!(name.to_bytes().strip_prefix(WH), Some(b"" | b"." | b".."))
            {
                return Err(refuse(path, "is a whiteout of no name"));
            }
        }
        let gone = name.to_bytes().strip_prefix(WH).unwrap_or(name.to_bytes());
        let link = matches!(&member.what, What::Link(target) if marked || target == TARGET);
        let dumped = dump != Some(false) && (marked || link);
        if dumped {
            if kind == Some(false) {
                return Err(refuse(path, "has a mark of overlayfs, beside others of OCI")
                    .way_out("say which they are: --format oci, or --format overlayfs"));
            }
            kind = Some(true);
        }
        let long = gone.len() + WH.len() > NAME_MAX;
        if dumped && link || long && is_mark(name) {
            let gone = c_name(gone)?;
            // What the layer has by the name needs no whiteout: see `settle`.
            if long {
                match to.enter(parents, path)?.way.here().stat_at(&gone) {
                    Ok(Stat { kind: Kind::Dir, .. }) => {
                        return Err(refuse(path, "would replace a directory").way_out(ONE_OF_BOTH));
                    }
                    Ok(_) => continue,
                    Err(_) => {}
                }
            }
            let mut mark = Vec::new();
            for part in parents {
                mark.extend_from_slice(part.to_bytes());
                mark.push(b'/');
            }
            mark.extend_from_slice(if long { b"" } else { WH });
            mark.extend_from_slice(gone.to_bytes());
            let what = if long { What::Node(Kind::Socket, (0, 0)) } else { What::File(0, None) };
            plain(&mut to, mark, what, &mut reader)?;
            continue;
        }
        to.member(&member, &mut reader)?;
        if marked {
            let path = [path, &b"/"[..], OPAQUE.to_bytes()].concat();
            plain(&mut to, path, What::File(0, None), &mut reader)?;
        }
    }
    to.leave()?;
    let dump = kind == Some(true);
    if dump {
        // A dump of a whole disk has it, and no sliver made it.
        let before = root.stat().map_err(sys("look at", b"."))?.mtime;
        if root.remove_dir(c"lost+found").is_ok() {
            root.set_mtime(SELF, before).map_err(sys("set the time of", b"."))?;
        }
    }
    settle(root)?;
    Ok(dump)
}

/// Makes what stands for something else: nobody sees its owner, mode and time.
fn plain(to: &mut Unpack<'_>, path: Vec<u8>, what: What, reader: &mut Reader<'_>) -> Result<()> {
    to.member(&Member { path, what, meta: Meta::default() }, reader)
}

/// Takes overlayfs's mark from a folder that is opaque, or a link that is a whiteout, in the dump of a store; was there one? All other
/// attributes of a union's are refused.
fn take_mark(member: &mut Member) -> bool {
    let mark = match &member.what {
        What::Dir => c"trusted.overlay.opaque",
        What::Link(_) => c"trusted.overlay.whiteout",
        What::File(..) | What::HardLink(_) | What::Node(..) => return false,
    };
    // No name stands there twice.
    let attrs = &mut member.meta.attrs;
    let at = attrs.iter().position(|(name, value)| name.as_c_str() == mark && value == b"y");
    at.map(|at| attrs.swap_remove(at)).is_some()
}

/// A whiteout in a layer hides what lies below the layer, and never the layer's own: where both have a name, a folder is made opaque
/// in place of the whiteout, and what is none needs no whiteout. A folder that is only there since something in it is deleted, and
/// is deleted itself, goes.
fn settle(root: &Dir) -> Result<()> {
    let mut walk = Walk::new(root.again().map_err(sys("open", b"."))?, b"")?;
    // Of each folder on the way down: does nothing of the base show in it?
    let mut hidden = Vec::new();
    while let Some(step) = walk.step()? {
        match step {
            Step::Entry(entry) if entry.stat.kind == Kind::Dir => {
                let here = stands(entry.dir, &mark_of(entry.name)?) || stands_in(entry.dir, entry.name);
                hidden.push(here || hidden.last().copied().unwrap_or(false));
                walk.enter()?;
            }
            Step::Entry(entry) => {
                let whited = entry.name.to_bytes().strip_prefix(WH).map(c_name).transpose()?;
                let other = whited.as_deref().and_then(|name| entry.dir.stat_at(name).ok());
                if other.is_some_and(|stat| stat.kind != Kind::Dir) {
                    drop_mark(entry.dir, entry.name).map_err(sys("settle", entry.path))?;
                }
            }
            Step::Leave { dir, name, path } => {
                hidden.pop();
                let above = hidden.last().copied().unwrap_or(false);
                left(dir, name, above).map_err(sys("settle", path))?;
            }
        }
    }
    Ok(())
}

/// Settles a folder whose inside is settled.
fn left(dir: &Dir, name: &CStr, above: bool) -> nix::Result<()> {
    let mark = mark_of(name).map_err(|_| Errno::EINVAL)?;
    let whited = stands(dir, &mark);
    if !whited && !above {
        return Ok(());
    }
    let before = dir.stat()?.mtime;
    let inside = dir.child(name)?;
    let mut marks = is_unnamed(&dir.stat_at(name)?);
    if marks {
        inside.each_name(&mut |name| {
            marks = name.to_bytes().starts_with(WH) || inside.stat_at(name)?.kind == Kind::Socket;
            Ok(marks)
        })?;
    }
    if marks {
        inside.each_name(&mut |name| inside.unlink(name).map(|()| true))?;
        dir.remove_dir(name)?;
        return dir.set_mtime(SELF, before);
    }
    if whited {
        let inner = inside.stat()?.mtime;
        match inside.create_file(OPAQUE) {
            Err(Errno::EEXIST) => {}
            made => made.map(drop)?,
        }
        inside.set_mtime(SELF, inner)?;
        drop_mark(dir, &mark)?;
    }
    Ok(())
}

fn mark_of(name: &CStr) -> Result<CString> {
    c_name(&[WH, name.to_bytes()].concat())
}

fn stands(dir: &Dir, name: &CStr) -> bool {
    dir.stat_at(name).is_ok()
}

/// Is the folder marked as opaque?
fn stands_in(dir: &Dir, name: &CStr) -> bool {
    dir.child(name).is_ok_and(|child| stands(&child, OPAQUE))
}

fn drop_mark(dir: &Dir, name: &CStr) -> nix::Result<()> {
    let before = dir.stat()?.mtime;
    dir.unlink(name)?;
    dir.set_mtime(SELF, before)
}
