# What project quotas cost with many slivers: sourced by init, where the kernel's command line says slivers=N. It tells and checks
# nothing: the machine is emulated, and only what stands beside one another can be compared.
# shellcheck shell=busybox disable=SC2154 # count is of init

# Hundredths of a second since the machine started.
now() { cut -d ' ' -f 1 /proc/uptime | tr -d .; }

# Adds what a command takes to the variable $1, in hundredths of a second.
timed() {
	sum=$1
	shift
	began=$(now)
	"$@" >/tmp/out 2>&1 </dev/null || { cat /tmp/out; stop "measure: $*"; }
	eval "$sum=\$(($sum + $(now) - began))"
}

# What XFS has for it beside repquota, where that tells of blocks alone.
own() {
	case $fs in
	xfs) xfs_quota -x -c 'report -p -N -n -b' "/mnt/$fs" ;;
	*) : ;;
	esac
}

printf "config sliverfs main\n\toption overcommit '1000'\n" >/tmp/uci
for fs in ext4 xfs; do
	slivers=/mnt/$fs/slivers
	mkdir -p "$slivers" /tmp/tree/etc
	sliverfs --lxcpath "$slivers" init
	sliverfs --lxcpath "$slivers" base add b /tmp/tree
	many() { sliverfs --config /tmp/uci --lxcpath "$slivers" "$@"; }
	limited=0
	plain=0
	for number in $(seq 1 "$count"); do
		# By turns at the end, when all the records are there to be read.
		if [ "$number" -gt $((count - 40)) ]; then
			timed limited many create "m$number" --base b --backend overlay --quota 4M --means project
			timed plain many create "n$number" --base b --backend overlay
		else
			many create "m$number" --base b --backend overlay --quota 4M --means project >/dev/null 2>&1
		fi
	done
	for number in $(seq $((count - 39)) "$count"); do
		many destroy "n$number" >/dev/null 2>&1
	done
	sync
	usage=0
	quota=0
	own=0
	for turn in 1 2 3 4 5 6 7 8 9 10; do
		timed usage many usage
		timed quota repquota -P -n "/mnt/$fs"
		timed own own
	done
	echo "MEASURED $fs slivers=$count create: with a project $((limited * 10 / 40)) ms, without $((plain * 10 / 40)) ms;" \
		"usage $usage ms, repquota -P $quota ms, xfs_quota $own ms"
done
