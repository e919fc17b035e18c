# shellcheck shell=sh
# What the scripts of cross/ and openwrt/ share; they set `root`, the project's folder, and source it.
# shellcheck disable=SC2034,SC2154 # variables set and used by those scripts

# The compilers that can build for a router: -Cpanic=immediate-abort came with 1.92; a 2.x may mean anything.
RUST_MIN=1.92
RUST_MAX=2.0
ZIG_VERSION=0.17.1
ZIGBUILD_VERSION=0.24.0
ZOPFLI_VERSION=0.4.3
SHELLCHECK_VERSION=0.11.0.1

venv=${SLIVERFS_VENV:-$root/.venv}
dist=$root/dist

# Says why, and ends the script.
die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# The table in file $1 without comments and empty lines.
table() {
	sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$1"
}

# The names of all targets.
targets() {
	table "$root/cross/targets" | while read -r name _; do
		echo "$name"
	done
}

# Sets qemu, cpu, abi and unpacker to what the table says of target $1.
target() {
	row=$(table "$root/cross/targets" | grep "^$1[[:space:]]") ||
		die "$1 is not in cross/targets, which has: $(targets | tr '\n' ' ')"
	# shellcheck disable=SC2086 # columns
	set -- $row
	qemu=$2 cpu=$3 abi=$4
	shift 4
	unpacker=$*
}

# The binary for target $1, made by cross/build.
binary() {
	echo "$dist/bin/$1/sliverfs"
}

# Whether version $1 (1.96.0) is at least $2 (1.92).
at_least() {
	[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# Whether the compiler $1 can build for a router: right version, with cargo beside it and the sources of its library.
is_tool_chain() {
	[ -x "$1" ] && [ -x "${1%/*}/cargo" ] || return 1
	version=$("$1" --version 2>/dev/null | cut -d ' ' -f 2)
	at_least "$version" "$RUST_MIN" && ! at_least "$version" "$RUST_MAX" || return 1
	[ -f "$("$1" --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ]
}

# Prints the folder of the first compiler that will do: those on PATH, then Debian's.
tool_chain() {
	(
		IFS=:
		for dir in $PATH /usr/bin; do
			if is_tool_chain "$dir/rustc"; then
				echo "$dir"
				exit 0
			fi
		done
		exit 1
	)
}
