# shellcheck shell=busybox disable=SC2034
# Stands in for OpenWrt's /lib/functions.sh: what was seen of the functions that the package's scripts call.

# Of a file with one section of options, written as `option NAME 'VALUE'`.
config_load() {
	CONFIG_FILE=/etc/config/$1
}

config_get() {
	eval "$1=\$(sed -n \"s/^[[:space:]]*option $3 '\\(.*\\)'\$/\\1/p\" \"\$CONFIG_FILE\" | tail -n 1)"
}

# The package's own part, then: enabled only when it is new, started always.
default_postinst() {
	local root="${IPKG_INSTROOT}" ret=0 part
	part="$root/usr/lib/opkg/info/$(basename "${1%.*}").postinst-pkg"

	if [ -f "$part" ]; then
		# shellcheck disable=SC1090
		(. "$part")
		ret=$?
	fi
	if [ -n "$root" ]; then
		/bin/sh "$root/etc/rc.common" "$root/etc/init.d/sliverfs" enable
	else
		[ "$PKG_UPGRADE" = 1 ] || /etc/init.d/sliverfs enable
		/etc/init.d/sliverfs start
	fi
	return $ret
}

# Stopped on upgrade too.
default_prerm() {
	[ "$PKG_UPGRADE" = 1 ] || /etc/init.d/sliverfs disable
	/etc/init.d/sliverfs stop
}
