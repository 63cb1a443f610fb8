#!/bin/sh
# Nodes end when the package goes, and not when it is upgraded (deb: "upgrade", rpm: 1).
set -e
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		# Sockets first: a client must not start a node again.
		for kind in socket service; do
			systemctl list-units --plain --no-legend "sallyport@*.$kind" "sallyport-*@*.$kind" | while read -r unit _; do
				systemctl stop "$unit" || true
				[ "$1" = remove ] || systemctl disable "$unit" || true # rpm knows no purge
			done
		done
	fi
	;;
esac
