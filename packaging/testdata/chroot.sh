#!/bin/sh
# In a Debian root without a service manager: the package is installed, the story runs, the package is replaced while a connection is open, removed and purged.
. /packages/lib.sh
ip link set lo up
files >/tmp/before
accounts >/tmp/accounts

dpkg -i $here/old.deb >/tmp/dpkg.log 2>&1 || die "dpkg -i: $(cat /tmp/dpkg.log)"
[ "$(getent passwd sallyport | cut -d: -f6-7)" = /var/lib/sallyport:/usr/sbin/nologin ] || die "the user is $(getent passwd sallyport)"
[ "$(stat -c '%U %G %a' /var/lib/sallyport)" = "sallyport sallyport 700" ] || die "the state directory is $(stat -c '%U %G %a' /var/lib/sallyport)"
shown "dpkg -i makes the user and its directory, sysusers.d describes the same: $(systemd-sysusers --cat-config | grep -c '^u sallyport ') line"
for f in /usr/bin/sallyport /usr/share/man/man1/sallyport.1.gz /usr/share/man/man1/sallyport-node-create.1.gz /usr/share/bash-completion/completions/sallyport \
	/usr/share/zsh/site-functions/_sallyport /usr/share/fish/vendor_completions.d/sallyport.fish /etc/sallyport/box.yaml.example \
	/usr/share/doc/sallyport/copyright /usr/share/doc/sallyport/THIRD-PARTY.gz /usr/share/doc/sallyport/changelog.gz; do
	[ -s $f ] || die "$f is missing"
done
gzip -dc /usr/share/doc/sallyport/THIRD-PARTY.gz | grep -q '^golang.org/x/crypto v' || die "no licence of golang.org/x/crypto"
[ "$(dpkg-query -W -f '${Conffiles}' sallyport | awk '{print $1}')" = /etc/sallyport/box.yaml.example ] || die "conffiles: $(dpkg-query -W -f '${Conffiles}' sallyport)"
sallyport version | grep -q 'revision one' || die "version: $(sallyport version)"
shown "program, manual pages, completions, configuration, licences"
for unit in /lib/systemd/system/sallyport*@.service; do
	said=$(systemd-analyze verify "$(echo "$unit" | sed 's/@/@x/')" 2>&1) || die "$unit: $said"
	[ -z "$said" ] || die "$unit: $said"
done
shown "systemd-analyze verify: nothing to say of $(ls /lib/systemd/system/sallyport*@.service | wc -l) units"

cd /tmp
python3 $here/echo.py serve 5432 >/tmp/echo.log 2>&1 &
echo=$!
sp admin project create partners --authority-port 4000 --relay-port 4001 >/tmp/out 2>&1 || die "project create: $(cat /tmp/out)"
sp admin project ticket --relay postgres >/tmp/bank.ticket
sp admin project ticket --attribute company=analysis >/tmp/analysis.ticket
chmod 644 /tmp/*.ticket
sp bank project enroll /tmp/bank.ticket >/tmp/out 2>&1 || die "enroll: $(cat /tmp/out)"
sp bank tcp-outlet create --to 5432 --allow company=analysis >/tmp/out 2>&1 || die "outlet: $(cat /tmp/out)"
sp bank relay create postgres >/tmp/out 2>&1 || die "relay: $(cat /tmp/out)"
sp analysis project enroll /tmp/analysis.ticket >/tmp/out 2>&1 || die "enroll: $(cat /tmp/out)"
sp analysis tcp-inlet create --from 15432 --via postgres >/tmp/out 2>&1 || die "inlet: $(cat /tmp/out)"
python3 $here/echo.py bulk 15432 8 || die "8 MiB through the portal"
shown "two companies: project, tickets, outlet, relay, inlet; 8 MiB there and back are the same"

mkdir /tmp/hold
python3 $here/echo.py hold 15432 /tmp/hold >/tmp/hold.log 2>&1 &
hold=$!
goes_on /tmp/hold
echo "# ours" >>/etc/sallyport/box.yaml.example
dpkg -i $here/new.deb >/tmp/dpkg.log 2>&1 || die "dpkg -i of the next version: $(cat /tmp/dpkg.log)"
sallyport version | grep -q 'revision two' || die "version: $(sallyport version)"
grep -q '^# ours' /etc/sallyport/box.yaml.example || die "the edited configuration was overwritten"
goes_on /tmp/hold
shown "the next version is installed while a connection is open, which goes on; the edited configuration is kept"
for at in admin:authority-partners admin:relay-partners bank: analysis:; do
	# shellcheck disable=SC2086 # the default node has no name here
	sp ${at%:*} node upgrade ${at#*:} >>/tmp/upgrade.log 2>&1 || die "node upgrade $at: $(cat /tmp/upgrade.log)"
done
[ "$(grep -c 'to v0.2.0+two' /tmp/upgrade.log)" = 4 ] || die "node upgrade: $(cat /tmp/upgrade.log)"
goes_on /tmp/hold
touch /tmp/hold/stop
wait $hold || die "the connection: $(cat /tmp/hold.log)"
shown "node upgrade of all four nodes: the connection goes on, $(count /tmp/hold) lines in order"

for party in analysis bank admin; do sp $party node stop --all >/tmp/out 2>&1 || die "node stop: $(cat /tmp/out)"; done
kill $echo
dpkg -r sallyport >/tmp/dpkg.log 2>&1 || die "dpkg -r: $(cat /tmp/dpkg.log)"
[ ! -e /usr/bin/sallyport ] || die "the program is there after dpkg -r"
[ -d /var/lib/sallyport/bank ] && [ -e /etc/sallyport/box.yaml.example ] || die "dpkg -r took the state or the configuration"
shown "dpkg -r leaves state and configuration"
dpkg -P sallyport >/tmp/dpkg.log 2>&1 || die "dpkg -P: $(cat /tmp/dpkg.log)"
files >/tmp/after
diff /tmp/before /tmp/after >/tmp/left || die "dpkg -P left: $(cat /tmp/left)"
accounts >/tmp/accounts.after
diff /tmp/accounts /tmp/accounts.after >/tmp/left || die "dpkg -P left: $(cat /tmp/left)"
shown "dpkg -P leaves nothing: $(wc -l </tmp/after) files and all accounts as before"
