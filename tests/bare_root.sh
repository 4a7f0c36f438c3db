#!/usr/bin/env bash
# Try the README as a stranger would: both of its commands in a Debian root that holds no Python, compiler or make.
#
#   tests/bare_root.sh [FOLDER] [-- PYTEST ARGUMENTS]
#
# Run by a developer, as root, on Debian with `debootstrap` installed; not by CI. FOLDER keeps the pristine root for the
# next time (made if there is none); without it the root is made in a temporary folder. A copy of the working tree
# (what git knows or does not ignore) is tried. Network is the machine's own, so its name resolution, apt settings and
# certificates go along; they are no part of what is tried.
set -euo pipefail

tree=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
pristine=$work/pristine
if [ $# != 0 ] && [ "$1" != -- ]; then
    pristine=$(realpath -m -- "$1")
    shift
fi
[ "${1:-}" != -- ] || shift

say() { printf '\n== %s\n' "$*"; }

if [ ! -x "$pristine/usr/bin/apt-get" ]; then
    say "debootstrap into $pristine"
    debootstrap --variant=minbase bookworm "$pristine" >"$work/debootstrap.log" 2>&1 || {
        tail -n 20 "$work/debootstrap.log"
        exit 1
    }
fi

root=$work/root
cp -a "$pristine" "$root"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
cp -rL /etc/apt/apt.conf.d "$root/etc/apt/"
[ ! -e /etc/pip.conf ] || cp -L /etc/pip.conf "$root/etc/"
mkdir -p "$root/etc/ssl"
# Beside the place that the package ca-certificates writes, so that installing it is tried too.
cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/of-the-machine.crt"
# And one by one where that package takes local ones from, for those with a store of their own (Java, for Maven).
mkdir -p "$root/usr/local/share/ca-certificates"
awk -v folder="$root/usr/local/share/ca-certificates" '
    /BEGIN CERTIFICATE/ { file = folder "/machine-" ++count ".crt"; inside = 1 }
    inside { print > file }
    /END CERTIFICATE/ { inside = 0; close(file) }
' "$root/etc/ssl/of-the-machine.crt"

mkdir "$root/root/spanloom"
git -C "$tree" ls-files -co --exclude-standard -z |
    (cd "$tree" && xargs -0 cp --parents --no-dereference -t "$root/root/spanloom")

# In a mount namespace of their own the mounts end with the command, whatever ends it.
inside() {
    say "in the bare root: $*"
    # shellcheck disable=SC2016 # expanded inside
    unshare --mount --propagation private bash -c '
        set -e
        mount --bind "$0" "$0" # a root that is no mount point confuses Java
        mount -t proc proc "$0/proc"
        mount --rbind /dev "$0/dev"
        exec chroot "$0" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
            PIP_CERT=/etc/ssl/of-the-machine.crt "$@"
    ' "$root" "$@"
}

for tool in python3 gcc make git; do
    if [ -e "$root/usr/bin/$tool" ]; then
        echo "not bare: it has $tool" >&2
        exit 1
    fi
done
# shellcheck disable=SC2086 # several arguments
inside /root/spanloom/dev demo ${BARE_DEMO_ARGUMENTS:---exit}
inside /root/spanloom/dev test "$@"
say 'both commands passed'
