# Projects that are somebody else's: which one a sliver takes where they are in the way, and that the search ends. Sourced by init
# after sliverfs.sh, whose words it takes.
# shellcheck shell=busybox

fs=ext4
slivers=/mnt/$fs/slivers

# others FIRST LAST KIB: these projects may have so much; with 0 they are nobody's again.
others() {
	seq "$1" "$2" | sed "s/\$/ 0 $3 0 0/" | setquota -P -b "/mnt/$fs"
}

# takes SLIVER PROJECT: a new sliver takes that one.
takes() {
	sf create "$1" --base b --backend overlay --quota 8M --means project || return 1
	cat "$slivers/.store/$1/sliver.json"
	grep -q "\"project\":$2[,}]" "$slivers/.store/$1/sliver.json"
}

# refused FIRST LAST: a new sliver is told where none is free, and nothing of it is there.
refused() {
	refuses "no project of $1 to $2 is free" sf create u --base b --backend overlay --quota 8M --means project &&
		[ ! -e "$slivers/.store/u" ]
}

check "claim: the first one, where nothing is in the way" eval "takes u 20000 && sf destroy u"
check "claim: others have 1000" others 20000 20999 4096
check "claim: the one behind them" eval "takes u 21000 && sf destroy u"
check "claim: and have one more" others 21000 21000 4096
check "claim: no more are passed over" refused 20000 21000
# With each sliver the search begins one later, and ends two later.
check "claim: a sliver" sf create s --base b --backend overlay
check "claim: the search goes further for it" eval "takes u 21001 && sf destroy u"
check "claim: others have that, too" others 21001 21002 4096
check "claim: and ends all the same" refused 20001 21002
check "claim: they give all back" others 20000 21002 0
check "claim: the first one that is looked at is free again" eval "takes u 20001 && sf destroy u && sf destroy s"
check "claim: nothing is left" none_left
