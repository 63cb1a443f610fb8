package state

import (
	"crypto/rand"
	"encoding/binary"
	"strings"
)

// RandomName returns a name for something that the user did not name: two words, easy to say and to type, one of about fifteen thousand pairs.
// Callers whose names must be unique check and ask again.
func RandomName() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return adjectives[int(binary.LittleEndian.Uint16(b[:]))%len(adjectives)] + "-" + nouns[int(binary.LittleEndian.Uint16(b[2:]))%len(nouns)]
}

var (
	adjectives = strings.Fields(`
able agile airy alert amber ample apt azure basic blue bold brave brief bright brisk broad bronze calm candid careful clean
clear clever close coral crisp curious daily dapper deep deft dry eager early easy even exact fair fast fine firm fit fleet
fluent fond frank free fresh full gentle glad golden good grand grateful green handy happy hardy hazel high honest humble
ideal ivory jolly just keen kind large late level light lilac lively local long loyal lucky lunar main major mellow merry mild
mint modern modest navy near neat new nimble noble novel olive open orderly patient plain polite prime proud prudent pure quick
quiet rapid rare ready real red regal rich ripe robust rosy round royal safe scarlet serene`)
	nouns = strings.Fields(`
acorn alder anchor apple arbor arch aspen badger barge basil bay beacon beech birch bison bramble breeze bridge brook cabin
canal canyon cape cedar cliff clover cobalt comet condor coral cove crane creek cypress dale dawn delta dove dune eagle elm
ember falcon fern ferry field finch fjord flint forest fox garden gate geyser glade glen grove gull harbor hare haven hawk
hazel heath hedge heron hill holly inlet iris island ivy jay juniper kestrel lagoon lake larch lark laurel ledge lemur lily
linden lotus lynx maple marsh marten meadow mesa mill moor moss oak oasis ocean orchard orchid osprey otter owl palm pass path
pine plateau plum pond poplar prairie quail quarry raven reef ridge river robin rowan sage shore spruce`)
)
