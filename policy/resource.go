package policy

import (
	"fmt"

	"sallyport/internal/cborhead"
)

// Action is what a peer wants to do with a resource. The number is the CBOR form (docs/protocol/02 §7.4).
type Action uint8

// HandleMessage is the only action: have the resource handle a message, or send one on its behalf.
const HandleMessage Action = 1

// String is the name of the action, as it is bound to action.id.
func (a Action) String() string {
	if a == HandleMessage {
		return "handle_message"
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// ParseAction is the inverse of [Action.String]. The error wraps [ErrUnknown].
func ParseAction(name string) (Action, error) {
	if name == HandleMessage.String() {
		return HandleMessage, nil
	}
	return 0, fmt.Errorf("%w action %q", ErrUnknown, name)
}

// ResourceType is a kind of resource. The number is the CBOR form (docs/protocol/02 §7.4).
type ResourceType uint8

// The resource types.
const (
	TCPInlet      ResourceType = 1
	TCPOutlet     ResourceType = 2
	Echoer        ResourceType = 3
	KafkaConsumer ResourceType = 4
	KafkaProducer ResourceType = 5
	Relay         ResourceType = 6
	Lessor        ResourceType = 7
	UDPInlet      ResourceType = 8 // of ours alone, as is the next
	UDPOutlet     ResourceType = 9
)

var resourceTypeNames = [...]string{
	TCPInlet: "tcp-inlet", TCPOutlet: "tcp-outlet", Echoer: "echoer", KafkaConsumer: "kafka-consumer",
	KafkaProducer: "kafka-producer", Relay: "relay", Lessor: "lessor", UDPInlet: "udp-inlet", UDPOutlet: "udp-outlet",
}

// ResourceTypes lists every resource type in the order of their numbers.
func ResourceTypes() []ResourceType {
	return []ResourceType{TCPInlet, TCPOutlet, Echoer, KafkaConsumer, KafkaProducer, Relay, Lessor, UDPInlet, UDPOutlet}
}

// Valid reports whether t is one of the resource types.
func (t ResourceType) Valid() bool { return t >= TCPInlet && t <= UDPOutlet }

// Base is the type whose policy decides where t has none: that of portals for TCP for those for UDP, else t itself.
func (t ResourceType) Base() ResourceType {
	switch t {
	case UDPInlet:
		return TCPInlet
	case UDPOutlet:
		return TCPOutlet
	}
	return t
}

// String is the name of the type as the command line and the database write it.
func (t ResourceType) String() string {
	if t.Valid() {
		return resourceTypeNames[t]
	}
	return fmt.Sprintf("resource-type(%d)", uint8(t))
}

// ParseResourceType is the inverse of [ResourceType.String]. The error wraps [ErrUnknown].
func ParseResourceType(name string) (ResourceType, error) {
	for _, t := range ResourceTypes() {
		if resourceTypeNames[t] == name {
			return t, nil
		}
	}
	return 0, fmt.Errorf("%w resource type %q", ErrUnknown, name)
}

// Resource says what a policy is for: all resources of one type, those of a name, or the one of a name and a kind, which asks for it itself. It is
// comparable. The zero value is no resource.
type Resource struct {
	typ  ResourceType // 0 if by name
	name string
	kind string // only of what a resource asks for itself
}

// ByType is every resource of type t.
func ByType(t ResourceType) Resource { return Resource{typ: t} }

// ByName is the resources called name, of whatever kind.
func ByName(name string) Resource { return Resource{name: name} }

// Own is the resource of a kind called name, whose owner said with it who may use it. Names are a kind's own: an inlet may have that of an outlet.
func Own(kind, name string) Resource { return Resource{name: name, kind: kind} }

// ParseResource is [ByType] if text names a resource type, else [ByName]: the deprecated reading of the option
// --resource (docs/protocol/02 §7.5).
func ParseResource(text string) Resource {
	if t, err := ParseResourceType(text); err == nil {
		return ByType(t)
	}
	return ByName(text)
}

// Type is the resource type, and false if the resource is given by name.
func (r Resource) Type() (ResourceType, bool) { return r.typ, r.typ != 0 }

// Name is the resource name, and false if the resource is given by type.
func (r Resource) Name() (string, bool) { return r.name, r.typ == 0 }

// String is the name of the resource or of the type.
func (r Resource) String() string {
	if r.typ != 0 {
		return r.typ.String()
	}
	return r.name
}

func (r Resource) check() error {
	if r.typ != 0 && !r.typ.Valid() || r.typ == 0 && r.name == "" {
		return fmt.Errorf("%w resource %q", ErrUnknown, r.String())
	}
	return nil
}

// Variants of a resource in CBOR. The payload stands at index 1, so index 0 is null (docs/protocol/02 §7.5).
const (
	variantByType = 1
	variantByName = 2
)

// AppendCBOR appends the encoding of r to b.
func (r Resource) AppendCBOR(b []byte) []byte {
	if r.typ != 0 {
		return cborhead.Append(append(b, cborhead.Array|2, variantByType, cborhead.Array|2, cborNull), cborhead.Uint, uint64(r.typ))
	}
	return appendText(append(b, cborhead.Array|2, variantByName, cborhead.Array|2, cborNull), r.name)
}

// MarshalCBOR is [Resource.AppendCBOR] into a new slice. It never fails.
func (r Resource) MarshalCBOR() ([]byte, error) { return r.AppendCBOR(nil), nil }

// UnmarshalCBOR is [DecodeResource] without the rest.
func (r *Resource) UnmarshalCBOR(b []byte) error {
	decoded, _, err := DecodeResource(b)
	if err != nil {
		return err
	}
	*r = decoded
	return nil
}

// DecodeResource decodes a resource and returns the bytes that follow it. Errors wrap [ErrMalformed].
func DecodeResource(b []byte) (res Resource, rest []byte, err error) {
	r := &reader{b: b}
	var number uint64
	n := r.variant("resource", &number, func(i int) {
		switch {
		case i != 1:
			r.skip(0)
		case number == variantByType:
			t := r.uint("resource type")
			if r.err == nil && (t == 0 || t > uint64(Lessor)) {
				r.fail("unknown resource type %d", t)
			}
			res.typ = ResourceType(min(t, 0xff))
		case number == variantByName:
			res.name = r.text()
		default:
			r.fail("unknown resource variant %d", number)
		}
	})
	if r.err == nil && n < 2 {
		r.fail("resource without payload")
	}
	if r.err != nil {
		return Resource{}, nil, r.err
	}
	return res, r.b, nil
}
