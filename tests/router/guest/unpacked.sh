# A program that unpacks itself, and what it leaves for its next starts, on a real kernel with its caches and rights.
# shellcheck shell=busybox

unpacked=/var/run/sliverfs-unpacked

# How many hundredths of a second three starts take.
starts() {
	begun=$(sed 's/ .*//; s/\.//' /proc/uptime)
	for _ in 1 2 3; do
		sliverfs --version >/dev/null || return 1
	done
	echo $(($(sed 's/ .*//; s/\.//' /proc/uptime) - begun))
}

# hold FIFO: starts the program, which waits for what comes out of it; its number is in $held.
hold() {
	mkfifo "$1"
	sliverfs --lxcpath /tmp/lxc base add held - <"$1" >/dev/null 2>&1 &
	held=$!
}

# Its memory in /tmp/smaps, as soon as it is its own and not the shell's.
memory() {
	tries=0
	until grep -q ' r-xp .*/program$' "/proc/$1/maps"; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] && [ -d "/proc/$1" ] || return 1
	done
	cat "/proc/$1/smaps" >/tmp/smaps
}

kept() {
	mkdir /tmp/lxc
	holds "a folder for it" sliverfs --lxcpath /tmp/lxc init
	holds "no folder, nothing left" [ ! -e $unpacked ]
	alone=$(starts)
	mkdir $unpacked
	holds "the first start" sliverfs --version
	holds "it left what it unpacked" [ -f $unpacked/program -a ! -e $unpacked/unfinished ]
	mapped=$(starts)
	holds "three starts take $alone hundredths of a second, mapped $mapped" [ "$((2 * mapped))" -lt "$alone" ]

	hold /tmp/one
	exec 8>/tmp/one
	first=$held
	hold /tmp/two
	exec 9>/tmp/two
	holds "two run at once" memory "$first"
	holds "both are mapped" memory "$held"
	fails "nothing is written and run" grep '^[0-9a-f]*-[0-9a-f]* .wx' /tmp/smaps
	holds "its data is its own" grep -q '^00[0-9a-f]*-[0-9a-f]* rw-p .*/program$' /tmp/smaps
	awk '/^[0-9a-f]+-/ { ours = / r-xp .*\/program$/ } ours && /^Shared_/ { n += $2 } END { print n + 0 }' /tmp/smaps >/tmp/shared
	holds "they share $(cat /tmp/shared) KiB of what is run" [ "$(cat /tmp/shared)" -gt 200 ]
	exec 8>&- 9>&-
	wait
	rm -r /tmp/lxc

	holds "a file system that nothing is run from" mount -t tmpfs -o noexec tmpfs $unpacked
	holds "a start there" sliverfs --version
	holds "it left what it unpacked there" [ -f $unpacked/program ]
	holds "another start there" sliverfs --version
	holds "away with it" umount $unpacked
}
