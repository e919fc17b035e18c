//! The options of all commands.

use argh::{CommandInfo, ParseStructOption};

use crate::cli::Value;

/// An option as a command's line in the table has it: how it is written, and its place among [`OPTIONS`].
pub type Opt = (&'static str, usize);

/// What the help says of an option.
pub struct About {
    /// Its names and what it is for.
    pub info: CommandInfo,
    /// A value follows, or nothing does.
    pub kind: Kind,
}

/// What follows an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value, and the command wants the option.
    Needed,
    /// A value.
    Valued,
    /// Nothing.
    Switch,
}

macro_rules! slot {
    (Switch $field:expr) => {
        ParseStructOption::Flag(&mut $field)
    };
    ($kind:ident $field:expr) => {
        ParseStructOption::Value(&mut $field)
    };
}

macro_rules! holder {
    (Switch) => {
        bool
    };
    ($kind:ident) => {
        Value
    };
}

/// Of each line: a field of [`Args`], the option that sets it, and its line of the help.
macro_rules! options {
    ($($kind:ident $field:ident $id:ident $long:literal $(| $short:literal)? $about:literal;)*) => {
        /// What the command line says, whatever the command. A command's line in the table says which of them it takes; the others
        /// are as if they were not given.
        #[derive(Default)]
        pub struct Args {
            /// The words that are no options, in their order.
            pub words: Vec<String>,
            $(#[doc = $about] pub $field: holder!($kind),)*
        }

        impl Args {
            /// Where argh puts what it finds, in the order of [`OPTIONS`].
            pub(super) fn slots(&mut self) -> Vec<ParseStructOption<'_>> {
                vec![$(slot!($kind self.$field)),*]
            }
        }

        /// The places in [`OPTIONS`].
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "one name for the place and the option")]
        enum Place { $($id),* }

        $(pub const $id: Opt = ($long, Place::$id as usize);)*

        /// What the help says of each.
        pub static OPTIONS: &[About] = &[$(About {
            info: CommandInfo { name: concat!($($short, ", ",)? $long), short: &'\0', description: $about },
            kind: Kind::$kind,
        }),*];
    };
}

options! {
    Valued lxcpath LXCPATH "--lxcpath" "the folder of the containers (default: $SLIVERFS_LXCPATH, UCI's, LXC's own)";
    Valued config CONFIG "--config" "the UCI file (default: /var/run/uci/sliverfs or /etc/config/sliverfs)";
    Switch verbose VERBOSE "--verbose" | "-v" "tell each step";

    Needed on ON "--base" "the base";
    Valued backend BACKEND "--backend" "auto, or a kind that `probe` lists (default: UCI's, or auto)";
    Valued size SIZE "--size" "the limit of a btrfs-seed store: bytes, or with K, M, G, T (at least 256M, default 1G)";
    Valued quota QUOTA "--quota" "the bytes that it may add to the base: 64M";
    Valued means MEANS "--means" "what keeps the sliver to its limit: auto, image, qgroup, project, zfs, or soft, which only measures (default: UCI's, or auto)";
    Valued data DATA "--data" "an archive to unpack into the new sliver";
    Valued pack PACK "--pack" "pack the tree as an image: squashfs, erofs or btrfs (a seed)";
    Valued to TO "--to" "auto, or a kind that `probe` lists, even where this kernel lacks it; of bare directories, the new format";
    Valued onto ONTO "--onto" "the new base";
    Valued from FROM "--from" "with --all: the old base";
    Valued output OUTPUT "--output" | "-o" "the file, or `-` for standard output (default)";
    Valued archive ARCHIVE "--format" "oci or overlayfs (a dump: links to `(overlay-whiteout)` are whiteouts); default: the first whiteout tells";

    Valued format FORMAT "--format" "of bare directories: overlay, overlay-userxattr, overlayfs, mini_fo, aufs, fuse-overlayfs, snapshot or tree";
    Valued base BASE "--base" "the base's tree, a bare directory";
    Valued store STORE "--store" "the upper folder or the tree, a bare directory";
    Valued out OUT "--out" "the new upper folder or tree, which is not there yet";

    Switch enable ENABLE "--enable" "turn simple quotas of the stores' Btrfs on: for good, and kernels before 6.7 do not mount it then";
    Switch fresh FRESH "--fresh" "try again what is remembered";
    Switch all ALL "--all" "all of them";
    Switch space SPACE "--space" "count the stores' space, too";
    Switch deep DEEP "--deep" "compare with the bases: what compact would give back, what is covered, what memory is shared";
    Switch undo UNDO "--undo" "bring the kept store back";
    Switch commit COMMIT "--commit" "remove the kept store";
    Switch ours OURS "--ours" "what both changed stays as the sliver has it (default: and the new base's version is put in as NAME.base-new)";
    Switch theirs THEIRS "--theirs" "what both changed comes from the new base";
    Switch fail FAIL "--fail" "fail where both changed something";
    Switch plan PLAN "--plan" "print what becomes of each change, change nothing";
    Switch ignore_times IGNORE_TIMES "--ignore-times" "drop what differs in nothing but its time, too";
    Switch repair REPAIR "--repair" "put right what can be without losing anything";
    Switch gzip GZIP "--gzip" "compress it with the program gzip, as where the file's name ends in .gz or .tgz";
    Switch replace REPLACE "--replace" "give up what the store holds";
    Switch dry_run DRY_RUN "--dry-run" "print what would be done, change nothing";
    Switch json JSON "--json" "print JSON";
}
