#!/bin/sh
# Nodes end when the package goes, and not when it is upgraded (deb: "upgrade", rpm: 1).
set -e
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl list-units --plain --no-legend 'sallyport@*.service' 'sallyport-*@*.service' 'sallyport*@*.socket' | while read -r unit _; do
			systemctl stop "$unit" || true
			[ "$1" = remove ] || systemctl disable "$unit" || true # rpm knows no purge
		done
	fi
	;;
esac
