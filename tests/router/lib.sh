# What `setup` and `run` share: which routers there are, and where their parts lie.
# Sourced, with `here` set to the folder of this file.
# shellcheck shell=sh disable=SC2034 # what it sets, others read
# shellcheck disable=SC2154 # here

root=$(cd "$here/../.." && pwd) || exit 1
# Kernels, busybox and modules of the emulated machines, about 40 MiB for all.
cache=${SLIVERFS_ROUTER_CACHE:-$root/target/router}
# Goes up when `setup` puts something else into the cache: an older cache is then made anew.
layout=1

routers="mipsel armhf"
# No router: a node of the CI machine's kind, with the quotas that its kernel lacks (tests/quota-machine).
machines="$routers amd64"

# What a router's guest needs beside the kernel itself. The deflate and zstd modules are
# UBIFS's compressors: it asks for them by alias, so no dependency names them.
router_modules="loop overlay squashfs ext4 f2fs ubifs ubi nandsim jffs2 deflate zstd lzo crc32c_generic virtio_blk"

die() {
	echo "$0: $*" >&2
	exit 1
}

# Sets which router: arch (its name), and what differs: meta (the kernel's meta package), emulator
# (the qemu command with its machine), disk (the virtio device a disk hangs on),
# bus (its module), console.
router() {
	arch=$1
	modules=$router_modules
	case $arch in
	mipsel)
		# A 24Kc without a floating point unit, as in most routers of its time.
		meta=linux-image-4kc-malta
		emulator="qemu-system-mipsel -M malta -cpu 24Kc"
		disk=virtio-blk-pci
		own="virtio_pci mtdram"
		# NOR: bytes can be written one by one.
		flash="mtdram test device"
		console=ttyS0
		;;
	armhf)
		meta=linux-image-armmp
		emulator="qemu-system-arm -M virt -cpu cortex-a7"
		disk=virtio-blk-device
		own=virtio_mmio
		# This kernel has no mtdram: NAND, which JFFS2 writes in whole pages.
		flash="NAND simulator partition 1"
		console=ttyAMA0
		;;
	amd64)
		meta=linux-image-amd64
		emulator="qemu-system-x86_64 -M q35"
		disk=virtio-blk-pci
		own=virtio_pci
		flash=
		console=ttyS0
		modules="loop overlay squashfs ext4 xfs f2fs quota_v2 crc32c_generic virtio_blk"
		;;
	*)
		die "no machine '$arch': there are: $machines"
		;;
	esac
}

# Where the disk tools lie, also for those whose PATH leaves it out.
PATH=$PATH:/usr/sbin:/sbin

# True when `setup` has finished for router $1.
prepared() {
	[ "$(cat "$cache/$1/layout" 2>/dev/null)" = "$layout" ]
}

# Prints what is missing on this machine to boot the router that `router` set; nothing
# when it can boot.
lacking() {
	prepared "$arch" || echo "$cache/$arch"
	for command in "${emulator%% *}" mkfs.ext4 mkfs.f2fs ubinize mksquashfs cpio timeout; do
		command -v "$command" >/dev/null || echo "$command"
	done
}
