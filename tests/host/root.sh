# shellcheck shell=sh disable=SC2154 # root, target and scratch are those of ./x
# `./x host-root`: the Debian that real hosts run (tests/src/real_host.rs); read by ./x, whose functions it uses.
# The finished root holds a copy of this file as /gatehouse-host-root. That is what marks it, and what says of which
# recipe it is: whatever is changed here, even a comment, makes a new one.
set -eu

HOST_PACKAGES='systemd systemd-sysv dbus libpam-systemd openssh-server iproute2 iptables nftables procps conntrack ethtool
    socat kmod curl ca-certificates mount libseccomp2 libdevmapper1.02.1 sudo bpftool'

# Units that are of no use in a host, or would reach the machine's own kernel; console-getty alone makes it `degraded`.
HOST_MASKED='console-getty.service getty@tty1.service getty-static.service apt-daily.timer apt-daily-upgrade.timer
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-pstore.service
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount
    dev-hugepages.mount proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount systemd-modules-load.service
    systemd-remount-fs.service nftables.service'

# Makes it unless it is there already. Tests hold the lock as readers for as long as a host of theirs runs.
host_root() {
    hosts=$target/hosts recipe=$root/tests/host/root.sh
    mkdir -p "$hosts"
    exec 9>"$hosts/lock"
    flock 9
    if ! cmp -s "$recipe" "$hosts/root/gatehouse-host-root"; then
        rm -rf --one-file-system "$hosts/root" "$hosts/root.partial"
        make_host_root "$hosts/root.partial" || { exec 9>&-; return 1; }
        mv "$hosts/root.partial" "$hosts/root"
        say "made $hosts/root"
    fi
    exec 9>&-
}

# Each step is checked by itself: `set -e` does not count where the caller looks at the result.
make_host_root() {
    new=$1 release=bookworm
    # debootstrap does not know apt's settings.
    for scheme in http https; do
        proxy=$(apt-config dump | sed -n "s/^Acquire::$scheme::Proxy \"\\(.*\\)\";\$/\\1/p") || return
        [ -z "$proxy" ] || [ "$proxy" = DIRECT ] || export "${scheme}_proxy=$proxy"
    done
    # shellcheck disable=SC2086 # a list of words becomes one with commas
    packages=$(printf '%s,' $HOST_PACKAGES) || return
    debootstrap --variant=minbase --include="${packages%,}" "$release" "$new" \
        "${GATEHOUSE_MIRROR:-http://deb.debian.org/debian}" >"$hosts/debootstrap.log" || {
        tail -n 20 "$hosts/debootstrap.log"
        return 1
    }
    # What makes a host that host is its own: keys, machine-id, name. An empty machine-id is filled in at its first boot.
    rm -f "$new"/etc/ssh/ssh_host_* "$new/var/lib/dbus/machine-id" "$new/etc/hostname" "$new/etc/resolv.conf" || return
    : >"$new/etc/machine-id" && : >"$new/etc/resolv.conf" && : >"$new/etc/fstab" || return
    rm -rf "$new"/var/cache/apt/archives/*.deb "$new"/var/lib/apt/lists/* || return
    for unit in $HOST_MASKED; do
        ln -sf /dev/null "$new/etc/systemd/system/$unit" || return
    done
    ln -sf /lib/systemd/system/multi-user.target "$new/etc/systemd/system/default.target" || return
    # A journal on disk survives a reboot. What is written last before a loss of power is to be found in it, too.
    mkdir -p "$new/var/log/journal" "$new/etc/systemd/journald.conf.d" || return
    printf '[Journal]\nStorage=persistent\nReadKMsg=no\nSyncIntervalSec=1s\nRateLimitIntervalSec=0\n' \
        >"$new/etc/systemd/journald.conf.d/gatehouse.conf" || return
    cp "$recipe" "$new/gatehouse-host-root" || return
    # The marker is the last thing to reach the disk; so is the name that it is found under.
    sync -f "$new"
}
