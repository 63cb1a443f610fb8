// Package datagrams has no program: its tests put servers that everybody knows behind portals for UDP, a DNS server and one for QUIC, with the
// commands of docs/datagrams.md.
package datagrams
