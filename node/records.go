package node

import (
	"sallyport/crypto/identity"
	"sallyport/records"
)

// startRecords begins to keep records of portal connections, if that is wanted. Nothing is open yet.
func (n *Node) startRecords() {
	o := n.opts.Records
	if o == nil {
		return
	}
	n.records = records.New(records.Options{Node: n.opts.Name, Sink: o.Sink, Receipts: o.Receipts, Attributes: n.access.attested, Log: n.log})
	n.portals.Records, n.datagram.Records = n.records, n.records
}

// attested returns what is attested of a peer by whoever it is; the map is not to be changed.
func (a *access) attested(peer *[32]byte) map[string]string {
	if r := a.record(identity.Identifier(*peer)); r != nil {
		return r.attributes
	}
	return nil
}
