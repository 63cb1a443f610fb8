#!/bin/sh
# The story with a program for another processor, under qemu-user: qemu.sh PROGRAM QEMU ECHO, in namespaces of its own with binfmt_misc of its own (Linux 6.7), so that
# the program can start itself as it does everywhere.
set -eu
program=$1 qemu=$2 echo=$3
export NO_COLOR=1
die() { echo "FAIL $*"; exit 1; }
shown() { echo "shown: $*"; }
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || { echo "skip: no binfmt_misc in a namespace of its own"; exit 0; }
# The first 20 bytes say the class, the order of bytes and the processor; the type is executable, position independent or not.
magic=$(od -An -v -tx1 -N20 "$program" | tr -d ' \n' | sed 's/../\\x&/g')
echo ":other:M::$magic:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:$qemu:" >/proc/sys/fs/binfmt_misc/register
ip link set lo up
dir=$(mktemp -d)
sp() { party=$1; shift; SALLYPORT_HOME=$dir/$party "$program" "$@"; }
trap 'for p in analysis bank admin; do sp $p node stop --all >/dev/null 2>&1 || true; done; rm -rf "$dir"' EXIT
"$program" version; echo
python3 "$echo" serve 5432 &
sp admin project create partners --authority-port 4000 --relay-port 4001 >"$dir/out" 2>&1 || die "project create: $(cat "$dir/out")"
for n in authority-partners relay-partners; do
	sp admin node show $n --output json | grep -q '"status": *"running"' || die "$n is not running: $(sp admin node show $n --output json)"
done
shown "nodes that it started are running, by their process"
sp admin project ticket --relay postgres >"$dir/bank.ticket"
sp admin project ticket --attribute company=analysis >"$dir/analysis.ticket"
sp bank project enroll "$dir/bank.ticket" >"$dir/out" 2>&1 || die "enroll: $(cat "$dir/out")"
sp bank tcp-outlet create --to 5432 --allow company=analysis >"$dir/out" 2>&1 || die "outlet: $(cat "$dir/out")"
sp bank relay create postgres >"$dir/out" 2>&1 || die "relay: $(cat "$dir/out")"
sp analysis project enroll "$dir/analysis.ticket" >"$dir/out" 2>&1 || die "enroll: $(cat "$dir/out")"
sp analysis tcp-inlet create --from 15432 --via postgres >"$dir/out" 2>&1 || die "inlet: $(cat "$dir/out")"
python3 "$echo" bulk 15432 1 || die "1 MiB through the portal: $(sp bank node logs 2>&1 | tail -5)"
shown "two companies: 1 MiB there and back are the same"
sp bank node stop >"$dir/out" 2>&1 || die "stop: $(cat "$dir/out")"
sp bank node start >"$dir/out" 2>&1 || die "start: $(cat "$dir/out")"
tries=0
until python3 "$echo" bulk 15432 1 2>/dev/null; do tries=$((tries + 1)); [ $tries -lt 30 ] || die "nothing comes after a restart"; sleep 1; done
shown "a node that was stopped and started is found again"
