#!/bin/sh
# A purge removes state, keys, configuration and what enabled instances; a removal leaves them.
set -e
if [ "$1" = purge ]; then
	rm -rf /var/lib/sallyport /etc/sallyport
	rm -f /etc/systemd/system/*.wants/sallyport@*.service /etc/systemd/system/*.wants/sallyport-*@*.service /etc/systemd/system/*.wants/sallyport-box@*.socket /etc/default/sallyport-*
	if getent passwd sallyport >/dev/null; then
		userdel sallyport || true
	fi
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
