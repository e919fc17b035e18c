# What sliverfs itself does on these disks. Sourced by init, where the machine has it.
# shellcheck shell=busybox

# The number that the field $1 of the first sliver has in the document on standard input.
field() {
	sed -n "s/.*\"slivers\":\[[^]]*\"$1\":\([0-9]*\).*/\1/p"
}

# A sliver on the disk $2 takes what du(1) counts, in whole KiB.
counts() {
	own=$(sliverfs --lxcpath "$1" usage --json s | field exclusive)
	du=$(du -s -k "$1/.store/s" | cut -f 1)
	echo "usage: $own, du: $du KiB"
	[ -n "$own" ] && [ "$((own / 1024))" = "$du" ]
}

mkdir -p /tmp/tree/etc
echo base >/tmp/tree/etc/file
for fs in ext4 xfs f2fs; do
	slivers=/mnt/$fs/slivers
	mkdir "$slivers"
	check "$fs: init" sliverfs --lxcpath "$slivers" init
	check "$fs: base" sliverfs --lxcpath "$slivers" base add b /tmp/tree
	check "$fs: create" sliverfs --lxcpath "$slivers" create s --base b --backend overlay
	check "$fs: mount" sliverfs --lxcpath "$slivers" mount s
	check "$fs: write" fill "$slivers/s/rootfs/etc/more" 16
	check "$fs: holes" xfs_io -f -c 'truncate 1g' -c 'pwrite 1m 64k' "$slivers/s/rootfs/holes"
	sync
	check "$fs: usage is what du counts" counts "$slivers"
	check "$fs: umount" sliverfs --lxcpath "$slivers" umount s
	check "$fs: destroy" sliverfs --lxcpath "$slivers" destroy s
done
