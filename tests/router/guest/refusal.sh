# What sliverfs says on a disk where overlay mounts and then cannot rename.
# shellcheck shell=busybox disable=SC2154 # part is init's

# refusal LXCPATH
refusal() {
	lxc=$1
	forget
	holds "init" s init
	expect 3 "probe finds nothing that works" s probe
	expect 3 "probe --json finds nothing that works" s probe --json
	kind_of /tmp/out overlay >/tmp/overlay
	echo "# overlay:$(cat /tmp/overlay)"
	holds "the kernel offers overlay" grep -q '"offered":true' /tmp/overlay
	holds "overlay does not work here" grep -q '"works":false' /tmp/overlay
	holds "the reason names rename" grep -q '"reason":"[^"]*rename' /tmp/overlay
	holds "no trial stays mounted" [ "$(mounts "$lxc")" = 1 ]

	make_tree /tmp/tree
	holds "base add" s base add plain /tmp/tree
	holds "base verify" s base verify plain
	find "$lxc" | sort >/tmp/before
	expect 3 "create finds no backend" s create web --base plain --backend auto
	says /tmp/err "its message names rename" rename
	find "$lxc" | sort >/tmp/after
	holds "create left nothing" cmp /tmp/before /tmp/after
	expect 3 "create --backend overlay is refused too" s create web --base plain --backend overlay
	find "$lxc" | sort >/tmp/after
	holds "that left nothing either" cmp /tmp/before /tmp/after
	fails "no sliver is there" s show web
	holds "base remove" s base remove plain
	rm -r /tmp/tree
	done="$done,$part"
}
