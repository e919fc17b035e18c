//! What a tenant who is root tries against his limit.

use std::path::Path;
use std::process::Command;

use super::node::{Node, run};

/// The tries, for a shell in the root of a view: all must end with a full disk, which says `$FULL`, and not before. What was deleted
/// stays open as file 9, and it ends as `echo` says. A try that ends otherwise is told as `no: …`.
pub const TRIES: &str = r#"
    no() { echo "no: $*"; exit 1; }
    full() { what=$1; shift; said=$("$@" 2>&1 >>"$what") && no "$* >>$what"; case $said in *"$FULL"*) ;; *) no "$*: $said" ;; esac; }
    if [ -n "$SUBVOLUMES" ]; then
        # A subvolume of his own, and a snapshot in it of all that he has.
        perl -e 'open(D, "<", ".") or die; my $x = pack("q a4088", 0, "mine"); ioctl(D, 0x5000940e, $x) or die' || no subvolume
        perl -e 'open(S, "<", ".") && open(D, "<", "mine") or die;
            my $x = pack("q a4088", fileno(S), "all"); ioctl(D, 0x50009401, $x) or die' || no snapshot
        head -c 1M /dev/urandom >mine/m || no file in a subvolume
    fi
    exec 9>gone && rm gone && head -c 5000000 /dev/zero >&9 || no deleted file
    mkdir bound && mount --bind bound bound || no bind mount
    fallocate -l 4M bound/allocated || no fallocate
    full too-much fallocate -l 1G too-much; rm -f too-much
    truncate -s 1T sparse && head -c 3000000 /dev/urandom | dd of=sparse bs=64k seek=1000 conv=notrunc 2>/dev/null || no sparse file
    ln sparse etc/linked || no hard link
    [ -z "$SUBVOLUMES" ] || ! ln sparse mine/linked 2>/dev/null || no link across subvolumes
    # Another project, as chattr -p gives it: what keeps this limit has none, and in a user namespace nobody may.
    perl -e 'open(F, "<", "sparse") or die; my $x = "\0" x 28; ioctl(F, 0x801c581f, $x) or die "get: $!\n";
        substr($x, 12, 4) = pack("L", 7); ioctl(F, 0x401c5820, $x) or die "set: $!\n"' >/tmp/said 2>&1 && no project
    grep -q -e 'not supported' -e 'Inappropriate ioctl' -e 'Invalid argument' /tmp/said || no project: $(cat /tmp/said); rm /tmp/said
    i=0; while [ $i -lt 1000 ]; do echo tiny >"tiny$i" || no tiny files; i=$((i+1)); done
    full fill head -c 1G /dev/zero
    while echo tiny >"tiny$i"; do i=$((i+1)); [ $i -lt 100000 ] || no end of tiny files; done
    full bound/more head -c 1G /dev/zero
    if [ -n "$SUBVOLUMES" ]; then full mine/more head -c 1G /dev/zero; full mine/all/more head -c 1G /dev/zero; fi
    sync -f .; full fill head -c 1G /dev/zero
    umount bound || no umount; "#;

/// Fills a view with all that is left, by those tries.
pub fn fill(view: &Path, full: &str, subvolumes: &str) {
    let mut tries = Command::new("sh");
    tries.args(["-c", &format!("{TRIES}echo all")]).env("FULL", full).env("SUBVOLUMES", subvolumes);
    let output = tries.current_dir(view).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "all\n");
}

/// How anybody leaves a qgroup, or takes of the disk what none counts: what the kernel says to each, a line for each.
pub const LEAVES: &str = r#"
    sub out { print "$_[0]: ", ($_[1] ? "done" : $!), "\n" }
    open(D, "<", ".") && open(F, "+>", "cloned") && open(G, "+>", "clone") or die; syswrite(F, "x" x 8192);
    sub subvolume { my $none = "\0" x 72; my $at = unpack("Q", pack("p", $none));
        my $x = pack("q Q Q Q Q Q Q a4040", 0, 0, 4, 72, $at, 0, 0, $_[1]); my $done = eval { &{$_[0]}($x) }; out($_[1], $done) }
    subvolume(sub { ioctl(D, 0x50009418, $_[0]) }, "outside");
    # The kernel looks at the lower half of the number alone.
    subvolume(sub { syscall(16, fileno(D), 0x150009418, $_[0]) == 0 }, "half") if `uname -m` eq "x86_64\n";
    my $old = pack("q a4088", 0, "old"); out("old", ioctl(D, 0x5000940e, $old));
    out("clone", ioctl(G, 0x40049409, fileno(F)));
    my $range = pack("q Q3", fileno(F), 0, 4096, 8192); out("range", ioctl(G, 0x4020940d, $range));
    my $same = pack("Q2 S S L q Q2 l L", 0, 4096, 1, 0, 0, fileno(G), 8192, 0, 0, 0); out("same", ioctl(F, 0xc0189436, $same));
    if (`uname -m` eq "x86_64\n") { my $at = pack("q", 0); out("copy", syscall(326, fileno(F), $at, fileno(G), 0, 4096, 0) >= 0) }"#;

/// How root lifts the limit of a qgroup: what the kernel says to each, a line for each.
pub const LIFTS: &str = r#"
    open(D, "<", ".") or die; my $look = pack("QQa4080", 0, 256, ""); ioctl(D, 0xd0009412, $look) or die "look: $!\n";
    my $id = unpack("Q", $look); my $group = 1 << 48 | $id;
    for (["assign", 0x40189429, pack("Q3", 0, $id, $group)], ["remove", 0x4010942a, pack("Q2", 0, $group)],
        ["disable", 0xc0109428, pack("Q2", 2, 0)], ["limit", 0x8030942b, pack("Q6", $group, 1, ~0, 0, 0, 0)]) {
        next if @ARGV && $ARGV[0] ne $_->[0];
        print "$_->[0]: ", (ioctl(D, $_->[1], $_->[2]) ? "done" : $!), "\n";
    }"#;

/// Bytes that are taken of the node's disk.
pub fn disk_taken(node: &Node) -> u64 {
    let script = "sync -f .; sync -f .; df -B1 --output=used . | tail -n 1";
    run(Command::new("sh").args(["-ec", script]).current_dir(&node.lxcpath)).trim().parse().unwrap()
}

/// Bytes that a Btrfs uses, each once, whatever it keeps twice.
pub fn btrfs_taken(node: &Node) -> u64 {
    let script = "sync -f .; sync -f .; btrfs filesystem df -b . | sed -n '/^Global/d; s/.*used=//p'";
    let used = run(Command::new("sh").args(["-ec", script]).current_dir(&node.lxcpath));
    used.lines().map(|line| line.parse::<u64>().unwrap()).sum()
}
