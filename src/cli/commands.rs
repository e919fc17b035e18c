//! The commands: what each takes, and its line of the help.

use argh::CommandInfo;

use crate::cli::options::*;

/// A command, or a group of them.
pub struct Spec {
    /// Its name, and what it does.
    pub info: CommandInfo,
    /// The words it takes. The last may stand for any number: its name ends with dots then.
    pub words: &'static [CommandInfo],
    /// How many of them it wants.
    pub needed: usize,
    /// The options it takes.
    pub options: &'static [Opt],
    /// What it is.
    pub what: What,
}

/// What a [`Spec`] is of.
pub enum What {
    /// A command.
    One(Command),
    /// A name with commands of its own.
    Group(&'static [Spec]),
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Init,
    Probe,
    BaseAdd,
    BaseList,
    BaseShow,
    BaseVerify,
    BaseRemove,
    Create,
    Mount,
    Umount,
    List,
    Show,
    Destroy,
    Dedupe,
    Apply,
    Convert,
    Rebase,
    Diff,
    Restore,
    Compact,
    Check,
    Export,
    Import,
    Sync,
    Quota,
    Usage,
    Hook,
    Version,
}

impl Spec {
    /// The commands of a group.
    pub fn group(&self) -> &'static [Self] {
        match self.what {
            What::Group(commands) => commands,
            What::One(_) => &[],
        }
    }

    /// What the help says of them.
    pub fn commands(&self) -> Vec<&'static CommandInfo> {
        self.group().iter().map(|spec| &spec.info).collect()
    }
}

/// A name, and what the help says of it.
pub const fn info(name: &'static str, description: &'static str) -> CommandInfo {
    CommandInfo { name, short: &'\0', description }
}

/// A command that wants `needed` of the words.
const fn one(
    command: Command,
    name: &'static str,
    about: &'static str,
    needed: usize,
    words: &'static [CommandInfo],
    options: &'static [Opt],
) -> Spec {
    Spec { info: info(name, about), words, needed, options, what: What::One(command) }
}

/// A name with commands of its own.
const fn group(
    name: &'static str,
    about: &'static str,
    options: &'static [Opt],
    commands: &'static [Spec],
) -> Spec {
    Spec { info: info(name, about), words: &[], needed: 0, options, what: What::Group(commands) }
}

const SLIVER: CommandInfo = info("name", "the sliver");
const UNMOUNTED: CommandInfo = info("name", "the sliver, which is unmounted");
const SLIVERS: CommandInfo = info("names...", "the slivers");
const NONE_IS_ALL: CommandInfo = info("names...", "the slivers (default: all)");
const A_BASE: CommandInfo = info("name", "the base");
/// For a command on layers, of a sliver or of bare directories.
const LAYERS: CommandInfo = info("words...", "the sliver; none for bare directories");
const PATHS: CommandInfo =
    info("words...", "the sliver, and paths in it; of bare directories, the paths alone");

/// The program.
pub static PROGRAM: Spec = group(
    "sliverfs",
    "Many LXC containers (slivers) on one shared read-only base image.",
    &[LXCPATH, CONFIG, ("-v", VERBOSE.1), VERBOSE],
    &[
        one(Command::Init, "init", "Mark LXCPATH as the disk that carries slivers.", 0, &[], &[]),
        one(Command::Probe, "probe", "Try what this kernel and this disk can do.", 0, &[], &[FRESH, JSON]),
        group(
            "base",
            "Base images.",
            &[],
            &[
                one(
                    Command::BaseAdd,
                    "add",
                    "Import a base.",
                    2,
                    &[
                        info("name", "the base's name"),
                        info(
                            "source",
                            "a folder, a tar (plain, gzip, xz, zstd, bzip2), a squashfs, erofs or Btrfs seed image, or `-` for a tar on standard input",
                        ),
                    ],
                    &[PACK, DRY_RUN],
                ),
                one(Command::BaseList, "list", "List the bases.", 0, &[], &[JSON]),
                one(Command::BaseShow, "show", "Show a base.", 1, &[A_BASE], &[JSON]),
                one(
                    Command::BaseVerify,
                    "verify",
                    "Compute a base's digest again and compare it.",
                    1,
                    &[A_BASE],
                    &[JSON],
                ),
                one(
                    Command::BaseRemove,
                    "remove",
                    "Remove a base that no sliver uses.",
                    1,
                    &[A_BASE],
                    &[DRY_RUN],
                ),
            ],
        ),
        one(
            Command::Create,
            "create",
            "Create a sliver on a base.",
            1,
            &[info("name", "the sliver's name")],
            &[ON, BACKEND, SIZE, QUOTA, MEANS, DATA, DRY_RUN],
        ),
        one(Command::Mount, "mount", "Mount slivers.", 0, &[SLIVERS], &[ALL, DRY_RUN]),
        one(Command::Umount, "umount", "Unmount slivers.", 0, &[SLIVERS], &[ALL, DRY_RUN]),
        one(
            Command::List,
            "list",
            "List the slivers: wanted, recorded and actual state.",
            0,
            &[],
            &[SPACE, JSON],
        ),
        one(Command::Show, "show", "Show a sliver.", 1, &[SLIVER], &[JSON]),
        one(Command::Destroy, "destroy", "Remove a sliver with all it changed.", 1, &[SLIVER], &[DRY_RUN]),
        one(
            Command::Dedupe,
            "dedupe",
            "Let equal files of whole stores (snapshot, reflink, copy) share their place on the disk again.",
            0,
            &[NONE_IS_ALL],
            &[DRY_RUN, JSON],
        ),
        one(Command::Apply, "apply", "Make the node what its configuration wants.", 0, &[], &[DRY_RUN]),
        one(
            Command::Convert,
            "convert",
            "Write a sliver's store anew, for another backend. The old one is kept until the sliver is mounted.",
            0,
            &[UNMOUNTED],
            &[TO, SIZE, MEANS, UNDO, FORMAT, BASE, STORE, OUT, DRY_RUN, JSON],
        ),
        one(
            Command::Rebase,
            "rebase",
            "Put a sliver onto another base, with all that it changed. The old store is kept until --commit or the next rebase.",
            0,
            &[UNMOUNTED],
            &[ONTO, ALL, FROM, OURS, THEIRS, FAIL, PLAN, UNDO, COMMIT, DRY_RUN, JSON],
        ),
        one(
            Command::Diff,
            "diff",
            "Show what a sliver changed against its base.",
            0,
            &[info("words...", "the sliver, and a path in it; of bare directories, the path alone")],
            &[FORMAT, BASE, STORE, JSON],
        ),
        one(
            Command::Restore,
            "restore",
            "Give back the base's version of paths, and of all below.",
            0,
            &[PATHS],
            &[FORMAT, BASE, STORE, DRY_RUN, JSON],
        ),
        one(
            Command::Compact,
            "compact",
            "Drop from a store what the base has again.",
            0,
            &[LAYERS],
            &[FORMAT, BASE, STORE, IGNORE_TIMES, DRY_RUN, JSON],
        ),
        one(
            Command::Check,
            "check",
            "Look for what a crash left, and for what is damaged.",
            0,
            &[NONE_IS_ALL],
            &[REPAIR, JSON],
        ),
        one(
            Command::Export,
            "export",
            "Write what a sliver changed as an OCI image layer (a tar).",
            0,
            &[LAYERS],
            &[("-o", OUTPUT.1), OUTPUT, GZIP, FORMAT, BASE, STORE, JSON],
        ),
        one(
            Command::Import,
            "import",
            "Fill a sliver's store with what an OCI image layer, or the dump of an overlayfs store, holds.",
            2,
            &[SLIVER, info("source", "a tar (plain, gzip, xz, zstd, bzip2), or `-` for standard input")],
            &[ARCHIVE, REPLACE, DRY_RUN],
        ),
        one(
            Command::Sync,
            "sync",
            "Make a sliver what rsync brings. The old store is kept until the sliver is mounted.",
            2,
            &[
                UNMOUNTED,
                info(
                    "source",
                    "a directory, [USER@]HOST:PATH, [USER@]HOST::MODULE/PATH or rsync://HOST/MODULE/PATH",
                ),
            ],
            &[DRY_RUN, JSON],
        ),
        one(
            Command::Quota,
            "quota",
            "Limit what a sliver may add to its base.",
            0,
            &[SLIVER, info("size", "the bytes: 64M; or none. Without it, the limit is told")],
            &[MEANS, ENABLE],
        ),
        one(
            Command::Usage,
            "usage",
            "Count what slivers take, what they share, and what that saves.",
            0,
            &[info("names...", "the slivers (default: all, and the node's sum)")],
            &[DEEP, JSON],
        ),
        one(
            Command::Hook,
            "hook",
            "What LXC calls when a container starts, stops or is destroyed.",
            2,
            &[
                info("moment", "pre-start, post-stop or destroy"),
                SLIVER,
                info("rest...", "what LXC adds by itself"),
            ],
            &[],
        ),
        one(Command::Version, "version", "Print the version.", 0, &[], &[]),
    ],
);
