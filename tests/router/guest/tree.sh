# Makes the tree of a small base in folder $1, with one of each thing that a base keeps.
# shellcheck shell=busybox disable=SC2012 # the names are known
make_tree() {
	mkdir -p "$1/bin" "$1/dev" "$1/etc/init.d" "$1/etc/empty" "$1/gone/deep" "$1/old/sub" "$1/srv" "$1/tmp"
	echo base >"$1/etc/hostname"
	echo 'a line' >"$1/etc/motd"
	echo '#!/bin/sh' >"$1/etc/init.d/x"
	echo one >"$1/gone/deep/1"
	echo two >"$1/gone/2"
	echo three >"$1/old/sub/3"
	echo delete >"$1/srv/delete"
	echo rename >"$1/srv/rename"
	echo root >"$1/bin/su"
	seq 1 5000 >"$1/srv/numbers"
	ln "$1/bin/su" "$1/bin/sudo"
	ln -s su "$1/bin/login"
	mknod "$1/dev/null" c 1 3
	chown 1000:1001 "$1/etc/motd"
	chmod 4755 "$1/bin/su"
	chmod 1777 "$1/tmp"
}

# Does to the view $1 what a container does to its base.
change() {
	echo changed >"$1/etc/hostname" || return 1
	echo 'another line' >>"$1/etc/motd" || return 1
	rm "$1/srv/delete" || return 1
	mv "$1/srv/rename" "$1/srv/renamed" || return 1
	rm -r "$1/gone" || return 1
	mkdir "$1/gone" || return 1
	echo new >"$1/gone/new" || return 1
	mv "$1/old" "$1/moved" || return 1
	ln -s ../srv "$1/etc/link" || return 1
	mkfifo "$1/srv/fifo" || return 1
	chmod 700 "$1/bin/su" || return 1
}

# Is view $1 the base after `change`? Says what is not.
changed() {
	is "$1/etc/hostname" changed || { echo "etc/hostname"; return 1; }
	[ "$(cat "$1/etc/motd")" = "$(printf 'a line\nanother line')" ] || { echo "etc/motd"; return 1; }
	[ "$(look "$1/etc/motd")" = "-rw-r--r-- 1 1000:1001" ] || { echo "owner of etc/motd"; return 1; }
	[ "$(ls "$1/srv" | tr '\n' ' ')" = "fifo numbers renamed " ] || { echo "srv: $(ls "$1/srv")"; return 1; }
	[ "$(ls "$1/gone" | tr '\n' ' ')" = "new " ] || { echo "gone is not opaque: $(ls "$1/gone")"; return 1; }
	is "$1/moved/sub/3" three || { echo "moved/sub/3"; return 1; }
	[ ! -e "$1/old" ] || { echo "old is back"; return 1; }
	[ "$(readlink "$1/etc/link")" = ../srv ] || { echo "etc/link"; return 1; }
	[ "$(look "$1/bin/su" | cut -c 1-10)" = "-rwx------" ] || { echo "mode of bin/su"; return 1; }
	[ "$(tail -n 1 "$1/srv/numbers")" = 5000 ] || { echo "srv/numbers"; return 1; }
}

# Is tree $1 as `make_tree` left it? Says what is not.
untouched() {
	is "$1/etc/hostname" base || { echo "etc/hostname"; return 1; }
	is "$1/srv/delete" delete || { echo "srv/delete"; return 1; }
	is "$1/gone/deep/1" one || { echo "gone/deep/1"; return 1; }
	is "$1/old/sub/3" three || { echo "old/sub/3"; return 1; }
	[ "$(look "$1/etc/motd")" = "-rw-r--r-- 1 1000:1001" ] || { echo "etc/motd: $(look "$1/etc/motd")"; return 1; }
	[ "$(look "$1/bin/su")" = "-rwsr-xr-x 2 0:0" ] || { echo "bin/su: $(look "$1/bin/su")"; return 1; }
	[ "$(look "$1/dev/null")" = "crw-r--r-- 1 0:0 1, 3" ] || { echo "dev/null: $(look "$1/dev/null")"; return 1; }
	[ "$(look "$1/tmp" | cut -c 1-10)" = drwxrwxrwt ] || { echo "mode of tmp"; return 1; }
	[ "$(readlink "$1/bin/login")" = su ] || { echo "bin/login"; return 1; }
	[ "$(ls "$1/srv" | tr '\n' ' ')" = "delete numbers rename " ] || { echo "srv: $(ls "$1/srv")"; return 1; }
}
