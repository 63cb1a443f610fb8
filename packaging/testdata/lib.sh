# What the scripts that run in the Debian root share. old.deb, new.deb and what is here lie in /packages.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin NO_COLOR=1 DEBIAN_FRONTEND=noninteractive LC_ALL=C
here=/packages
die() { echo "FAIL $*"; exit 1; }
# shown POINT: it holds.
shown() { echo "shown: $*"; }
# eventually COMMAND...: until it is true, a minute at most.
eventually() {
	tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 300 ] || die "not within a minute: $*"
		sleep 0.2
	done
}
# sp PARTY ARGUMENTS: the party's sallyport, as the package's user.
sp() { party=$1; shift; runuser -u sallyport -- env SALLYPORT_HOME=/var/lib/sallyport/"$party" sallyport "$@"; }
count() { cat "$1/count" 2>/dev/null || echo 0; }
more() { [ "$(count "$1")" -gt "$2" ]; }
# goes_on DIR: the connection brings lines, five more than a moment ago.
goes_on() { eventually more "$1" $(($(count "$1") + 5)); }
# files: all that there is, except what dpkg and others write about themselves.
files() {
	find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /packages -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \
		-o -path /etc/.pwd.lock -o -path '/etc/*-' -o -path /var/lib/systemd -o -path /root \) -prune -o -print | sort
}
accounts() { cat /etc/passwd /etc/group /etc/shadow /etc/gshadow; }
