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

# A sliver's limit by a project quota, on $1: given, passed by nobody in a user namespace, changed, taken off.

# sf ARGUMENTS...: on the disk at hand.
sf() { sliverfs --lxcpath "$slivers" "$@"; }

# says TEXT COMMAND...: the command ends well, and says that.
says() {
	ends "$@" && [ $code = 0 ]
}

refuses() {
	ends "$@" && [ $code != 0 ]
}

# ends TEXT COMMAND...: the command says that, and its exit code is $code.
ends() {
	text=$1
	shift
	"$@" >/tmp/says 2>&1
	code=$?
	cat /tmp/says
	grep -q -F -e "$text" /tmp/says
}

# What a tenant who is root in a user namespace takes by all that he can write; in a view that lies in $1.
overfill() {
	before=$(taken "/mnt/$fs")
	# shellcheck disable=SC2016 # expanded in there
	unshare -U -r -m sh -c '
		cd "$0" && mkdir d && chattr -p 0 d
		head -c 3000000 /dev/zero >first || exit 9
		ln -s first link && ln first other || exit 9
		dd if=/dev/zero of=fill bs=64k count=1024
		i=0; while echo tiny >"d/$i" && [ $i -lt 20000 ]; do i=$((i + 1)); done' "$1"
	[ $? != 9 ] || return 1
	after=$(taken "/mnt/$fs")
	echo "took $((after - before)) of $2 KiB"
	# On f2fs a quarter is for inodes alone.
	[ $((after - before)) -le $(($2 + 1024)) ] && [ $((after - before)) -ge $(($2 * 3 / 4)) ]
}

# More is not had. Who can still make an empty file, as ext4 lets one by its table, gets nothing in it.
is_full() { ! unshare -U -r -m dd if=/dev/zero of="$1/still" bs=64k count=1024; }

# usage of the sliver $1 is what repquota(8) counts, and what du(1) counts, within a block per file.
agrees() {
	sync
	own=$(sf usage --json "$1" | field exclusive)
	files=$(find "$slivers/.store/$1" | wc -l)
	id=$(sed -n 's/.*"project":\([0-9]*\).*/\1/p' "$slivers/.store/$1/sliver.json")
	project=$id
	counted=$(counted "$fs" "/mnt/$fs")
	du=$(du -s -k "$slivers/.store/$1" | cut -f 1)
	echo "usage $own, quota $counted KiB, du $du KiB, $files files"
	[ "$((own / 1024))" = "$counted" ] && [ $((du - counted)) -le $((files * 4)) ] && [ $((counted - du)) -le $((files * 4)) ]
}

# For `usage` of a sliver in a project its record alone is opened, and the kernel is asked once, and once more for all of them.
asks_once() {
	strace -o /tmp/trace sliverfs --lxcpath "$slivers" usage || return 1
	grep -e quotactl -e "/.store/$1" /tmp/trace
	[ "$(grep -c quotactl /tmp/trace)" = 2 ] && [ "$(grep -c "/.store/$1" /tmp/trace)" = 1 ]
}

# df(1) in the view $1 shows a disk of 8 MiB, less what of them is for inodes, to root of the machine and to root of a user namespace.
shows_limit() {
	case $fs in
	ext4) size=8192 ;;
	xfs) size=7936 ;;
	f2fs) size=6144 ;;
	esac
	for as in "" "unshare -U -r -m"; do
		$as df -k "$1" | awk -v size="$size" 'END { print; exit $(NF - 4) != size }' || return 1
	done
}

# No project from ours on has a limit or anything else.
none_left() {
	sync
	case $fs in
	xfs) xfs_quota -x -c "report -p -N -n -b" "/mnt/$fs" ;;
	*) repquota -P -n "/mnt/$fs" ;;
	esac | sed 's/^#//' | awk '$1 >= 20000 && $1 < 30000 && ($2 > 0 || $3 > 0 || $4 > 0 || $5 > 0) { print; bad = 1 } END { exit bad }'
}

# All that a view shows.
shown() { (cd "$1" && find . | sort && find . -type f -exec md5sum {} + | sort) | md5sum; }

unchanged() { [ "$(shown "$1")" = "$2" ]; }

for fs in ext4 xfs f2fs; do
	slivers=/mnt/$fs/slivers
	view=$slivers/p/rootfs
	mkdir -p /tmp/next/etc
	echo new >/tmp/next/etc/new
	check "$fs: another base" sf base add c /tmp/next
	check "$fs: probe tells" says "project quotas are on" sf probe
	check "$fs: create in a project, with a warning" says "lxc.idmap" \
		sf create p --base b --backend overlay --quota 8M --means project
	check "$fs: one that is there stays" sf create p --base b --backend overlay --quota 8M
	check "$fs: mount" sf mount p
	check "$fs: usage agrees" agrees p
	check "$fs: usage asks once" asks_once p
	check "$fs: df in the view shows the limit" shows_limit "$view"
	check "$fs: the limit holds" overfill "$view" 8192
	check "$fs: it is full" is_full "$view"
	check "$fs: usage agrees when full" agrees p
	check "$fs: show" says "limited to 8 MiB by project" sf show p
	check "$fs: diff when full" sf diff p
	check "$fs: umount when full" sf umount p
	check "$fs: compact when full" sf compact p
	check "$fs: restore when full" sf restore p etc/file
	check "$fs: mount when full" sf mount p
	check "$fs: again when full" eval "sf umount p && sf mount p && sf umount p && sf mount p"
	check "$fs: it is still full" is_full "$view"
	check "$fs: no less than it has" refuses "does not fit" sf quota p 6M
	check "$fs: more, while it is mounted" says "limited to 12 MiB by project" sf quota p 12M
	check "$fs: there is room" unshare -U -r -m dd if=/dev/zero of="$view/more" bs=64k count=24
	check "$fs: and a limit again" is_full "$view"
	rm -rf "$view/fill" "$view/still" "$view/d"
	sync
	check "$fs: less, while it is mounted" says "limited to 7 MiB by project" sf quota p 7M
	check "$fs: and a limit there" is_full "$view"
	rm -f "$view/still"
	was=$(shown "$view")
	check "$fs: none" says "has no limit" eval "sf umount p && sf quota p none && sf mount p"
	check "$fs: none leaves the view as it was" unchanged "$view" "$was"
	check "$fs: none leaves no limit" none_left
	check "$fs: there is room without one" fill "$view/room" 256
	was=$(shown "$view")
	echo "lxc.idmap = u 0 100000 65536" >>"$slivers/p/config"
	check "$fs: with lxc.idmap auto takes a project" says "limited to 32 MiB by project" \
		eval "sf umount p && sf quota p 32M && sf mount p"
	check "$fs: and leaves the view as it was" unchanged "$view" "$was"
	check "$fs: usage agrees of what was made anew" agrees p
	check "$fs: and a limit for it" is_full "$view"
	rm -f "$view/still"
	was=$(shown "$view")
	check "$fs: what does not fit is refused, and nothing is left" refuses "does not fit" \
		eval "sf umount p && sf quota p none && sf quota p 8M --means project"
	check "$fs: nothing of it is left" none_left
	[ $fs != ext4 ] || check "$fs: into a project" sf quota p 40M --means project
	[ $fs != ext4 ] || check "$fs: from it into an image" says "by image" sf quota p 48M --means image
	check "$fs: mount" sf mount p
	check "$fs: the view is as it was" unchanged "$view" "$was"
	check "$fs: into a project again" eval "sf umount p && sf quota p 40M --means project"
	check "$fs: onto another base" sf rebase p --onto c
	check "$fs: it is in a project of its own" says "limited to 40 MiB by project" sf show p
	check "$fs: usage agrees of what was rebased" eval "sf mount p && agrees p"
	check "$fs: and a limit for it" is_full "$view"
	rm -f "$view/still"
	check "$fs: the view has both" eval "[ -e '$view/etc/new' ] && [ -e '$view/room' ]"
	check "$fs: there for good" eval "sf umount p && sf rebase p --commit"
	check "$fs: a layer out, and in" eval "sf export p -o /tmp/layer && sf import p /tmp/layer --replace && sf mount p"
	check "$fs: usage agrees of what was imported" agrees p
	check "$fs: and a limit for that" is_full "$view"
	rm -f "$view/still"
	check "$fs: what does not fit changes nothing" refuses "may have" eval "sf umount p && head -c 50331648 /dev/urandom >/tmp/fill &&
		tar -cf /tmp/large -C /tmp fill && sf import p /tmp/large --replace"
	check "$fs: the layer is as it was" eval "sf mount p && [ -e '$view/room' ] && [ ! -e '$view/fill' ]"
	rm -f /tmp/layer /tmp/large /tmp/fill
	check "$fs: two have two projects" eval "sf create q --base b --backend overlay --quota 8M --means project &&
		sf create r --base b --backend overlay --quota 8M --means project &&
		[ \$(cat $slivers/.store/[qr]/sliver.json | grep -o '\"project\":[0-9]*' | sort -u | wc -l) = 2 ]"
	check "$fs: destroy" eval "sf umount p && sf destroy p && sf destroy q && sf destroy r"
	check "$fs: destroy leaves no limit" none_left
done

# A store that is a copy of its base, in a project: what the base has is counted, too, and comes on top of the limit.

# Each inode of the store is in its project: what the quota counts of them is what find(1) sees.
all_in_it() {
	sync
	case $fs in
	xfs) inodes=$(xfs_quota -x -c "quota -p -N -i $1" "/mnt/$fs" | awk '{ print $2 }') ;;
	*) inodes=$(repquota -P -n "/mnt/$fs" | awk -v id="#$1" '$1 == id { print $6 }') ;;
	esac
	found=$(find "$slivers/.store/t" | while read -r path; do stat -c %i "$path"; done | sort -u | wc -l)
	echo "quota $inodes, find $found"
	[ "$inodes" = "$found" ]
}

mkdir -p /tmp/odd/etc
head -c 3000000 /dev/urandom >/tmp/odd/etc/large
ln /tmp/odd/etc/large /tmp/odd/second
ln -s etc/large /tmp/odd/symbolic
mknod /tmp/odd/null c 1 3
mkfifo /tmp/odd/pipe
for fs in ext4 xfs f2fs; do
	slivers=/mnt/$fs/slivers
	view=$slivers/t/rootfs
	kind=copy
	[ $fs != xfs ] || kind=reflink
	check "$fs: a base" sf base add o /tmp/odd
	check "$fs: without lxc.idmap and a name nothing limits a $kind" refuses "--means project" \
		sf create t --base o --backend $kind --quota 8M
	check "$fs: $kind in a project" says "lxc.idmap" \
		sf create t --base o --backend $kind --quota 8M --means project
	check "$fs: it says that the base comes on top" says "limited to 8 MiB beside its base's" sf quota t
	check "$fs: next to nothing of it is used" eval "used=\$(sf show t --json | sed 's/.*\"used\"://;s/,.*//') && echo \$used && [ \$used -le 65536 ]"
	project=$(sed -n 's/.*"project":\([0-9]*\).*/\1/p' "$slivers/.store/t/sliver.json")
	check "$fs: all of it is in the project" all_in_it "$project"
	check "$fs: mount" sf mount t
	[ $fs = f2fs ] || check "$fs: df shows both" eval "size=\$(stat -f -c '%b * %S' '$view') && echo \$size &&
		[ \$((\$size)) -ge 11100000 ] && [ \$((\$size)) -le 11600000 ]"
	check "$fs: the limit of a $kind holds" overfill "$view" 8192
	check "$fs: it is full" is_full "$view"
	check "$fs: all of the full one is in the project" all_in_it "$project"
	check "$fs: show" says '"limit":8388608,"means":"project","limit_base":' sf show t --json
	check "$fs: usage" sf usage t
	check "$fs: no less than it has" refuses "does not fit" sf quota t 6M
	check "$fs: more, while it is mounted" says "limited to 12 MiB beside" sf quota t 12M
	check "$fs: there is room" unshare -U -r -m dd if=/dev/zero of="$view/more" bs=64k count=24
	check "$fs: and a limit again" is_full "$view"
	rm -rf "$view/fill" "$view/still" "$view/d" "$view/more"
	was=$(shown "$view")
	check "$fs: none" says "has no limit" eval "sf umount t && sf quota t none && sf mount t"
	check "$fs: none leaves the view as it was" unchanged "$view" "$was"
	check "$fs: none leaves no limit" none_left
	check "$fs: one that is there into a project" says "limited to 10 MiB beside its base's" \
		eval "sf umount t && sf quota t 10M --means project && sf mount t"
	check "$fs: and leaves the view as it was" unchanged "$view" "$was"
	check "$fs: and a limit for it" is_full "$view"
	rm -f "$view/still"
	check "$fs: to overlay, in a project" says "limited to 10 MiB by project" \
		eval "sf umount t; sf convert t --to overlay && sf mount t && sf quota t"
	check "$fs: the view is as it was" unchanged "$view" "$was"
	check "$fs: and back" says "limited to 10 MiB beside" \
		eval "sf umount t; sf convert t --to $kind && sf mount t && sf quota t"
	check "$fs: the view is still as it was" unchanged "$view" "$was"
	check "$fs: and a limit for it" is_full "$view"
	check "$fs: onto another base" says "limited to 10 MiB beside" \
		eval "sf umount t && sf rebase t --onto c && sf quota t && sf rebase t --commit"
	project=$(sed -n 's/.*"project":\([0-9]*\).*/\1/p' "$slivers/.store/t/sliver.json")
	check "$fs: all of that is in the project" all_in_it "$project"
	check "$fs: destroy" sf destroy t
	check "$fs: destroy leaves no limit" none_left
done
