#!/bin/sh
# Builds images/busybox.tar, the bundled image `busybox`: a plain tar of a root file system.
#
# usage: images/busybox.sh [OUTPUT]
#
# Everything in it is /bin/busybox of Debian's package busybox-static (`apt-get install busybox-static`,
# which `make deps` does) under the names of its applets, and the few files that programs expect.
# Needs no privileges. The same busybox gives the same bytes.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
output=${1:-$here/busybox.tar}
busybox=${BUSYBOX:-/bin/busybox}

fail() {
    echo "busybox.sh: $*" >&2
    exit 1
}

[ -x "$busybox" ] || fail "$busybox is missing: install Debian's package busybox-static"
# The dynamic package (busybox) has the same path; its binary names, right behind the program headers, a
# loader that the image lacks.
if head -c 4096 "$busybox" | grep -q -a '/ld-'; then
    fail "$busybox is dynamically linked: install Debian's package busybox-static instead of busybox"
fi
applets=$("$busybox" --list-full) || fail "$busybox cannot list its applets"

umask 022
root=$(mktemp -d)
temporary=$output.$$.tmp
trap 'rm -rf "$root" "$temporary"' EXIT
trap 'exit 1' HUP INT TERM

for directory in bin dev etc home lib mnt opt proc root run sbin sys tmp \
    usr/bin usr/lib usr/local/bin usr/local/sbin usr/sbin usr/share \
    var/cache var/lib var/lock var/log var/spool/mail var/tmp var/www; do
    mkdir -p "$root/$directory"
done

cp "$busybox" "$root/bin/busybox"
chmod 755 "$root/bin/busybox"
# Hard links, as in the image of Docker's library, so that no applet depends on another name. Each has its
# usual place (usr/bin/env) and one in bin, where scripts written for that image look.
for applet in bin/sh $applets; do
    # The first process of an initial ramdisk of old: at the root, and nothing a container has use for.
    [ "$applet" != linuxrc ] || continue
    for link in "$applet" "bin/${applet##*/}"; do
        [ -e "$root/$link" ] || ln "$root/bin/busybox" "$root/$link"
    done
done

cat >"$root/etc/passwd" <<END
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
END
cat >"$root/etc/group" <<END
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
cdrom:x:11:
dialout:x:18:
floppy:x:19:
video:x:28:
audio:x:29:
www-data:x:33:
operator:x:37:
users:x:100:
nogroup:x:65534:
END
sed 's/^\([^:]*\):.*/\1:*:10933:0:99999:7:::/' "$root/etc/passwd" >"$root/etc/shadow"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo '/bin/sh' >"$root/etc/shells"
chmod 755 "$root"
chmod 600 "$root/etc/shadow"
chmod 700 "$root/root"
chmod 1777 "$root/tmp" "$root/var/tmp"

# The time of the binary, not of the build: it is what the image's age means.
LC_ALL=C tar --create --file "$temporary" --directory "$root" --format=gnu --sort=name \
    --mtime="@$(stat -L -c %Y "$busybox")" --owner=0 --group=0 --numeric-owner .
touch -r "$busybox" "$temporary"
mv "$temporary" "$output"
echo "$output: $(tar -tf "$output" | wc -l) members, $(stat -c %s "$output") bytes"
