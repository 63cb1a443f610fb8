#!/bin/sh
# The newest part of CHANGELOG.md as Debian wants it: changelog.sh VERSION MAINTAINER SECONDS
set -e
echo "sallyport (${1#v}) unstable; urgency=medium"
echo
awk '/^## /{n++} n==1 && /^\* /{sub(/^\* /, ""); gsub(/\]\([^)]*\)/, ""); gsub(/[\[`]/, ""); print "* " $0}' "$(dirname "$0")/../CHANGELOG.md" | fold -s -w 74 |
	sed -e '/^\* /!s/^/    /' -e 's/^\* /  * /' -e 's/ *$//'
echo
echo " -- $2  $(LC_ALL=C date -u -R -d "@$3")"
