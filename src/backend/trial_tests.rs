#![allow(clippy::unwrap_used, clippy::panic)]
//! Trials on kernels that are not at hand: what each call was seen to answer there (2.6.32, 3.14 and 6.1 on MIPS).

use super::*;

/// A kernel as it was seen: which options it parses, and which calls fail on which disk.
#[derive(Clone)]
struct Recorded {
    filesystems: &'static str,
    module: Option<&'static str>,
    options: &'static [&'static str],
    mount: Result<(), Errno>,
    read_only: bool,
    fails: Option<(Edit, Errno)>,
    in_use: [Errno; 2],
    marks: bool,
    disk: DiskName,
    mounted: Option<String>,
    edits: Vec<Edit>,
}

const LAYERS: &[&str] = &["lowerdir", "upperdir", "workdir"];

impl Recorded {
    fn new(filesystems: &'static str, options: &'static [&'static str], disk: &'static str) -> Self {
        Self {
            filesystems,
            module: None,
            options,
            mount: Ok(()),
            read_only: false,
            fails: None,
            in_use: [Errno::EBUSY, Errno::EINVAL],
            marks: true,
            disk: DiskName { path: "/srv/lxc", fstype: disk },
            mounted: None,
            edits: Vec::new(),
        }
    }

    fn try_it(mut self, union: Union) -> (Verdict, Self) {
        let verdict = run(&mut self, union).unwrap();
        assert!(self.mounted.is_none(), "a trial view was left mounted");
        (verdict, self)
    }

    fn knows(&self, options: &str) -> bool {
        options.split(',').all(|option| self.options.contains(&option.split('=').next().unwrap_or("")))
    }
}

impl Kernel for Recorded {
    fn filesystems(&mut self) -> crate::error::Result<String> {
        Ok(self.filesystems.to_owned())
    }
    fn load_module(&mut self, fstype: &str) {
        if self.module == Some(fstype) {
            self.filesystems = "nodev\toverlay\n";
        }
    }
    fn ask(&mut self, _: &str, options: &Options) -> nix::Result<()> {
        Err(if self.knows(options.as_str()) { Errno::ENOENT } else { Errno::EINVAL })
    }
    fn mount(&mut self, fstype: &'static str, options: &Options) -> Result<(), Errno> {
        if !self.knows(options.as_str()) {
            return Err(Errno::EINVAL);
        }
        self.mount?;
        if options.as_str().contains("index=on") {
            let [busy, free] = self.in_use;
            return Err(if self.mounted.is_some() { busy } else { free });
        }
        self.mounted = Some(fstype.to_owned());
        Ok(())
    }
    fn read_only(&mut self) -> Result<bool, Errno> {
        Ok(self.read_only)
    }
    fn edit(&mut self, edit: Edit) -> Result<(), Errno> {
        self.edits.push(edit);
        match self.fails {
            Some((fails, errno)) if fails == edit => Err(errno),
            _ => Ok(()),
        }
    }
    fn unmount(&mut self) -> Result<(), Errno> {
        self.mounted = None;
        Ok(())
    }
    fn holds_deletion(&mut self, _: Union) -> bool {
        self.marks
    }
    fn disk(&self) -> &DiskName {
        &self.disk
    }
}

#[test]
fn whole_words_of_proc_filesystems() {
    let list = "nodev\tsysfs\nnodev\toverlayfs\n\text4\n";
    assert!(lists(list, "overlayfs") && lists(list, "ext4"));
    assert!(!lists(list, "overlay"), "2.6.39 has overlayfs, not overlay");
}

#[test]
fn mini_fo_on_2_6_32() {
    let kernel = Recorded::new("nodev\tmini_fo\n", &["base", "sto"], "ext2");
    let (verdict, kernel) = kernel.try_it(Union::MiniFo);
    assert!(verdict.works);
    assert!(
        !kernel.edits.contains(&Edit::ReplaceFolder),
        "rmdir of a base folder is EINVAL there, and not promised"
    );
    assert!(!Recorded::new("nodev\tmini_fo\n", &["base", "sto"], "ext2").try_it(Union::Overlay).0.offered);
}

#[test]
fn overlayfs_v21_on_3_14() {
    let kernel = Recorded::new("nodev\toverlayfs\n", &["lowerdir", "upperdir"], "ext2");
    let (verdict, _) = kernel.try_it(Union::Overlayfs);
    assert!(verdict.works, "{verdict:?}");
    assert!(!verdict.features.workdir, "workdir= is EINVAL there");
    // A disk without xattrs mounts; the first unlink fails.
    let mut vfat = Recorded::new("nodev\toverlayfs\n", &["lowerdir", "upperdir"], "vfat");
    vfat.fails = Some((Edit::Delete, Errno::EOPNOTSUPP));
    let (verdict, _) = vfat.try_it(Union::Overlayfs);
    assert!(!verdict.works && verdict.lasting);
    assert!(verdict.reason.unwrap().contains("vfat, which keeps no trusted extended attributes"));
}

#[test]
fn aufs_on_6_1() {
    let (verdict, _) = Recorded::new("nodev\taufs\n", &["br"], "ext2").try_it(Union::Aufs);
    assert!(verdict.works);
}

#[test]
fn overlay_on_jffs2_mounts_and_cannot_rename() {
    for edit in [Edit::Rename, Edit::ReplaceFolder] {
        let mut jffs2 = Recorded::new("nodev\toverlay\n", LAYERS, "jffs2");
        jffs2.fails = Some((edit, Errno::EINVAL));
        let (verdict, _) = jffs2.try_it(Union::Overlay);
        assert!(verdict.offered && !verdict.works && verdict.lasting);
        let reason = verdict.reason.unwrap();
        assert!(reason.contains("rename") && reason.contains("jffs2"), "{reason}");
    }
}

#[test]
fn a_store_on_an_overlay_is_told_as_such() {
    let mut nested = Recorded::new("nodev\toverlay\n", LAYERS, "overlay");
    nested.mount = Err(Errno::EINVAL);
    let reason = nested.try_it(Union::Overlay).0.reason.unwrap();
    assert_eq!(
        reason,
        "`/srv/lxc` lies on an overlay, which cannot carry the stores of another: use the raw /overlay or another disk"
    );
}

#[test]
fn a_read_only_view_is_no_view() {
    let mut kernel = Recorded::new("nodev\toverlay\n", LAYERS, "vfat");
    kernel.read_only = true;
    let (verdict, kernel) = kernel.try_it(Union::Overlay);
    assert!(!verdict.works && verdict.reason.unwrap().contains("comes up read-only"));
    assert!(kernel.edits.is_empty());
}

#[test]
fn what_may_pass_is_not_remembered() {
    for errno in [Errno::ENOSPC, Errno::EDQUOT, Errno::EPERM, Errno::EACCES] {
        let mut kernel = Recorded::new("nodev\toverlay\n", LAYERS, "ext4");
        kernel.fails = Some((Edit::Create, errno));
        let (verdict, _) = kernel.try_it(Union::Overlay);
        assert!(!verdict.works && !verdict.lasting, "{errno}");
    }
}

#[test]
fn a_module_is_tried_and_a_missing_mark_is_told() {
    let mut kernel = Recorded::new("", LAYERS, "ext4");
    kernel.module = Some("overlay");
    kernel.marks = false;
    let (verdict, _) = kernel.try_it(Union::Overlay);
    assert!(verdict.offered && !verdict.works);
    assert!(verdict.reason.unwrap().contains("left no mark"));
}

#[test]
fn overlay_without_any_option_of_today() {
    let (verdict, _) = Recorded::new("nodev\toverlay\n", LAYERS, "ext4").try_it(Union::Overlay);
    assert!(verdict.works, "3.18 knows three options");
    assert_eq!(verdict.features, Features { workdir: true, ..Features::default() });
}

#[test]
fn a_busy_upper_is_told_only_by_a_kernel_that_was_seen_to() {
    const TODAY: &[&str] = &["lowerdir", "upperdir", "workdir", "index"];
    for (options, in_use, told) in [
        (TODAY, [Errno::EBUSY, Errno::EINVAL], true),
        (TODAY, [Errno::EINVAL, Errno::EINVAL], false),
        (TODAY, [Errno::EBUSY, Errno::EBUSY], false),
        (LAYERS, [Errno::EBUSY, Errno::EINVAL], false),
    ] {
        let mut kernel = Recorded::new("nodev\toverlay\n", options, "ext4");
        kernel.in_use = in_use;
        let (verdict, _) = kernel.try_it(Union::Overlay);
        assert!(verdict.works);
        assert_eq!(verdict.features.tells_in_use, told, "{in_use:?}");
    }
}
