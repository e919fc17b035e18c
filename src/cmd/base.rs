//! `sliverfs base add|list|show|verify|remove`.

use std::path::Path;

use serde::Serialize;

use crate::catalog::base::{self, Added, Attrs, Base};
use crate::catalog::import::sha256;
use crate::catalog::{Root, Sliver, staging};
use crate::cli::Args;
use crate::error::{Class, Error, Result};
use crate::form::Form;
use crate::image;
use crate::mount::exec;
use crate::mount::mountinfo::MountInfo;
use crate::name::Name;
use crate::out::{self, Table};
use crate::progress::Progress;
use crate::shell;
use crate::size::Size;
use crate::stay::Below;
use crate::sys::{loopdev, pause};
use crate::tree::{self, Summary};

/// Imports a base. `root` need not carry the marker yet: a base that is added by hand makes it.
pub fn add(root: &Root, args: &Args) -> Result<()> {
    let (name, source) = (&args.name()?, Path::new(args.word(1)));
    let pack = args.pack.parse(parse_pack)?;
    if args.dry_run {
        return base::plan(root, name, source, pack)?.iter().try_for_each(out::line);
    }
    let Added { base, new } = base::add(root, name, source, pack)?;
    if new {
        out::line(format_args!(
            "the base `{}` is added: {} entries, {} of files, {} on the disk as {}, digest {}",
            base.name,
            base.entries,
            Size(base.bytes),
            Size(base.disk),
            base.form.name(),
            base.digest
        ))
    } else {
        out::line(format_args!(
            "the base `{}` is there already, from the same source: nothing was imported",
            base.name
        ))
    }
}

fn parse_pack(text: &str) -> Result<Form> {
    Form::IMAGES.into_iter().find(|form| form.name() == text).ok_or_else(|| {
        Error::usage(format_args!("`{}` is no image format", out::escape(text.as_bytes())))
            .way_out("--pack takes squashfs, erofs or btrfs")
    })
}

/// Lists the bases. One with a damaged record is listed too, and makes the command fail at the end.
pub fn list(root: &Root, args: &Args) -> Result<()> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Row {
        Whole(&'static Base),
        Damaged { name: Name, error: String },
    }
    let mut rows = Vec::new();
    let mut failed: Option<Error> = None;
    for name in Base::names(root)? {
        match Base::load(root, &name) {
            Ok(base) => rows.push(Row::Whole(base)),
            Err(err) => {
                rows.push(Row::Damaged { name, error: err.to_string() });
                failed = Some(err);
            }
        }
    }
    if args.json {
        out::json(&rows)?;
    } else {
        let mut table = Table::new(&["NAME", "FORM", "ENTRIES", "SIZE", "DISK", "XATTRS", "DIGEST"]);
        for row in &rows {
            match row {
                Row::Whole(base) => table.row(&[
                    base.name.as_str(),
                    base.form.name(),
                    &base.entries.to_string(),
                    &Size(base.bytes).to_string(),
                    &Size(base.disk).to_string(),
                    short(base.xattrs),
                    base.digest.get(..base.digest.len().min(30)).unwrap_or(base.digest),
                ]),
                Row::Damaged { name, .. } => table.row(&[name.as_str(), "damaged"]),
            }
        }
        table.print()?;
    }
    failed.map_or(Ok(()), Err)
}

fn short(attrs: Attrs) -> &'static str {
    match attrs {
        Attrs::Hidden => "hidden",
        other => other.name(),
    }
}

/// A base as `show --json` prints it: its record and who uses it.
#[derive(Serialize)]
struct Sheet {
    #[serde(flatten)]
    base: &'static Base,
    slivers: Vec<Name>,
}

/// Shows a base's record and who uses it.
pub fn show(root: &Root, args: &Args) -> Result<()> {
    let name = &args.name()?;
    let base = Base::load(root, name)?;
    let slivers = Sliver::users(root, name)?;
    if args.json {
        return out::json(&Sheet { base, slivers });
    }
    let mut table = Table::new(&["name", base.name.as_str()]);
    let users = slivers.iter().map(Name::as_str).collect::<Vec<_>>().join(" ");
    for (label, value) in [
        ("form", base.form.name()),
        ("source", base.source),
        ("entries", &base.entries.to_string()),
        ("size of files", &Size(base.bytes).to_string()),
        ("on the disk", &Size(base.disk).to_string()),
        ("xattrs", base.xattrs.name()),
        ("digest", base.digest),
        ("image sha256", base.image_sha256.unwrap_or("-")),
        ("slivers", if users.is_empty() { "-" } else { &users }),
    ] {
        table.row(&[label, value]);
    }
    table.print()
}

/// What `verify --json` prints.
#[derive(Serialize)]
struct Verdict {
    name: Name,
    ok: bool,
    /// What is recorded, and what was found now; none where this kernel cannot tell.
    digest: &'static str,
    found_digest: Option<&'static str>,
    entries: u64,
    found_entries: Option<u64>,
    bytes: u64,
    found_bytes: Option<u64>,
    image_sha256: Option<&'static str>,
    found_image_sha256: Option<&'static str>,
    xattrs_hidden: bool,
}

/// Computes a base's digest again. A difference is [`Class::Damaged`].
pub fn verify(root: &Root, args: &Args) -> Result<()> {
    let base = Base::load(root, &args.name()?)?;
    let mut verdict = Verdict {
        name: base.name,
        ok: true,
        digest: base.digest,
        found_digest: None,
        entries: base.entries,
        found_entries: None,
        bytes: base.bytes,
        found_bytes: None,
        image_sha256: base.image_sha256,
        found_image_sha256: None,
        xattrs_hidden: false,
    };
    let wrong = compare(root, base, &mut verdict);
    verdict.ok = wrong.is_ok();
    if args.json {
        out::json(&verdict)?;
    }
    wrong?;
    if args.json {
        return Ok(());
    }
    match &verdict.found_digest {
        Some(digest) => out::line(format_args!(
            "the base `{}` is whole: {} entries, digest {digest}",
            base.name, base.entries
        )),
        None => out::line(format_args!("the image of the base `{}` is whole", base.name)),
    }
}

fn compare(root: &Root, base: &Base, verdict: &mut Verdict) -> Result<()> {
    let content = base.present(root)?;
    let damaged = |what: String| {
        Err(Error::damaged(format_args!("the base `{}` is not what was added: {what}", base.name)).way_out(
            format_args!("slivers on it may misbehave; add it again from {} under another name", base.source),
        ))
    };
    let summary = match base.image(root) {
        None => {
            let progress = Progress::new("verifying", Some(base.bytes));
            let root = tree::open(content)?;
            tree::digest(&root, path_bytes(content), true, &mut |bytes| progress.add(bytes))?
        }
        Some((_, file)) => {
            let sum = sha256(file)?;
            let changed = base.image_sha256.is_some_and(|recorded| recorded != sum);
            verdict.found_image_sha256 = Some(sum);
            if changed {
                let recorded = base.image_sha256.unwrap_or_default();
                return damaged(format!("{} has the SHA-256 {sum}, recorded is {recorded}", file.display()));
            }
            let counted = base.xattrs != Attrs::Hidden;
            let seen = image::look(file, base.form, root.base(&base.name), counted, Some(base.bytes))?;
            verdict.xattrs_hidden = seen.hidden;
            if seen.hidden {
                crate::warn!(
                    "this kernel does not show the extended attributes of a {} image: file capabilities in it have no effect here",
                    base.form.name()
                );
            }
            if seen.hidden && counted {
                // The digest counts what cannot be seen here; the image's own sum is right.
                return Ok(());
            }
            seen.summary
        }
    };
    let Summary { digest, entries, bytes, .. } = summary;
    verdict.found_entries = Some(entries);
    verdict.found_bytes = Some(bytes);
    verdict.found_digest = Some(digest);
    if digest == base.digest {
        return Ok(());
    }
    damaged(format!(
        "its digest is {digest}, recorded is {}; it holds {entries} entries and {bytes} bytes, recorded are {} and {}",
        base.digest, base.entries, base.bytes
    ))
}

fn path_bytes(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

/// Removes a base that no sliver uses: out of the catalog first, then from the disk.
pub fn remove(root: &Root, args: &Args) -> Result<()> {
    let name = &args.name()?;
    let folder = root.base(name);
    if folder.symlink_metadata().is_err() {
        return Err(Error::usage(format_args!("there is no base `{name}` in {}", root.path().display()))
            .way_out("`sliverfs base list` shows what there is"));
    }
    let lock = root.lock_catalog()?;
    let users = Sliver::users(root, name)?;
    if !users.is_empty() {
        let users = users.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
        return Err(Error::in_use(format_args!("the base `{name}` is used by {users}"))
            .way_out("destroy these slivers first, or rebase them; what a rebase keeps of one counts until `sliverfs rebase NAME --commit`, and so does a damaged record"));
    }
    let mount_point = root.base_mount(name);
    let mounted = MountInfo::of_self()?.at(mount_point).is_some();
    if args.dry_run {
        if mounted {
            out::line(format_args!("umount {}", shell::path(mount_point)))?;
        }
        return out::line(format_args!("rm -r {}", shell::path(folder)));
    }
    if mounted {
        exec::unmount(mount_point)?;
    }
    refuse_while_mounted(root, name)?;
    staging::retire(root, name)?;
    drop(lock);
    staging::sweep(root)?;
    out::line(format_args!("the base `{name}` is removed"))
}

/// Refuses while a loop device, in whatever mount namespace it is mounted, stands on one of the base's images.
fn refuse_while_mounted(root: &Root, name: &Name) -> Result<()> {
    for form in Form::IMAGES {
        let image = root.base(name).below(form.file());
        // Right after an unmount the kernel may still be letting go of the device.
        for attempt in 0..10 {
            let Some(device) = loopdev::bound_to(image)? else { break };
            if attempt == 9 {
                return Err(Error::new(
                    Class::InUse,
                    format_args!("the image {} is mounted through {}", image.display(), device.display()),
                )
                .way_out("look for it in /proc/*/mountinfo, and end the processes there"));
            }
            pause();
        }
    }
    Ok(())
}
