#!/usr/bin/env bash
# `make demo` without a terminal: a transcript of real commands with their real output, on a data
# root of its own that is removed afterwards. Fails if any step fails.
set -euo pipefail

# On a network of its own: no bridge and no rule stays on the machine.
if [ "${2:-}" != inside ]; then
    exec unshare --net -- bash "$0" "$1" inside
fi
ip link set lo up

binary=$(realpath "$1")
# Not /tmp, which is a tmpfs on many machines: containers' files belong on a disk.
root=$(mktemp -d /var/tmp/mydocker-demo.XXXXXX)
export MYDOCKER_ROOT=$root
PATH=$(dirname "$binary"):$PATH

leave() {
    status=$?
    mydocker rm -f web >/dev/null 2>&1 || true
    rm -rf --one-file-system "$root"
    exit "$status"
}
trap leave EXIT

step() {
    printf '$ %s\n' "$*"
    eval "$*"
    echo
}

step "mydocker run --rm busybox echo 'hello from a container'"
step "mydocker run --rm -e WHO=world -w /tmp -u nobody busybox sh -c 'echo \"hello \$WHO, I am \$(id -un) in \$(pwd), pid \$\$\"'"
step "mydocker run -d --name web busybox sh -c 'trap \"echo bye; exit 0\" TERM; i=0; while true; do i=\$((i+1)); echo \"line \$i\"; sleep 0.2; done'"
step "mydocker ps"
step "mydocker exec web ps"
step "mydocker inspect -f '{{.Name}} is running: {{.State.Running}}, pid {{.State.Pid}}' web"
step "mydocker logs --tail 3 web"
step "mydocker stop web"
step "mydocker logs --tail 1 web"
step "mydocker ps -a --format 'table {{.Names}}\t{{.Status}}'"
step "mydocker rm web"
step "mydocker network create --subnet 10.5.0.0/24 shop"
step "mydocker run -d --name web --network shop -p 8080:80 busybox httpd -f -h /etc"
step "mydocker ps --format 'table {{.Names}}\t{{.Networks}}\t{{.IP}}\t{{.Ports}}'"
step "mydocker run --rm --network shop busybox wget -q -O - http://web/hostname"
step "busybox wget -q -O - http://127.0.0.1:8080/hostname"
step "mydocker rm -f web"
step "mydocker network rm shop"
# The command's own exit code is the CLI's, as scripts expect.
step "mydocker run --rm busybox sh -c 'exit 42' || echo \"exit code \$?\""
echo "Now on a terminal: sudo $binary run --rm -it busybox sh"
