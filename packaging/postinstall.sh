#!/bin/sh
# The user, its directory, and the new program in the place of the running one: open connections go on.
set -e
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers sallyport.conf || true
fi
if ! getent passwd sallyport >/dev/null; then
	useradd --system --home-dir /var/lib/sallyport --shell /usr/sbin/nologin sallyport
fi
if [ "$(stat -c %U /var/lib/sallyport)" = root ]; then
	chown sallyport:sallyport /var/lib/sallyport
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# ExecReload upgrades a node in its process; one that cannot is left as it is.
	systemctl list-units --state=active --plain --no-legend 'sallyport@*.service' 'sallyport-*@*.service' | while read -r unit _; do
		systemctl reload "$unit" || echo "sallyport: $unit still runs the program before; systemctl restart $unit ends its connections" >&2
	done
fi
