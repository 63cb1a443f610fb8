package node

import (
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/routing/secure"
	"sallyport/routing/tcp"
)

// kinds are the tables of what every node has. Each kind lives in a file of its own, which says all that there is to say of it.
type kinds struct {
	policyTable  *table.Table[resource.Policy, policy.Resource]
	tcpListeners *table.Table[resource.TCPListener, *tcp.Listener]
	listeners    *table.Table[resource.Listener, *secure.Listener]
	hops         *table.Table[resource.Hop, string]
	certificates *table.Table[resource.Certificate, string]
	outlets      *table.Table[resource.Outlet, *outlet]
	relays       *table.Table[resource.Relay, *relay]
	inlets       *table.Table[resource.Inlet, *inlet]
	udpOutlets   *table.Table[resource.UDPOutlet, *udpOutlet]
	udpInlets    *table.Table[resource.UDPInlet, *udpInlet]
}

// addKinds registers the kinds. What a kind needs beside its entries, it keeps itself.
func (n *Node) addKinds() {
	for _, add := range []func(*Node){
		addPolicies, addTCPListeners, addListeners, addHops, addCertificates, addOutlets, addRelays, addInlets, addUDPOutlets, addUDPInlets, addKafka,
	} {
		add(n)
	}
}
