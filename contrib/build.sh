# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Sourced by contrib/quickstart and tests/run: what to install, and how to build.

BUILD_PACKAGES=(autoconf automake make gcc g++ pkg-config libev-dev libjansson-dev libaio-dev liburing-dev libisns-dev
    libiscsi-dev libisal-dev zlib1g-dev libzstd-dev libssl-dev uuid-dev libgtest-dev)
IMAGE_PACKAGES=(qemu-utils qemu-block-extra e2fsprogs)
TEST_PACKAGES=(open-isns-server open-isns-utils libiscsi-bin tgt istgt python3 strace clang clang-format libclang-rt-dev mandoc qemu-system-x86 zsh tshark
    debhelper lintian dpkg-dev fakeroot systemd)
TEST_PACKAGES+=(libvirt-daemon libvirt-clients libvirt-daemon-driver-storage-iscsi-direct libxml2-utils) # libvirt-session
SYSTEM_PACKAGES=(iproute2)
BENCH_PACKAGES=(tgt istgt qemu-utils qemu-system-common nbdkit libnbd-bin fio iproute2)

installed() {
    [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]
}

# need_packages PKG...: installs what is missing; takes no time when nothing is.
need_packages() {
    local pkg missing=() as_root=()
    command -v dpkg-query >/dev/null || return 0 # another distribution: configure says what lacks
    for pkg; do
        installed "$pkg" || missing+=("$pkg")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "not root and no sudo; as root: apt-get install ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    echo "installing: ${missing[*]}"
    # tgt's package would start a daemon on port 3260: nothing is to be started here.
    "${as_root[@]}" sh -c '
        export DEBIAN_FRONTEND=noninteractive
        policy=/usr/sbin/policy-rc.d
        made=
        [ -e "$policy" ] || { printf "#!/bin/sh\nexit 101\n" >"$policy" && chmod 755 "$policy" && made=1; }
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"
        code=$?
        [ -z "$made" ] || rm -f "$policy"
        exit $code' sh "${missing[@]}" >/dev/null
}

# quietly LOG CMD...: runs it, its output in LOG; shows the end of LOG if it fails.
quietly() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 && return 0
    echo "failed: $*" >&2
    tail -n 40 "$log" >&2
    return 1
}

# build_tree DIR LOG TARGET [CONFIGURE_ARGS...]: autogen and configure where that was not done yet.
build_tree() {
    local dir=$1 log=$2 target=$3
    shift 3
    (
        cd "$dir" || exit 1
        if [ ! -f Makefile ]; then
            [ -x configure ] || quietly "$log" ./autogen.sh || exit 1
            quietly "$log" ./configure "$@" || exit 1
        fi
        # First all, then the rest: two makes at once would build the same archives.
        quietly "$log" make -j"$(nproc)" all || exit 1
        [ "$target" = all ] || quietly "$log" make -j"$(nproc)" "$target"
    )
}
