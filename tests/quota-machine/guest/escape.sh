# What root in a container tries against a project quota. Sourced by init, and by each try that has a user namespace.
#
# Each try has a project of its own, with a limit of 1 MiB, and wants 4. It is made in the folder itself that has the project
# (`tree`: a view that is a whole tree), through an overlay whose upper and work folders have it (`view`), and there from a user
# namespace, as root of that alone (`userns`). What counts is what the disk has less, whatever the quota says. The tries whose
# names end in `_i` are made with a limit of 256 inodes, too.
# shellcheck shell=busybox

# KiB.
limit=1024
project=1000

# What is taken of the disk $1, in KiB, when all is written.
taken() {
	sync -f "$1"
	df -k "$1" | awk 'END { print $(NF - 3) }'
}

# What the quota of the project counts, in KiB.
counted() {
	case $1 in
	xfs) xfs_quota -x -c "quota -p -N -b $project" "$2" | awk '{ print $2 }' ;;
	*) repquota -P "$2" 2>/dev/null | awk -v id="#$project" '$1 == id { print $3 }' ;;
	esac
}

# Gives the folder $3 of $1 on $2 a project of its own with the limit, and one of $4 inodes (0: none).
fence() {
	project=$((project + 1))
	mkdir -p "$3/upper" "$3/work" "$3/view"
	chattr -R +P -p "$project" "$3" || return 1
	case $1 in
	xfs) xfs_quota -x -c "limit -p bhard=${limit}k ihard=$4 $project" "$2" ;;
	*) setquota -P "$project" 0 "$limit" 0 "$4" "$2" ;;
	esac
}

fill() { dd if=/dev/zero of="$1" bs=64k count="${2:-64}"; }

# The tries. $1 is the root of the view, $2 the disk, $3 the folder outside; what they say is shown.
try_write() { fill "$1/f"; }
try_unbuffered() { xfs_io -f -d -c 'pwrite -b 64k 0 4m' "$1/f"; }
try_fallocate() { xfs_io -f -c 'falloc 0 4m' "$1/f"; }
try_mmap() { xfs_io -f -c 'truncate 4m' -c 'mmap -rw 0 4m' -c 'mwrite 0 4m' -c 'msync -s' "$1/f"; }
try_sparse() {
	xfs_io -f -c 'truncate 1t' -c 'pwrite 0 1m' -c 'pwrite 1g 1m' -c 'pwrite 64g 1m' -c 'pwrite 900g 1m' "$1/f"
}
try_clear_file() {
	: >"$1/f"
	chattr -p 0 "$1/f"
	fill "$1/f"
}
try_clear_folder() {
	mkdir "$1/d"
	chattr -P "$1/d"
	chattr -p 0 "$1/d"
	fill "$1/d/f"
}
try_clear_root() {
	chattr -P "$1"
	chattr -p 0 "$1"
	mkdir "$1/d"
	fill "$1/d/f"
}
# Out of the project, and what is outside into it.
try_hard_links() {
	fill "$1/f" 12
	ln "$1/f" "$3/outside" && rm "$1/f"
	ln "$3/mine" "$1/mine"
	fill "$1/g"
}
try_tiny_files() {
	mkdir "$1/d"
	for file in $(seq 1 800); do echo "$file" >"$1/d/$file" || break; done
}
try_empty_files() {
	mkdir "$1/d"
	for file in $(seq 1 800); do : >"$1/d/$file" || break; done
}
try_deleted() {
	for file in 3 4 5 6; do
		: >"$1/f" || break
		eval "exec $file>\"\$1/f\""
		rm "$1/f"
		dd if=/dev/zero bs=64k count=16 >&$file
	done
	taken "$2" >/tmp/held
}
try_bind() {
	mkdir "$1/d"
	mount --bind "$1/d" /mnt
	fill /mnt/f
	umount /mnt
}
tries="write unbuffered fallocate mmap sparse clear_file clear_folder clear_root hard_links tiny_files tiny_files_i
	empty_files empty_files_i deleted bind"

# escapes FS DISK: all of it, a line for each try, compared with /guest/facts.
escapes() {
	for how in view tree userns; do
		list=$tries
		# There it is as in a view, or worse: what differs is seen in these.
		[ $how != tree ] || list="write mmap clear_file tiny_files"
		for try in $list; do
			top=$2/try
			mkdir "$top"
			inodes=0
			[ "${try%_i}" = "$try" ] || inodes=256
			fence "$1" "$2" "$top/p" $inodes >/tmp/out 2>&1 || { cat /tmp/out; stop "$1: no project with a limit"; }
			fill "$top/mine" 1 2>/dev/null
			view=$top/p/upper
			if [ $how != tree ]; then
				mkdir "$top/base"
				mount -t overlay -o "lowerdir=$top/base,upperdir=$top/p/upper,workdir=$top/p/work" overlay "$top/p/view" ||
					stop "$1: no overlay"
				view=$top/p/view
			fi
			rm -f /tmp/held
			before=$(taken "$2")
			as=
			[ $how != userns ] || as="unshare -U -r -m"
			# shellcheck disable=SC2016 # they are expanded there
			$as sh -c '. /guest/escape.sh; "try_${0%_i}" "$@"' "$try" "$view" "$2" "$top" >/tmp/said 2>&1 </dev/null
			after=$(cat /tmp/held 2>/dev/null || taken "$2")
			verdict=held
			[ $((after - before)) -le $((limit + 1024)) ] || verdict=escapes
			said=$(grep -v -E 'records|bytes|ops' /tmp/said | tail -n 1)
			what="$1 $how $try $verdict"
			if grep -qx "$what" /guest/facts; then
				ok "$what: took $((after - before)) KiB; $said"
			else
				bad "$what, which is not as is known: took $((after - before)) KiB, counted $(counted "$1" "$2"); $said"
			fi
			[ $how = tree ] || umount "$view"
			rm -rf "$top"
		done
	done
}
