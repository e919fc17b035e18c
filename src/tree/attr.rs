//! Which extended attributes belong to a base, and how they are read and written.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::{Dir, SELF};
use crate::sys::xattr;

/// An attribute: its name and its value.
pub type Attr = (CString, Vec<u8>);

/// Whether a base keeps the attribute, and its digest counts it.
///
/// Kept are `user.*`, `trusted.*`, file capabilities and POSIX ACLs. Labels and signatures (`security.selinux`,
/// `security.ima`, …) belong to the system that runs, not to the tree, and are left behind.
pub fn kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || same(name, b"security.capability")
        || same(name, b"system.posix_acl_access")
        || same(name, b"system.posix_acl_default")
}

/// Are these the same name? Out of line: in line, a name that is known takes some 30 instructions.
#[inline(never)]
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    one == other
}

/// Whether the attribute means something to a union file system: in a base it would hide, redirect or forge entries
/// of the view (`trusted.overlay.opaque`, `user.overlay.redirect`, `user.fuseoverlayfs.opaque`).
pub fn forged(name: &[u8]) -> bool {
    let rest = name.iter().position(|b| *b == b'.').and_then(|dot| name.get(dot..)).unwrap_or_default();
    rest.starts_with(b".overlay.") || rest.starts_with(b".fuseoverlayfs.")
}

/// The names of all attributes of an entry. None where the disk has no attributes.
pub fn names(dir: &Dir, name: &CStr) -> nix::Result<Vec<CString>> {
    names_of(dir, name, None)
}

/// The same of an entry that may be open already: then nothing is looked up.
pub fn names_of(dir: &Dir, name: &CStr, open: Option<BorrowedFd<'_>>) -> nix::Result<Vec<CString>> {
    let listed = match open.or_else(|| (name == SELF).then(|| dir.as_fd())) {
        Some(open) => xattr::list_of(open),
        None => xattr::list(&dir.proc_path(name)),
    };
    match listed {
        Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        listed => listed,
    }
}

/// Those of the attributes `names` of an entry that a base keeps, sorted by name, with their values.
pub fn read(dir: &Dir, name: &CStr, names: Vec<CString>) -> nix::Result<Vec<Attr>> {
    read_some(dir, name, names, &|attr| kept(attr.to_bytes()))
}

/// The same of those that are `wanted`. What the system lists but does not read is passed over where no base keeps it.
pub fn read_some(
    dir: &Dir,
    name: &CStr,
    mut names: Vec<CString>,
    wanted: &dyn Fn(&CStr) -> bool,
) -> nix::Result<Vec<Attr>> {
    let mut attrs = Vec::new();
    if names.is_empty() {
        return Ok(attrs);
    }
    names.sort_unstable();
    let path = dir.proc_path(name);
    for attr in names {
        if !wanted(&attr) {
            continue;
        }
        match xattr::get(&path, &attr) {
            Ok(value) => attrs.push((attr, value)),
            Err(Errno::ENODATA) => {}
            Err(Errno::EOPNOTSUPP) if !kept(attr.to_bytes()) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(attrs)
}

/// Sets attributes on an entry.
pub fn write(dir: &Dir, name: &CStr, attrs: &[Attr]) -> nix::Result<()> {
    if attrs.is_empty() {
        return Ok(());
    }
    let path = dir.proc_path(name);
    attrs.iter().try_for_each(|(attr, value)| xattr::set(&path, attr, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_base_keeps() {
        for name in ["user.x", "trusted.x", "security.capability", "system.posix_acl_default"] {
            assert!(kept(name.as_bytes()), "{name}");
        }
        for name in ["security.selinux", "security.ima", "system.nfs4_acl", "btrfs.compression", "user"] {
            assert!(!kept(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_a_union_would_obey() {
        for name in
            ["trusted.overlay.opaque", "user.overlay.", "user.fuseoverlayfs.opaque", "x.overlay.overlay.y"]
        {
            assert!(forged(name.as_bytes()), "{name}");
        }
        for name in ["user.overlay", "user.overlays.x", "overlay.opaque", "trusted.x.overlay.y", ""] {
            assert!(!forged(name.as_bytes()), "{name}");
        }
    }
}
