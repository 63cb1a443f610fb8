package config

import (
	"fmt"
	"slices"
	"strings"
)

// section is a kind of resource that a configuration may hold.
type section struct {
	command string   // the noun of the `create` command
	keys    []string // accepted spellings, with hyphens
	node    bool     // a section of `node create`
	run     bool     // a section of `run`
	noName  bool     // the command takes no positional name
	verb    string   // "create" if empty
	nameAs  string   // the flag that takes the name, if it is not positional
	target  string   // in `node create`: the option that defaults to the node's name
	first   string   // the key whose value is the positional argument, if that is no name
}

var (
	vaults          = section{command: "vault", keys: []string{"vaults", "vault"}, run: true}
	identities      = section{command: "identity", keys: []string{"identities", "identity"}, run: true}
	authorities     = section{command: "authority", keys: []string{"authorities", "authority"}, run: true, noName: true}
	authorityNodes  = section{command: "authority-node", keys: []string{"authority-nodes", "authority-node"}, run: true, noName: true, first: "ticket"}
	relayNodes      = section{command: "relay-node", keys: []string{"relay-nodes", "relay-node"}, run: true, noName: true, first: "ticket"}
	nodes           = section{command: "node", keys: []string{"nodes", "node"}, run: true}
	policies        = section{command: "policy", keys: []string{"policies", "policy"}, node: true, run: true, noName: true, target: "at"}
	relays          = section{command: "relay", keys: []string{"relays", "relay"}, node: true, run: true, target: "to"}
	tcpOutlets      = section{command: "tcp-outlet", keys: []string{"tcp-outlets", "tcp-outlet"}, node: true, run: true, target: "at"}
	tcpInlets       = section{command: "tcp-inlet", keys: []string{"tcp-inlets", "tcp-inlet"}, node: true, run: true, target: "at"}
	udpOutlets      = section{command: "udp-outlet", keys: []string{"udp-outlets", "udp-outlet"}, node: true, run: true, target: "at"}
	udpInlets       = section{command: "udp-inlet", keys: []string{"udp-inlets", "udp-inlet"}, node: true, run: true, target: "at"}
	kafkaOutlets    = section{command: "kafka-outlet", keys: []string{"kafka-outlets", "kafka-outlet"}, node: true, run: true, target: "at"}
	kafkaInlets     = section{command: "kafka-inlet", keys: []string{"kafka-inlets", "kafka-inlet"}, node: true, run: true, target: "at"}
	influxdbOutlets = section{command: "influxdb-outlet", keys: []string{"influxdb-outlets", "influxdb-outlet"}, node: true, target: "at"}
	influxdbInlets  = section{command: "influxdb-inlet", keys: []string{"influxdb-inlets", "influxdb-inlet"}, node: true, target: "at"}
)

// These kinds are in configurations of `node create` here only.
var (
	channelListeners = section{command: "secure-channel-listener", keys: []string{"secure-channel-listeners", "secure-channel-listener"},
		node: true, target: "at"}
	tcpListeners = section{command: "tcp-listener", keys: []string{"tcp-listeners", "tcp-listener"}, node: true, target: "at"}
	hops         = section{command: "service", verb: "start hop", nameAs: "addr", keys: []string{"hops", "hop"}, node: true, target: "at"}
	certificates = section{command: "service", verb: "start tls_certificate_provider", nameAs: "addr",
		keys: []string{"tls-certificate-providers", "tls-certificate-provider"}, node: true, target: "at"}
)

// line is the command without its arguments.
func (s section) line() string {
	if s.verb == "" {
		return s.command + " create"
	}
	return s.command + " " + s.verb
}

// noun is what messages call one of the section.
func (s section) noun() string {
	if s.nameAs != "" {
		return s.keys[1]
	}
	return s.command
}

// enrol stands for the ticket in an order of execution.
var enrol = section{command: "project enroll"}

// order returns the order of execution (docs/protocol/03 §7.6). In node create, enrolment and node come before all of it.
func (m Mode) order() []section {
	if m == Run {
		return []section{vaults, identities, authorities, authorityNodes, relayNodes, enrol, nodes, relays, policies, tcpOutlets, tcpInlets, udpOutlets, udpInlets, kafkaInlets, kafkaOutlets}
	}
	return []section{
		policies, relays, tcpOutlets, tcpInlets, udpOutlets, udpInlets, influxdbOutlets, influxdbInlets, kafkaOutlets, kafkaInlets,
		channelListeners, tcpListeners, hops, certificates,
	}
}

// commonKeys are the keys of both modes that are no section.
var commonKeys = []string{"version", "variables", "ticket"}

// extension begins keys that are for the author alone, such as anchors.
const extension = "x-"

// nodeKeys are the top-level keys of `node create` about the node itself, in the order of its arguments.
var nodeKeys = []string{
	"name", "identity", "project", "tcp-listener-address", "udp-listener-address", "udp", "status-endpoint", "status-token", "no-status-endpoint",
	"skip-is-running-check", "foreground", "exit-on-eof", "in-memory", "opentelemetry-context", "services", "authority-identity",
	"authority-route", "authority-grace", "credential-scope", "memory-limit", "limits", "log-level", "log-format", "records", "receipts", "no-sandbox", "small", "ticket-file",
	"listener", "acme", "accept-proxy-protocol", "trusted-proxy", "tls-certificate", "tls-key", "tls-ca", "tls-pin", "proxy", "registry", "registry-address",
}

// lists are the keys of nodeKeys whose value may be a list.
var lists = []string{"listener", "accept-proxy-protocol", "trusted-proxy", "tls-pin", "proxy"}

// objects are the keys whose value may be a map, which the command takes as JSON.
var objects = []string{"services", "launch-config", "limits", "acme"}

// knownKeys returns every top-level key of a mode, hyphenated.
func (m Mode) knownKeys() []string {
	keys := slices.Clone(commonKeys)
	if m == NodeCreate {
		keys = append(keys, nodeKeys...)
	}
	for _, s := range m.order() {
		keys = append(keys, s.keys...)
	}
	return keys
}

// unknownKey describes a top-level key that has no meaning in a mode.
func (m Mode) unknownKey(key string) string {
	other := Run
	if m == Run {
		other = NodeCreate
	}
	if slices.Contains(other.knownKeys(), hyphens(key)) {
		return fmt.Sprintf("key %q belongs to configurations of `%s`, not of `%s`", key, other, m)
	}
	return "unknown key " + suggestion(key, m.knownKeys())
}

// suggestion quotes a key that is none of the known ones, and says which of those is meant, if one is near.
func suggestion(key string, known []string) string {
	near, distance := "", 1+max(2, len(key)/3)
	for _, k := range known {
		if d := editDistance(hyphens(key), k, distance); d < distance {
			near, distance = k, d
		}
	}
	if near == "" {
		return fmt.Sprintf("%q", key)
	}
	return fmt.Sprintf("%q; did you mean %q?", key, near)
}

// hyphens turns a snake_case key into the spelling of the command line.
func hyphens(key string) string { return strings.ReplaceAll(key, "_", "-") }

// editDistance returns the Levenshtein distance of a and b in bytes, or limit if it is at least that.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return min(row[len(b)], limit)
}
