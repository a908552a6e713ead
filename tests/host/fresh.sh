# shellcheck shell=sh disable=SC2034,SC2154 # root, failed, scratch and child are those of ./x
# `./x test fresh`: read by ./x, whose functions and variables it uses.
set -eu

fresh() {
    [ "$(id -u)" = 0 ] || exec sudo --preserve-env "$root/x" test fresh "$@"
    [ $# -gt 0 ] || set -- './x demo' './x test'
    begin
    set_up debootstrap:debootstrap git:git
    [ -z "$(git status --porcelain)" ] || say 'only what is committed is tried: this folder holds more'
    fresh=$(mktemp -d /var/tmp/gatehouse-fresh.XXXXXX)
    devices=$(stat -c '%n %A %u:%g' /dev/*)
    stage debootstrap bare_root "$fresh/base"
    [ "$failed" = 1 ] || stage clone git clone --quiet --no-hardlinks "$root" "$fresh/base/root/gatehouse"
    [ "$failed" = 0 ] || finish
    same_network "$fresh/base"
    echo "made by ./x test fresh" >"$fresh/base/bare-root"
    for command; do
        say "in a bare root: $command"
        cp -a "$fresh/base" "$fresh/run"
        began=$(date +%s) result=ok
        # In the background, so that a signal to us is seen at once; a shell would have it ignore Ctrl-C there, hence env.
        env --default-signal=INT,QUIT setpriv --pdeathsig KILL \
            unshare --mount --pid --uts --ipc --propagation private --fork --kill-child \
            "$root/x" in-bare-root "$fresh" "$command" &
        child=$!
        wait "$child" || result="FAILED ($?)" failed=1
        child=
        record "bare root: $command" "$began" "$result"
        rm -rf --one-file-system "$fresh/run"
    done
    if [ "$devices" != "$(stat -c '%n %A %u:%g' /dev/*)" ]; then
        say "the machine's own /dev has changed" && failed=1
    fi
    finish
}

bare_root() {
    debootstrap --variant=minbase --include=git,ca-certificates bookworm "$1" \
        "${GATEHOUSE_MIRROR:-http://deb.debian.org/debian}" >"$scratch/debootstrap" || {
        tail -n 20 "$scratch/debootstrap"
        return 1
    }
}

# The way to the registries is the machine's and no part of what is tried: name servers, a proxy, a company's CA.
# Sources of packages are not taken over: debootstrap's own list stays, as do the default registries of cargo and pip,
# unless the machine's are told to use others in its environment (network_environment).
same_network() {
    cat /etc/resolv.conf >"$1/etc/resolv.conf"
    cat /etc/hosts >"$1/etc/hosts"
    apt-config dump | grep -E '^Acquire::([a-z]+::.*Proxy|Check-)' >"$1/etc/apt/apt.conf.d/00machine" || :
    authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
    [ ! -r "$authorities" ] || cat "$authorities" >"$1/etc/ssl/certs/ca-certificates.crt"
    # In both places, since the package's own update rebuilds the bundle from the second.
    for file in /usr/local/share/ca-certificates/*.crt; do
        [ ! -e "$file" ] || cat "$file" >"$1/usr/local/share/ca-certificates/${file##*/}"
    done
}

network_environment() {
    env | grep -iE '^((https?|all|no)_proxy|CARGO_(HTTP|NET|REGISTRIES|SOURCE)_[A-Z_]*|GATEHOUSE_MIRROR|CI|TERM|'\
'PIP_(PROXY|INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|TIMEOUT|DEFAULT_TIMEOUT|RETRIES))=' |
        grep -viE '^[^=]*(TOKEN|CREDENTIAL|PASSWORD)[^=]*=' || :
    # pip brings authorities of its own; those of the machine were copied here.
    echo PIP_CERT=/etc/ssl/certs/ca-certificates.crt
}

# First process of new namespaces: goes into the copy for good, then runs the command there.
in_bare_root() {
    new=$1/run machine=$1
    [ $$ = 1 ] || die "in-bare-root: only as the first process of its own namespace"
    [ -f "$new/bare-root" ] || die "$new is no bare root"
    mount --bind "$new" "$new"
    mount -t proc proc "$new/proc"
    mount -t sysfs -o ro sysfs "$new/sys"
    mount -t tmpfs -o mode=755 tmpfs "$new/run"
    # Devices are made, never bound: a chmod in there would reach the machine's.
    mount -t tmpfs -o mode=755 tmpfs "$new/dev"
    while read -r node major minor; do
        mknod -m 666 "$new/dev/$node" c "$major" "$minor"
    done <<'NODES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
NODES
    mkdir "$new/dev/pts" "$new/dev/shm" "$new/machine"
    mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$new/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$new/dev/shm"
    ln -s pts/ptmx "$new/dev/ptmx"
    ln -s /proc/self/fd "$new/dev/fd"
    for stream in stdin:0 stdout:1 stderr:2; do ln -s "fd/${stream#*:}" "$new/dev/${stream%:*}"; done
    hostname bare
    set -- "$2" "$(network_environment)"
    cd "$new"
    pivot_root . machine
    cd /
    umount -l /machine
    rmdir /machine
    # Whatever went wrong above, nothing may run on the machine's own root.
    if ! [ -f /bare-root ] || [ -e "$machine" ]; then die "this is not the bare root"; fi
    cd /root/gatehouse
    command=$1
    IFS='
'
    set -f
    # shellcheck disable=SC2086 # one NAME=VALUE a line
    set -- env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin $2 \
        sh -c "$command
exit \$?"
    unset IFS
    set +f
    nothing_left_by "$@"
}
