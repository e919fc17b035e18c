//! The command line: what argh parses, and nothing else.

use std::path::PathBuf;

use argh::FromArgs;

use crate::kind::Choice;
use crate::layer::Format;
use crate::name::Name;
use crate::size::Size;

/// Many LXC containers (slivers) on one shared read-only base image.
#[derive(FromArgs, Debug)]
pub struct Cli {
    /// the folder of the containers (default: UCI's, $SLIVERFS_LXCPATH, LXC's own)
    #[argh(option)]
    pub lxcpath: Option<PathBuf>,

    /// the UCI file (default: /var/run/uci/sliverfs or /etc/config/sliverfs)
    #[argh(option)]
    pub config: Option<PathBuf>,

    /// tell each step
    #[argh(switch, short = 'v')]
    pub verbose: bool,

    #[argh(subcommand)]
    #[allow(missing_docs)]
    pub command: Command,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
#[allow(missing_docs)]
pub enum Command {
    Init(Init),
    Probe(Probe),
    Base(Base),
    Create(Create),
    Mount(Mount),
    Umount(Umount),
    List(List),
    Show(Show),
    Destroy(Destroy),
    Dedupe(Dedupe),
    Apply(Apply),
    Convert(Convert),
    Rebase(Rebase),
    Diff(Diff),
    Restore(Restore),
    Compact(Compact),
    Check(Check),
    Export(Export),
    Import(Import),
    Sync(Sync),
    Hook(Hook),
    Version(Version),
}

/// Mark LXCPATH as the disk that carries slivers.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "init")]
pub struct Init {}

/// Try what this kernel and this disk can do.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "probe")]
pub struct Probe {
    /// try again what is remembered
    #[argh(switch)]
    pub fresh: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Base images.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "base")]
pub struct Base {
    #[argh(subcommand)]
    #[allow(missing_docs)]
    pub command: BaseCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
#[allow(missing_docs)]
pub enum BaseCommand {
    Add(BaseAdd),
    List(BaseList),
    Show(BaseShow),
    Verify(BaseVerify),
    Remove(BaseRemove),
}

/// Import a base.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "add")]
pub struct BaseAdd {
    /// the base's name
    #[argh(positional)]
    pub name: Name,
    /// a folder, a tar (plain, gzip, xz, zstd), a squashfs, erofs or Btrfs seed image, or `-` for a tar on standard input
    #[argh(positional)]
    pub source: PathBuf,
    /// pack the tree as an image: squashfs, erofs or btrfs (a seed)
    #[argh(option)]
    pub pack: Option<String>,
    /// print the steps, change nothing
    #[argh(switch)]
    pub dry_run: bool,
}

/// List the bases.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "list")]
pub struct BaseList {
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Show a base.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "show")]
pub struct BaseShow {
    /// the base
    #[argh(positional)]
    pub name: Name,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Compute a base's digest again and compare it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "verify")]
pub struct BaseVerify {
    /// the base
    #[argh(positional)]
    pub name: Name,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Remove a base that no sliver uses.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "remove")]
pub struct BaseRemove {
    /// the base
    #[argh(positional)]
    pub name: Name,
    /// print the steps, change nothing
    #[argh(switch)]
    pub dry_run: bool,
}

/// Create a sliver on a base.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "create")]
pub struct Create {
    /// the sliver's name
    #[argh(positional)]
    pub name: Name,
    /// the base
    #[argh(option)]
    pub base: Name,
    /// auto, or a kind that `probe` lists (default: UCI's, or auto)
    #[argh(option)]
    pub backend: Option<Choice>,
    /// the limit of a btrfs-seed store: bytes, or with K, M, G, T (at least 256M, default 1G)
    #[argh(option)]
    pub size: Option<Size>,
    /// an archive to unpack into the new sliver
    #[argh(option)]
    pub data: Option<PathBuf>,
    /// print the steps, change nothing
    #[argh(switch)]
    pub dry_run: bool,
}

/// Mount slivers.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "mount")]
pub struct Mount {
    /// the slivers
    #[argh(positional)]
    pub names: Vec<Name>,
    /// all of them
    #[argh(switch)]
    pub all: bool,
    /// print the steps, change nothing
    #[argh(switch)]
    pub dry_run: bool,
}

/// Unmount slivers.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "umount")]
pub struct Umount {
    /// the slivers
    #[argh(positional)]
    pub names: Vec<Name>,
    /// all of them
    #[argh(switch)]
    pub all: bool,
    /// print the steps, change nothing
    #[argh(switch)]
    pub dry_run: bool,
}

/// List the slivers: wanted, recorded and actual state.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "list")]
pub struct List {
    /// count the stores' space, too
    #[argh(switch)]
    pub space: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Show a sliver.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "show")]
pub struct Show {
    /// the sliver
    #[argh(positional)]
    pub name: Name,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Remove a sliver with all it changed.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "destroy")]
pub struct Destroy {
    /// the sliver
    #[argh(positional)]
    pub name: Name,
    /// print the steps, change nothing
    #[argh(switch)]
    pub dry_run: bool,
}

/// Let equal files of whole stores (snapshot, reflink, copy) share their place on the disk again.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "dedupe")]
pub struct Dedupe {
    /// the slivers (default: all)
    #[argh(positional)]
    pub names: Vec<Name>,
    /// compare only, change nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Make the node what its configuration wants.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "apply")]
pub struct Apply {
    /// print what would be done, change nothing
    #[argh(switch)]
    pub dry_run: bool,
}

/// Write a sliver's store anew, for another backend. The old one is kept until the sliver is mounted.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "convert")]
pub struct Convert {
    /// the sliver, which is unmounted
    #[argh(positional)]
    pub name: Option<Name>,
    /// auto, or a kind that `probe` lists, even where this kernel lacks it; of bare directories, the new format
    #[argh(option)]
    pub to: Option<String>,
    /// the limit of a new store on a seed
    #[argh(option)]
    pub size: Option<Size>,
    /// bring the kept store back
    #[argh(switch)]
    pub undo: bool,
    /// overlay, overlay-userxattr, overlayfs, mini_fo, aufs, snapshot or tree: of bare directories
    #[argh(option)]
    pub format: Option<Format>,
    /// the base's tree, a bare directory
    #[argh(option)]
    pub base: Option<PathBuf>,
    /// the upper folder or the tree, a bare directory
    #[argh(option)]
    pub store: Option<PathBuf>,
    /// the new upper folder or tree, which is not there yet
    #[argh(option)]
    pub out: Option<PathBuf>,
    /// print the steps, change nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Put a sliver onto another base, with all that it changed. The old store is kept until --commit or the next rebase.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "rebase")]
pub struct Rebase {
    /// the sliver, which is unmounted
    #[argh(positional)]
    pub name: Option<Name>,
    /// the new base
    #[argh(option)]
    pub onto: Option<Name>,
    /// all slivers of a base
    #[argh(switch)]
    pub all: bool,
    /// with --all: the old base
    #[argh(option)]
    pub from: Option<Name>,
    /// what both changed stays as the sliver has it (default: and the new base's version is put in as NAME.base-new)
    #[argh(switch)]
    pub ours: bool,
    /// what both changed comes from the new base
    #[argh(switch)]
    pub theirs: bool,
    /// fail where both changed something
    #[argh(switch)]
    pub fail: bool,
    /// print what becomes of each change, change nothing
    #[argh(switch)]
    pub plan: bool,
    /// bring the kept store back
    #[argh(switch)]
    pub undo: bool,
    /// remove the kept store
    #[argh(switch)]
    pub commit: bool,
    /// as --plan; with --undo and --commit, print the steps
    #[argh(switch)]
    pub dry_run: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Show what a sliver changed against its base.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "diff")]
pub struct Diff {
    /// the sliver, and a path in it; of bare directories, the path alone
    #[argh(positional)]
    pub words: Vec<String>,
    /// overlay, overlay-userxattr, overlayfs, mini_fo, aufs, fuse-overlayfs, snapshot or tree: of bare directories
    #[argh(option)]
    pub format: Option<Format>,
    /// the base's tree, a bare directory
    #[argh(option)]
    pub base: Option<PathBuf>,
    /// the upper folder or the tree, a bare directory
    #[argh(option)]
    pub store: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Give back the base's version of paths.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "restore")]
pub struct Restore {
    /// the sliver, and paths in it; of bare directories, the paths alone
    #[argh(positional)]
    pub words: Vec<String>,
    /// overlay, overlay-userxattr, overlayfs, mini_fo, aufs, snapshot or tree: of bare directories
    #[argh(option)]
    pub format: Option<Format>,
    /// the base's tree, a bare directory
    #[argh(option)]
    pub base: Option<PathBuf>,
    /// the upper folder or the tree, a bare directory
    #[argh(option)]
    pub store: Option<PathBuf>,
    /// print what would be done, change nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Drop from a store what the base has again.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "compact")]
pub struct Compact {
    /// the sliver
    #[argh(positional)]
    pub words: Vec<String>,
    /// overlay, overlay-userxattr, overlayfs, mini_fo, aufs, snapshot or tree: of bare directories
    #[argh(option)]
    pub format: Option<Format>,
    /// the base's tree, a bare directory
    #[argh(option)]
    pub base: Option<PathBuf>,
    /// the upper folder or the tree, a bare directory
    #[argh(option)]
    pub store: Option<PathBuf>,
    /// drop what differs in nothing but its time, too
    #[argh(switch)]
    pub ignore_times: bool,
    /// print what would be done, change nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Look for what a crash left, and for what is damaged.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
pub struct Check {
    /// the slivers (default: all)
    #[argh(positional)]
    pub names: Vec<Name>,
    /// put right what can be without losing anything
    #[argh(switch)]
    pub repair: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Write what a sliver changed as an OCI image layer (a tar).
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "export")]
pub struct Export {
    /// the sliver; none for bare directories
    #[argh(positional)]
    pub words: Vec<String>,
    /// the file, or `-` for standard output (default)
    #[argh(option, short = 'o')]
    pub output: Option<PathBuf>,
    /// compress it with the program gzip, as where the file's name ends in .gz or .tgz
    #[argh(switch)]
    pub gzip: bool,
    /// how the store of bare directories is written: as for `diff`
    #[argh(option)]
    pub format: Option<Format>,
    /// the base's tree, a bare directory
    #[argh(option)]
    pub base: Option<PathBuf>,
    /// the upper folder or the tree, a bare directory
    #[argh(option)]
    pub store: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Fill a sliver's store with what an OCI image layer, or the dump of an overlayfs store, holds.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "import")]
pub struct Import {
    /// the sliver
    #[argh(positional)]
    pub name: Name,
    /// a tar (plain, gzip, xz, zstd, bzip2), or `-` for standard input
    #[argh(positional)]
    pub source: PathBuf,
    /// oci or overlayfs (a dump: links to `(overlay-whiteout)` are whiteouts); default: the first whiteout tells
    #[argh(option)]
    pub format: Option<String>,
    /// give up what the store holds
    #[argh(switch)]
    pub replace: bool,
    /// print the steps, change nothing
    #[argh(switch)]
    pub dry_run: bool,
}

/// Make a sliver what rsync brings. The old store is kept until the sliver is mounted.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "sync")]
pub struct Sync {
    /// the sliver, which is unmounted
    #[argh(positional)]
    pub name: Name,
    /// a directory, [USER@]HOST:PATH, [USER@]HOST::MODULE/PATH or rsync://HOST/MODULE/PATH
    #[argh(positional)]
    pub source: String,
    /// list what would change, change nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// What LXC calls when a container starts, stops or is destroyed.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "hook")]
pub struct Hook {
    /// pre-start, post-stop or destroy
    #[argh(positional)]
    pub moment: String,
    /// the sliver
    #[argh(positional)]
    pub name: Name,
    /// what LXC adds by itself
    #[argh(positional)]
    pub _rest: Vec<String>,
}

/// Print the version.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "version")]
pub struct Version {}
