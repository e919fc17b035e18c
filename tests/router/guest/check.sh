# How the guest counts: every check prints one line, `ok` or `FAIL`, with the disk it is
# about in $part. Sourced by init. Busybox ash as OpenWrt builds it.
# shellcheck shell=busybox

checks=0
failed=0
part=boot

# Debian's busybox runs every applet it has, in $PATH or not: a router's has fewer.
for applet in stat timeout realpath od base64 install whoami stty usleep pkill nohup hostname \
	diff patch getopt losetup truncate nsenter unshare; do
	eval "$applet() { echo '$applet: a router has none' >&2; return 127; }"
done

ok() {
	checks=$((checks + 1))
	echo "ok $checks [$part] $*"
}

bad() {
	checks=$((checks + 1))
	failed=$((failed + 1))
	echo "FAIL $checks [$part] $*"
}

# Runs a command; what it printed is left in /tmp/out and /tmp/err.
attempt() {
	"$@" >/tmp/out 2>/tmp/err </dev/null
}

# What the last attempt printed, and what the kernel last said.
explain() {
	sed 's/^/# out: /' /tmp/out | head -n 20
	sed 's/^/# err: /' /tmp/err | head -n 20
	dmesg | tail -n 5 | sed 's/^/# kernel: /'
}

# expect RC WHAT COMMAND...: the command ends with RC.
expect() {
	want=$1
	what=$2
	shift 2
	attempt "$@"
	rc=$?
	if [ "$rc" = "$want" ]; then
		ok "$what"
	else
		bad "$what: exit code $rc, not $want: $*"
		explain
	fi
}

# holds WHAT COMMAND...: the command ends well.
holds() {
	expect 0 "$@"
}

# fails WHAT COMMAND...: the command ends badly, with whatever code.
fails() {
	what=$1
	shift
	if attempt "$@"; then
		bad "$what: it ended well: $*"
		explain
	else
		ok "$what"
	fi
}

# says FILE WHAT TEXT: what the last attempt printed, to /tmp/out or /tmp/err, contains TEXT.
says() {
	case $(cat "$1") in
	*"$3"*) ok "$2" ;;
	*)
		bad "$2: '$3' is not in $1"
		explain
		;;
	esac
}

# The file $1 holds exactly the line $2.
is() {
	[ "$(cat "$1")" = "$2" ]
}

# The mode, links and owner of $1, and for a device its numbers: what `ls` says before the size.
look() {
	# shellcheck disable=SC2046 # its words are wanted
	set -- $(ls -lnd "$1")
	case $1 in
	[bc]*) echo "$1 $2 $3:$4 $5 $6" ;;
	*) echo "$1 $2 $3:$4" ;;
	esac
}

# How many mounts there are on the path $1, or on one below it.
mounts() {
	awk -v at="$1" '$5 == at || index($5, at "/") == 1 { n++ } END { print n + 0 }' /proc/self/mountinfo
}

# The part of the document in $1 that is about kind $2, white space made one.
kind_of() {
	tr '\n\t' '  ' <"$1" | sed "s/\" *: */\":/g; s/.*\"kind\":\"$2\"//; t end; d; :end s/\"kind\":.*//"
}
