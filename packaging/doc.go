// Package packaging has what deb and rpm packages are made from (make packages), and tests of it and of the systemd units.
package packaging
