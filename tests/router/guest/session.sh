# A sliver's whole life on a disk that overlay works on, as an operator types it.
# shellcheck shell=busybox disable=SC2154 # part is init's

s() {
	sliverfs --lxcpath "$lxc" "$@"
}

from_stdin() {
	tar -C "$1" -cf - . | s base add "$2" -
}

# The next boot as far as sliverfs can tell, while all views are unmounted: the mounts of
# image bases go, and so does /var/run, a tmpfs.
forget() {
	awk 'index($5, "/tmp/run/sliverfs/") == 1 { print $5 }' /proc/self/mountinfo | sort -r |
		while read -r at; do
			umount "$at"
		done
	rm -rf /var/run/sliverfs
}

# use_sliver NAME BASE: create, mount, change, umount, mount: the change stays.
use_sliver() {
	view=$lxc/$1/rootfs
	holds "create $1 on base $2" s create "$1" --base "$2"
	holds "create $1 wrote LXC's configuration" test -s "$lxc/$1/config"
	holds "mount $1" s mount "$1"
	holds "$1's view is an overlay" grep -q "^[^ ]* $view overlay " /proc/mounts
	holds "$1's view is the base" untouched "$view"
	holds "change $1" change "$view"
	holds "$1 shows its changes" changed "$view"
	s mount "$1" >/dev/null 2>&1
	holds "a second mount of $1 leaves one mount" [ "$(mounts "$view")" = 1 ]
	expect 4 "destroy refuses while $1 is mounted" s destroy "$1"
	holds "umount $1" s umount "$1"
	holds "$1 is unmounted" [ "$(mounts "$view")" = 0 ]
	holds "$1's mount point is empty" [ -z "$(ls "$view")" ]
	holds "umount $1 again" s umount "$1"
	holds "base $2 did not change" s base verify "$2"
	forget
	holds "mount $1 after a boot" s mount "$1"
	holds "$1 kept its changes" changed "$view"
}

# drop_sliver NAME BASE: the way back.
drop_sliver() {
	expect 4 "base remove refuses while $1 uses $2" s base remove "$2"
	holds "umount $1 for good" s umount "$1"
	holds "destroy $1" s destroy "$1"
	holds "nothing is left of $1" [ ! -e "$lxc/$1" -a ! -e "$lxc/.store/$1" ]
	holds "base $2 outlived $1" s base verify "$2"
	holds "base remove $2" s base remove "$2"
	holds "nothing is left of base $2" [ ! -e "$lxc/.base/$2" ]
}

# session LXCPATH
session() {
	lxc=$1
	forget
	holds "init" s init
	holds "init again" s init
	holds "probe" s probe
	holds "probe --json" s probe --json
	kind_of /tmp/out overlay >/tmp/overlay
	holds "probe offers overlay" grep -q '"works":true' /tmp/overlay
	holds "the kernel lists overlay by now" grep -qw overlay /proc/filesystems

	make_tree /tmp/tree
	holds "base add of a directory" s base add plain /tmp/tree
	holds "base verify" s base verify plain
	use_sliver web plain
	holds "list" s list
	says /tmp/out "list tells of web" web
	holds "list --json" s list --json
	says /tmp/out "list --json tells of web" '"web"'
	holds "show" s show web
	says /tmp/out "show tells the backend" overlay

	holds "base add of a tar from standard input" from_stdin /tmp/tree piped
	holds "a second sliver, on base piped" s create mail --base piped
	holds "mount of both, one of them twice" s mount web mail
	holds "mail's view is the base" untouched "$lxc/mail/rootfs"
	holds "web's view did not follow" changed "$lxc/web/rootfs"
	drop_sliver web plain
	drop_sliver mail piped

	holds "base add of a squashfs image" s base add packed /guest/base.squashfs
	use_sliver small packed
	holds "a second sliver on the image" s create twin --base packed
	holds "mount twin" s mount twin
	holds "twin's view is the base" untouched "$lxc/twin/rootfs"
	holds "both share one mount of the image" [ "$(grep -c "^/dev/loop[0-9]* [^ ]* squashfs ro" /proc/mounts)" = 1 ]
	holds "umount twin" s umount twin
	holds "destroy twin" s destroy twin
	holds "small's view stays" changed "$lxc/small/rootfs"
	drop_sliver small packed
	fails "no squashfs stays mounted" grep -q " squashfs " /proc/mounts
	fails "no loop device stays bound" ls /sys/block/loop*/loop/backing_file
	holds "no mount stays below $lxc" [ "$(mounts "$lxc")" = 1 ]
	rm -r /tmp/tree
	done="$done,$part"
}
