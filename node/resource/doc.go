// Package resource has what a node can be asked to have, as values: outlets, inlets, relays, listeners, policies and so on. The
// command line, the administration interface, the state directory and configurations speak of these types and of no others.
//
// A field's JSON key is its name on disk and in the administration interface. The tag `flag` is its key in configurations and its
// flag on the command line; "-" has none. The tag `memo` marks what the node noted itself, such as the port that was chosen for an
// inlet: it is kept beside what was asked for, and is no difference between two requests.
package resource

// Names of the kinds: in configurations, on the command line and on disk.
const (
	KindPolicy      = "policy"
	KindTCPListener = "tcp-listener"
	KindListener    = "secure-channel-listener"
	KindHop         = "hop"
	KindCertificate = "tls-certificate-provider"
	KindOutlet      = "tcp-outlet"
	KindRelay       = "relay"
	KindInlet       = "tcp-inlet"
	KindUDPOutlet   = "udp-outlet"
	KindUDPInlet    = "udp-inlet"
	KindKafkaOutlet = "kafka-outlet"
	KindKafkaInlet  = "kafka-inlet"
)
