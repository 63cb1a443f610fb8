#!/bin/sh
# In a Debian root with systemd as process 1: units of all four nodes, a reload, an upgrade by dpkg while a connection is open, a relay that is killed, a node that hangs,
# removal and purge.
. /packages/lib.sh
unit() { systemctl show -P "$2" "$1"; }
nodes="sallyport-authority@partners sallyport-relay@partners sallyport-box@bank sallyport-box@analysis"

dpkg -i $here/old.deb >/tmp/dpkg.log 2>&1 || die "dpkg -i: $(cat /tmp/dpkg.log)"
mkdir -p /etc/systemd/system/sallyport-box@.service.d
# Two companies on one machine: each has a state directory of its own. Nobody wants to wait half a minute for the watchdog here.
printf '[Service]\nEnvironment=SALLYPORT_HOME=/var/lib/sallyport/%%i\nLoadCredential=ticket:/etc/sallyport/%%i.ticket\nWatchdogSec=4\n' >/etc/systemd/system/sallyport-box@.service.d/here.conf
systemctl daemon-reload

alias admin='runuser -u sallyport -- env SALLYPORT_HOME=/var/lib/sallyport sallyport'
admin project create partners --authority-port 4000 --relay-port 4001 >/tmp/out 2>&1 || die "project create: $(cat /tmp/out)"
admin node stop --all >/tmp/out 2>&1
systemctl enable --now sallyport-authority@partners sallyport-relay@partners >/tmp/out 2>&1 || die "enable: $(cat /tmp/out); $(journalctl -n 20 --no-pager -u 'sallyport*')"
admin project ticket --relay postgres >/etc/sallyport/bank.ticket
admin project ticket --attribute company=analysis >/etc/sallyport/analysis.ticket
chmod 600 /etc/sallyport/*.ticket
cat >/etc/sallyport/bank.yaml <<Y
name: bank
ticket-file: ticket
status-endpoint: 127.0.0.1:9101
tcp-outlets:
  db: {to: 127.0.0.1:5432, allow: company=analysis}
relays:
  postgres: {}
Y
cat >/etc/sallyport/analysis.yaml <<Y
name: analysis
ticket-file: ticket
status-endpoint: 127.0.0.1:9102
tcp-inlets:
  reports: {from: 127.0.0.1:15432, to: db, via: postgres}
Y
chgrp sallyport /etc/sallyport/*.yaml && chmod 640 /etc/sallyport/*.yaml
systemctl enable --now sallyport-box@bank sallyport-box@analysis >/tmp/out 2>&1 || die "enable: $(cat /tmp/out); $(journalctl -n 20 --no-pager -u 'sallyport*')"
for u in $nodes; do [ "$(unit "$u" ActiveState)" = active ] || die "$u is $(unit "$u" ActiveState)"; done
shown "systemd $(systemctl --version | awk 'NR==1{print $2}') as process 1 starts authority, relay and two boxes that say when they are ready; tickets come as credentials (LoadCredential), readable for root alone"

systemd-run -q --unit echo python3 $here/echo.py serve 5432
eventually python3 $here/echo.py bulk 15432 1
mkdir /tmp/hold
systemd-run -q --unit hold -p RemainAfterExit=yes python3 $here/echo.py hold 15432 /tmp/hold
goes_on /tmp/hold

sed -i 's/^relays:/relays :: x/' /etc/sallyport/bank.yaml
! systemctl reload sallyport-box@bank 2>/dev/null || die "a reload with a mistake in the file succeeded"
sed -i 's/^relays :: x/relays:/' /etc/sallyport/bank.yaml
sed -i 's/^relays:/  more: {to: 127.0.0.1:5432}\nrelays:/' /etc/sallyport/bank.yaml
systemctl reload sallyport-box@bank || die "reload: $(journalctl -n 20 --no-pager -u sallyport-box@bank)"
sp bank tcp-outlet list --at bank | grep -q more || die "the reload made no outlet"
goes_on /tmp/hold
shown "systemctl reload fails where the file has a mistake, and applies an edit, while a connection goes on"

before=$(for u in $nodes; do unit "$u" MainPID; done)
dpkg -i $here/new.deb >/tmp/dpkg.log 2>&1 || die "dpkg -i of the next version: $(cat /tmp/dpkg.log)"
for p in partners:authority-partners partners:relay-partners bank:bank analysis:analysis; do
	case $p in partners:*) home=/var/lib/sallyport ;; *) home=/var/lib/sallyport/${p%:*} ;; esac
	runuser -u sallyport -- env SALLYPORT_HOME=$home sallyport node upgrade --last "${p#*:}" --output json | grep -q 'v0.2.0+two' || die "${p#*:} was not upgraded: $(cat /tmp/dpkg.log)"
done
[ "$before" = "$(for u in $nodes; do unit "$u" MainPID; done)" ] || die "processes are others after the upgrade"
goes_on /tmp/hold
shown "dpkg -i of the next version upgrades all four in their processes: an open connection goes on"

kill -KILL "$(unit sallyport-relay@partners MainPID)"
restarted() { [ "$(unit "$1" NRestarts)" -gt "$2" ] && [ "$(unit "$1" ActiveState)" = active ]; }
eventually restarted sallyport-relay@partners 0
goes_on /tmp/hold
shown "a relay that is killed is started again, the connection goes on"

kill -STOP "$(unit sallyport-box@bank MainPID)"
eventually restarted sallyport-box@bank 0
journalctl --no-pager -u sallyport-box@bank | grep -qi watchdog || die "no word of the watchdog"
eventually python3 $here/echo.py bulk 15432 1
shown "a node that hangs is started again by the watchdog, and the portal works"

for u in $nodes; do
	level=$(systemd-analyze security "$u" 2>/dev/null | sed -n 's/.*exposure level for [^:]*: \([0-9.]*\).*/\1/p')
	awk -v l="$level" 'BEGIN{exit !(l != "" && l <= 1.5)}' || die "systemd-analyze security $u: '$level'"
	levels="${levels-} $level"
	[ "$(unit "$u" MemoryMax)" != infinity ] && [ "$(unit "$u" TasksMax)" = 4096 ] || die "$u: MemoryMax $(unit "$u" MemoryMax), TasksMax $(unit "$u" TasksMax)"
	case "$(tr '\0' ' ' <"/proc/$(unit "$u" MainPID)/status" | grep -E '^(CapEff|NoNewPrivs)')" in *CapEff:*0000000000000000*NoNewPrivs:*1*) ;; *) die "$u has privileges" ;; esac
done
shown "running units: systemd-analyze security$levels, no capability, MemoryMax and TasksMax set"

mkdir -p /etc/systemd/system/sallyport-box@analysis.socket.d
printf '[Socket]\nListenStream=127.0.0.1:443\n' >/etc/systemd/system/sallyport-box@analysis.socket.d/here.conf
systemctl daemon-reload
systemctl stop sallyport-box@analysis
systemctl enable --now sallyport-box@analysis.socket >/tmp/out 2>&1 || die "socket: $(cat /tmp/out)"
sed -i 's/^  reports:.*/&\n  low: {from: 127.0.0.1:443, to: db, via: postgres}/' /etc/sallyport/analysis.yaml
[ "$(unit sallyport-box@analysis ActiveState)" = inactive ] || die "the box runs before a client has come"
# The first client starts the node. What the node knows of its file is applied with the reload.
(python3 $here/echo.py bulk 443 1 >/tmp/first 2>&1 || true) &
eventually [ -S /var/lib/sallyport/analysis/nodes/analysis/admin.sock ]
eventually systemctl reload sallyport-box@analysis
eventually python3 $here/echo.py bulk 443 1
mkdir /tmp/low
systemd-run -q --unit low -p RemainAfterExit=yes python3 $here/echo.py hold 443 /tmp/low
goes_on /tmp/low
systemctl reload sallyport-box@analysis
goes_on /tmp/low
systemctl stop low
shown "socket activation: a client starts the node, whose inlet has port 443 without a capability, and keeps it over an upgrade"

systemctl stop hold
dpkg -r sallyport >/tmp/dpkg.log 2>&1 || die "dpkg -r: $(cat /tmp/dpkg.log)"
! pgrep -x sallyport >/dev/null || die "nodes run after dpkg -r"
shown "dpkg -r ends the nodes"
rm -r /etc/systemd/system/sallyport-box@*.d
dpkg -P sallyport >/tmp/dpkg.log 2>&1 || die "dpkg -P: $(cat /tmp/dpkg.log)"
left=$(find / -xdev \( -path /proc -o -path /sys -o -path /packages -o -path /tmp -o -path /run -o -path '/var/lib/dpkg' -o -path /var/log \) -prune -o -name '*sallyport*' -print)
[ -z "$left" ] || die "dpkg -P left $left"
shown "dpkg -P leaves nothing, no enabled instance either"
