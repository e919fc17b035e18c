# What the kernel itself answers on a disk, asked with nothing but mount(8): the truth
# that `sliverfs probe` is held against.
# shellcheck shell=busybox disable=SC2154 # part is init's

# One step of the trial: its name, and what must work.
step() {
	name=$1
	shift
	if "$@" 2>/tmp/err; then
		answers="$answers $name=ok"
	else
		answers="$answers $name=NO"
		echo "# [$part] $name: $(head -n 1 /tmp/err)"
	fi
}

whiteout() {
	case $(look "$1") in
	"c"*" 0, 0") ;;
	*) return 1 ;;
	esac
}

# kernel_trial DISK ANSWERS: overlay with its store on DISK gives ANSWERS.
kernel_trial() {
	t=$1/.trial
	answers=
	mkdir "$t" "$t/lower" "$t/upper" "$t/work" "$t/view"
	make_tree "$t/lower"
	step mount mount -t overlay -o "lowerdir=$t/lower,upperdir=$t/upper,workdir=$t/work" overlay "$t/view"
	step create touch "$t/view/created"
	step modify sh -c "echo more >>'$t/view/etc/motd'"
	step unlink rm "$t/view/srv/delete"
	step whiteout whiteout "$t/upper/srv/delete"
	step rename mv "$t/view/srv/rename" "$t/view/srv/renamed"
	# Removed where the store has nothing of it, it takes a whiteout only; to make it anew,
	# or to remove one that the store has a part of, the two must change places.
	step rmdir rmdir "$t/view/etc/empty"
	step replace mkdir "$t/view/etc/empty"
	step remove rm -r "$t/view/gone"
	step umount umount "$t/view"
	if [ "$answers" = " $2" ]; then
		ok "kernel:$answers"
	else
		bad "kernel:$answers, not: $2"
	fi
	rm -rf "$t"
}
