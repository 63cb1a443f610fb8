package resource

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
)

// fill gives every field of v a value other than zero, and every slice one element.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1500)
	default:
		panic("a field of the kind " + v.Kind().String())
	}
}

func check[R any](t *testing.T) {
	t.Helper()
	var full, got R
	fill(reflect.ValueOf(&full).Elem())
	raw, err := json.Marshal(full)
	if err == nil {
		err = json.Unmarshal(raw, &got)
	}
	if err != nil || !reflect.DeepEqual(got, full) {
		t.Errorf("%T: %+v became %+v, %v", full, full, got, err)
	}
	typ := reflect.TypeFor[R]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		where := typ.Name() + "." + f.Name
		if f.Tag.Get("flag") == "" || f.Tag.Get("json") == "" {
			t.Errorf("%s: no flag or no json key", where)
		}
		if memo := f.Tag.Get("memo"); memo != "" && memo != "kept" && memo != "ignored" {
			t.Errorf("%s: memo %q", where, memo)
		}
		// A field that changes is a difference, unless it is a note; a note is kept when a request is replaced.
		other, notes := full, *new(R)
		reflect.ValueOf(&other).Elem().Field(i).SetZero()
		differs := Differences(&full, &other)
		if note := f.Tag.Get("memo") != ""; note && len(differs) > 0 || !note && !slices.Equal(differs, []string{fieldName(f)}) {
			t.Errorf("%s: differences %v", where, differs)
		}
		KeepNotes(&full, &notes)
		if kept := !reflect.ValueOf(notes).Field(i).IsZero(); kept != (f.Tag.Get("memo") == "kept") {
			t.Errorf("%s: kept %v", where, kept)
		}
	}
}

// Every field of every request is on disk and comes back, is compared, and has a name.
func TestFields(t *testing.T) {
	check[Outlet](t)
	check[Inlet](t)
	check[Relay](t)
	check[TCPListener](t)
	check[Listener](t)
	check[Hop](t)
	check[Certificate](t)
	check[Policy](t)
	check[KafkaInlet](t)
	check[KafkaOutlet](t)
}

// An empty list is as good as none.
func TestEmptyList(t *testing.T) {
	if d := Differences(&Listener{Authorized: []string{}}, &Listener{}); d != nil {
		t.Errorf("differences %v", d)
	}
}
