package resource

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Differences returns in which fields two requests of one type differ, by their flags, or else their JSON keys. What the node noted
// itself is no difference.
func Differences[R any](a, b *R) []string {
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	var names []string
	for i := range x.NumField() {
		f := x.Type().Field(i)
		if f.Tag.Get("memo") != "" || same(x.Field(i), y.Field(i)) {
			continue
		}
		names = append(names, fieldName(f))
	}
	return names
}

// same compares two fields; an empty list is as good as none.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

func fieldName(f reflect.StructField) string {
	if name := f.Tag.Get("flag"); name != "" && name != "-" {
		return name
	}
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// KeepNotes copies to a request what the node noted itself in an earlier one for the same resource.
func KeepNotes[R any](from, to *R) {
	x, y := reflect.ValueOf(from).Elem(), reflect.ValueOf(to).Elem()
	for i := range x.NumField() {
		if x.Type().Field(i).Tag.Get("memo") == "kept" {
			y.Field(i).Set(x.Field(i))
		}
	}
}

// Compare returns in which fields two requests of a kind differ, given as JSON, as Differences does.
func Compare(kind string, a, b []byte) ([]string, error) {
	switch kind {
	case KindPolicy:
		return compare[Policy](a, b)
	case KindTCPListener:
		return compare[TCPListener](a, b)
	case KindListener:
		return compare[Listener](a, b)
	case KindHop:
		return compare[Hop](a, b)
	case KindCertificate:
		return compare[Certificate](a, b)
	case KindOutlet:
		return compare[Outlet](a, b)
	case KindRelay:
		return compare[Relay](a, b)
	case KindInlet:
		return compare[Inlet](a, b)
	case KindUDPOutlet:
		return compare[UDPOutlet](a, b)
	case KindUDPInlet:
		return compare[UDPInlet](a, b)
	case KindKafkaOutlet:
		return compare[KafkaOutlet](a, b)
	case KindKafkaInlet:
		return compare[KafkaInlet](a, b)
	}
	return nil, fmt.Errorf("no kind %q", kind)
}

func compare[R any](a, b []byte) ([]string, error) {
	var x, y R
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		return nil, err
	}
	return Differences(&x, &y), nil
}

// Flags returns the flags of every kind's fields.
func Flags() map[string][]string {
	return map[string][]string{
		KindPolicy: flags[Policy](), KindTCPListener: flags[TCPListener](), KindListener: flags[Listener](), KindHop: flags[Hop](),
		KindCertificate: flags[Certificate](), KindOutlet: flags[Outlet](), KindRelay: flags[Relay](), KindInlet: flags[Inlet](),
		KindUDPOutlet: flags[UDPOutlet](), KindUDPInlet: flags[UDPInlet](),
		KindKafkaOutlet: flags[KafkaOutlet](), KindKafkaInlet: flags[KafkaInlet](),
	}
}

func flags[R any]() []string {
	var list []string
	t := reflect.TypeFor[R]()
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("flag"); name != "" && name != "-" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}
