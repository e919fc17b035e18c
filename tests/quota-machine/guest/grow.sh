# An image that grows while it is mounted, which wants CAP_SYS_RESOURCE: here root has it. Sourced by init, after sliverfs.sh.
# shellcheck shell=busybox

slivers=/mnt/ext4/slivers
view=$slivers/g/rootfs

# The KiB of the view's disk are less than the limit of $1 MiB, and more than three quarters of it.
shows() {
	kib=$(df -k "$view" | tail -n 1 | awk '{ print $(NF - 4) }')
	echo "df: $kib KiB of $1 MiB"
	[ "$kib" -le $(($1 * 1024)) ] && [ "$kib" -ge $(($1 * 768)) ]
}

# The limit that is recorded, in MiB.
limit() { echo $(($(sf show g --json | sed -n 's/.*"limit":\([0-9]*\).*/\1/p') / 1048576)); }

# The numbers of the mounts of the view and of its image.
mounts() { grep " $slivers/" /proc/self/mountinfo | cut -d ' ' -f 1,5; }

# Writes lines into a file that it holds open, until the file /tmp/writes is gone; how many is in /tmp/written.
writes() {
	exec 9>"$view/lines"
	number=0
	while [ -e /tmp/writes ]; do
		echo "line $number" >&9 || break
		number=$((number + 1))
	done
	echo $number >/tmp/written
}

all_lines() {
	[ "$(cat /tmp/written)" -gt 10 ] && [ "$(wc -l <"$view/lines")" = "$(cat /tmp/written)" ]
}

# Kills a growth from $1 to $2 MiB at the call number $4 of the name $3. What is recorded and shown is old or new, the view takes
# files, and the same command again makes it new. Fails with 3 where the growth has no such call.
cut_growth() {
	killed=0
	strace -f -qq -o /dev/null -e "inject=$3:signal=KILL:when=$4" \
		/usr/bin/sliverfs --lxcpath "$slivers" quota g "$2M" >/dev/null 2>&1 || killed=1
	now=$(limit)
	echo "$3 $4: from $1 to $2, killed: $killed, now $now"
	{ [ "$now" = "$1" ] || [ "$now" = "$2" ]; } || return 1
	shows "$1" || shows "$2" || return 1
	echo kept >"$view/kept" && sf diff g >/dev/null || return 1
	sf quota g "$2M" || return 1
	[ "$(limit)" = "$2" ] && shows "$2" || return 1
	[ $killed = 1 ] || return 3
}

check "grow: create" sf create g --base b --backend overlay --quota 8M --means image
check "grow: mount" sf mount g
check "grow: df" shows 8
check "grow: it is full" eval "fill '$view/first' 48 && ! fill '$view/more' 128"
rm -f "$view/more"
was=$(mounts)
touch /tmp/writes
writes &
check "grow: more, while it is mounted and written" says "limited to 24 MiB by image" sf quota g 24M
rm /tmp/writes
wait
check "grow: all that was written is there" all_lines
check "grow: df has the new size" shows 24
check "grow: nothing was mounted anew" [ "$(mounts)" = "$was" ]
check "grow: there is room" fill "$view/more" 192
check "grow: less is refused while it is mounted" refuses "is mounted at" sf quota g 12M
check "grow: that changed nothing" eval "shows 24 && [ \$(limit) = 24 ]"
size=24
for call in fallocate ftruncate fsync ioctl rename; do
	number=1
	while [ $number -lt 9 ]; do
		cut_growth $size $((size + 1)) $call $number >/tmp/cut 2>&1
		code=$?
		size=$((size + 1))
		case $code in
		0) ok "grow: cut at $call $number" ;;
		3) break ;;
		*)
			bad "grow: cut at $call $number"
			sed 's/^/# /' /tmp/cut | head -n 20
			;;
		esac
		number=$((number + 1))
	done
done
check "grow: it was cut" [ "$size" -ge 30 ]
check "grow: after all that, check finds nothing" sf check
rm "$view/more"
was=$(shown "$view")
check "grow: less, unmounted" eval "sf umount g && sf quota g 20M && sf mount g && shows 20"
check "grow: the view is as it was" unchanged "$view" "$was"
check "grow: destroy" eval "sf umount g && sf destroy g"
