//! In what two entries differ.

use std::ffi::CStr;
use std::fs::File;

use nix::errno::Errno;

use super::{Entry, Format, Side};
use crate::error::Result;
use crate::tree::attr::{self, Attr};
use crate::tree::{Kind, Stat, equal, sys};

/// A set of the ways in which an entry of the view differs from the base's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aspects(u8);

impl Aspects {
    /// In nothing.
    pub const NONE: Self = Self(0);
    /// In what it is: a file, a link, a device of these numbers, …
    pub const TYPE: Self = Self(1);
    /// In what it holds: a file's bytes, a link's target.
    pub const CONTENT: Self = Self(2);
    /// In the mode.
    pub const MODE: Self = Self(4);
    /// In owner or group.
    pub const OWNER: Self = Self(8);
    /// In the extended attributes that the view shows.
    pub const ATTRS: Self = Self(16);
    /// In the time of the last change.
    pub const TIME: Self = Self(32);
    /// In the number of names. Only looked at in whole trees: a union's store does not have the base's other names.
    pub const LINKS: Self = Self(64);

    /// Each of them with its name.
    pub const NAMES: [(Self, &'static str); 7] = [
        (Self::TYPE, "type"),
        (Self::CONTENT, "content"),
        (Self::MODE, "mode"),
        (Self::OWNER, "owner"),
        (Self::ATTRS, "xattr"),
        (Self::TIME, "time"),
        (Self::LINKS, "links"),
    ];

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Are there none?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Is one of the others among them?
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn add(&mut self, other: Self, differ: bool) {
        if differ {
            self.0 |= other.0;
        }
    }
}

/// How an entry differs from what the base has; none where either is missing. Contents are read where nothing less decides.
pub fn differences(format: Format, entry: &Entry<'_>) -> Result<Aspects> {
    let (Some(node), Some(base)) = (&entry.node, &entry.base) else { return Ok(Aspects::NONE) };
    if let Some(found) = entry.differs {
        return Ok(found);
    }
    match sides(format, node, entry.data.as_ref().unwrap_or(node), base) {
        // Replaced while it was looked at, in a view that is mounted.
        Err(Errno::ENOENT | Errno::ESTALE) => Ok(Aspects::CONTENT),
        found => found.map_err(sys("compare", entry.path)),
    }
}

/// As above for what lies where; `data` is where the content does.
pub(super) fn sides(
    format: Format,
    node: &Side<'_>,
    data: &Side<'_>,
    base: &Side<'_>,
) -> nix::Result<Aspects> {
    let (new, old) = (node.stat, base.stat);
    let mut found = at_sight(new, data.stat, old);
    if found.has(Aspects::TYPE) {
        return Ok(found);
    }
    let untouched = new.id.1 == old.id.1 && new.ctime == old.ctime && new.size == old.size;
    if new.id == old.id || format == Format::Snapshot && untouched {
        return Ok(Aspects::NONE);
    }
    found.add(Aspects::LINKS, format.whole() && new.kind != Kind::Dir && new.links != old.links);
    found.add(Aspects::ATTRS, attrs(node, format)? != attrs(base, Format::Tree)?);
    let other = match new.kind {
        Kind::File => !found.has(Aspects::CONTENT) && data.stat.id != old.id && !same_content(data, base)?,
        Kind::Link => node.dir.read_link(node.name)? != base.dir.read_link(base.name)?,
        Kind::Dir | Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket => false,
    };
    found.add(Aspects::CONTENT, other);
    Ok(found)
}

/// What lstat(2) alone tells of how they differ: where that is the type, nothing else. `data` is what has the content of `new`.
pub(super) fn at_sight(new: &Stat, data: &Stat, old: &Stat) -> Aspects {
    let device = |stat: &Stat| match stat.kind {
        Kind::Char | Kind::Block => stat.device,
        Kind::Dir | Kind::File | Kind::Link | Kind::Fifo | Kind::Socket => (0, 0),
    };
    let mut found = Aspects::NONE;
    found.add(Aspects::TYPE, new.kind != old.kind || device(new) != device(old));
    if found.is_empty() {
        found.add(Aspects::MODE, new.kind != Kind::Link && new.mode != old.mode);
        found.add(Aspects::OWNER, (new.uid, new.gid) != (old.uid, old.gid));
        found.add(Aspects::TIME, new.mtime != old.mtime);
        found.add(Aspects::CONTENT, new.kind == Kind::File && data.size != old.size);
    }
    found
}

/// Do two files of one size hold the same?
fn same_content(one: &Side<'_>, other: &Side<'_>) -> nix::Result<bool> {
    let (mut held, mut others) = (None, None);
    equal(opened(one, &mut held)?, opened(other, &mut others)?, 0, one.stat.size)
}

/// A regular file that may be open already; `held` keeps it open where it is not.
pub(super) fn opened<'a>(side: &Side<'a>, held: &'a mut Option<File>) -> nix::Result<&'a File> {
    match &side.more.file {
        Some(file) => Ok(file),
        None => Ok(held.insert(side.dir.open_file(side.name, side.stat)?)),
    }
}

/// The attributes that the view shows of an entry, sorted.
pub(super) fn attrs(side: &Side<'_>, format: Format) -> nix::Result<Vec<Attr>> {
    let shows = |name: &CStr| {
        attr::kept(name.to_bytes()) && (format.own(name).is_none() || format.shown(name).is_some())
    };
    let mut attrs = attr::read_some(side.dir, side.name, side.attr_names()?, &shows)?;
    for (name, _) in &mut attrs {
        if let Some(shown) = format.shown(name) {
            *name = shown;
        }
    }
    Ok(attrs)
}
