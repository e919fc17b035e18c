# What the README has an operator do on a router, as it stands there. /guest/readme.uci and /guest/readme.commands are its blocks.
# shellcheck shell=busybox

# readme DISK: the disk stands for the one on USB.
readme() {
	forget
	mkdir -p /mnt/usb /etc/config
	holds "a disk" mount -o bind "$1" /mnt/usb
	make_tree /tmp/tree
	tar -C /tmp/tree -cf - . | gzip >/mnt/usb/debian12.tar.gz
	cp /guest/readme.uci /etc/config/sliverfs
	while read -r line; do
		holds "$line" sh -c "$line"
	done </guest/readme.commands
	says /tmp/out "the last command lists the sliver" "web   mounted  created   mounted  overlay  debian12"
	holds "its view is the base" untouched /mnt/usb/lxc/web/rootfs
	holds "umount" sliverfs umount --all
	holds "destroy" sliverfs destroy web
	holds "base remove" sliverfs base remove debian12
	holds "the disk is free again" umount /mnt/usb
	rm -r /tmp/tree /etc/config/sliverfs
}
