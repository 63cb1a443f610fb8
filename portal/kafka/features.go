package kafka

import (
	"encoding/binary"
	"math"
)

// need is a version of a request that clients use when a cluster has a feature.
type need struct{ key, version int16 }

// levels are a feature's levels from 1 on, with what clients send at each.
type levels [][]need

// inside is for features that do not change what clients send, at any level.
var inside levels

// features are those of Kafka 4.4. A client takes a feature's level for the way to speak, whatever versions it is offered: a producer with
// transaction.version 2 leaves out AddPartitionsToTxn, which breaks transactions below Produce 12 (KIP-890).
var features = map[string]levels{
	"metadata.version":                 inside,
	"kraft.version":                    inside,
	"eligible.leader.replicas.version": inside,
	"group.version":                    {{{keyGroupHeartbeat, 0}, {keyGroupDescribe, 0}}},
	"transaction.version":              {{}, {{keyProduce, 12}, {keyTxnOffsetCommit, 5}, {keyEndTxn, 5}}},
	"share.version":                    {{{keyShareHeartbeat, 1}, {keyShareFetch, 1}, {keyShareAcknowledge, 1}}, {{keyShareFetch, 2}, {keyShareAcknowledge, 2}}},
	"streams.version":                  {{{keyStreamsHeartbeat, 0}, {keyStreamsDescribe, 0}}},
}

// allowed is the highest level of a feature that what is offered is enough for; 0 for a feature that is not known.
func allowed(name string, offered map[int16]span) int16 {
	known, there := features[name]
	if there && known == nil { // inside
		return math.MaxInt16
	}
	for i, needs := range known {
		for _, n := range needs {
			if offer, there := offered[n.key]; !there || offer.max < n.version {
				return int16(i)
			}
		}
	}
	return int16(len(known))
}

// reduceFeatures lowers an array of features, in the form of the tagged fields of ApiVersions, to the levels that are allowed. Those that
// have none are left out. Supported ones have the lowest level first, finalized ones the highest.
func reduceFeatures(content []byte, finalized bool, offered map[int16]span) ([]byte, error) {
	r := &rewriter{in: content, flex: true}
	var list []byte
	kept := 0
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		nameFrom := r.at
		name := string(r.text())
		nameTo := r.at
		first, second := r.int16(), r.int16()
		tagsFrom := r.at
		r.tags()
		lowest, highest := &first, &second
		if finalized {
			lowest, highest = &second, &first
		}
		*highest = min(*highest, allowed(name, offered))
		if r.fault != nil || *highest < max(*lowest, 1) {
			continue
		}
		list = append(list, r.in[nameFrom:nameTo]...)
		list = binary.BigEndian.AppendUint16(list, uint16(first))
		list = binary.BigEndian.AppendUint16(list, uint16(second))
		list = append(list, r.in[tagsFrom:r.at]...)
		kept++
	}
	r.replace(0, append(r.appendCount(nil, kept), list...))
	return r.done()
}
