#!/bin/sh
# Installs what the lab tests need (root), and unpacks the guest's kernel into .cache/guest. A second call only looks.
# Nothing is started, no configuration is kept: a policy-rc.d of ours stands in the way of the packages' services while they install.
set -eu
cd "$(dirname "$0")/.."

packages="
  iproute2 iputils-ping openssh-server openssh-client
  iperf3 sockperf qperf
  qemu-system-x86 busybox-static kmod cpio zstd
  rdma-core ibverbs-utils perftest libibverbs-dev
  chromium fonts-noto-cjk"

say() { printf '%s\n' "$*"; }
installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
known() { apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }

command -v dpkg-query >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 || {
  say "make lab-deps knows Debian and Ubuntu only; install the likes of these yourself:" $packages >&2
  exit 2
}

missing=""
for package in $packages; do installed "$package" || missing="$missing $package"; done
guest=.cache/guest
[ -e "$guest/vmlinuz" ] && kernel_here=yes || kernel_here=no
if [ -z "$missing" ] && [ $kernel_here = yes ]; then
  say "lab-deps: all here"
  exit 0
fi

if [ "$(id -u)" -ne 0 ]; then
  say "make lab-deps must be root: it installs packages. Try: sudo make lab-deps" >&2
  [ -z "$missing" ] || say "  missing:$missing" >&2
  [ $kernel_here = yes ] || say "  missing: the guest's kernel in $guest" >&2
  exit 2
fi

export DEBIAN_FRONTEND=noninteractive
# A hung mirror must not hang us; a dpkg lock held by somebody else is waited for.
apt() { apt-get -y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o APT::Sandbox::User=root "$@"; }

# The package lists may be absent (a fresh container) or older than the archive: ask again when a name or a file is not found.
refreshed=no
refresh() { [ $refreshed = yes ] || apt update || say "lab-deps: apt-get update failed, going on with what is known" >&2; refreshed=yes; }
for package in $missing linux-base; do known "$package" || refresh; done

wanted="" absent=""
for package in $missing; do
  if known "$package"; then wanted="$wanted $package"; else absent="$absent $package"; fi
done

work=$(mktemp -d)
policy=/usr/sbin/policy-rc.d ours=no
clean() {
  rm -rf "$work"
  [ $ours = no ] || rm -f "$policy"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -n "$wanted" ]; then
  if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  # shellcheck disable=SC2086  # a list of names
  apt install --no-install-recommends $wanted || {
    refresh
    apt install --no-install-recommends $wanted
  }
fi

# The stock kernel of this distribution has soft-RoCE; Ubuntu keeps its modules in packages of their own.
if [ $kernel_here = no ]; then
  if known linux-image-amd64; then meta=linux-image-amd64; else meta=linux-image-generic; fi
  image_of() { apt-cache depends --important "$meta" | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1; }
  image=$(image_of)
  release=${image#linux-image-}
  [ -n "$release" ] || { say "no kernel image found behind the package $meta" >&2; exit 1; }
  parts="$image"
  for part in "linux-modules-$release" "linux-modules-extra-$release"; do known "$part" && parts="$parts $part"; done
  (
    cd "$work"
    # shellcheck disable=SC2086
    apt download $parts || { refresh; apt download $parts; }
    mkdir root
    for deb in ./*.deb; do dpkg-deb --extract "$deb" root; done
    [ -d root/lib/modules ] || ln -s usr/lib root/lib
    depmod --basedir root "$release"
  )
  rm -rf "$guest"
  mkdir -p "$guest/lib"
  cp -a "$work/root/lib/modules" "$guest/lib/modules"
  cp "$work/root/boot/vmlinuz-$release" "$guest/vmlinuz.part"
  printf '%s\n' "$release" >"$guest/release"
  mv "$guest/vmlinuz.part" "$guest/vmlinuz" # last: its presence says that all the rest is there
  say "lab-deps: guest kernel $release unpacked into $guest"
fi

[ -z "$absent" ] || say "lab-deps: not in this archive, tests that need it are skipped by name:$absent" >&2
