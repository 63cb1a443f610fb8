package resource

import (
	"reflect"
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
