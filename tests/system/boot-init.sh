#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# First process of the boot disk's initramfs: what a distribution's does with netroot=iscsi. With an
# iBFT, left by iPXE, the network is set up as it says and the kernel's own initiator logs in; the
# root file system is the one labelled cowtgt-root, wherever it is.
export PATH=/usr/bin LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do
    [ -e "/usr/lib/modules/$module.ko" ] && insmod "/usr/lib/modules/$module.ko" 2>/dev/null
done </etc/modules
echo 8388608 >/proc/sys/net/core/rmem_max
echo "4096 8388608 8388608" >/proc/sys/net/ipv4/tcp_rmem
ip link set lo up
ibft=/sys/firmware/ibft
if [ -e $ibft/target0/target-name ]; then
    echo "IBFT $(cat $ibft/initiator/initiator-name) $(cat $ibft/target0/target-name)"
    ip link set eth0 up
    ip addr add "$(cat $ibft/ethernet0/ip-addr)/24" dev eth0
    ip route add default via "$(cat $ibft/ethernet0/gateway)"
    iscsistart -b || echo "BOOT-FAILED iscsistart"
fi
tries=0
until root=$(blkid -L cowtgt-root); do
    tries=$((tries + 1))
    if [ $tries -gt 600 ]; then
        echo "BOOT-FAILED no root file system"
        echo o >/proc/sysrq-trigger
    fi
    sleep 0.1
done
mount -t ext4 "$root" /mnt
echo "BOOT-ROOT $root"
umount /dev
umount /sys
umount /proc
exec switch_root /mnt /init
