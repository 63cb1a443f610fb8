#!/bin/sh
# A purge removes state and keys; a removal leaves them.
set -e
if [ "$1" = purge ]; then
	rm -rf /var/lib/sallyport
	if getent passwd sallyport >/dev/null; then
		userdel sallyport || true
	fi
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
