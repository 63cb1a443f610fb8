package node

import (
	"context"
	"reflect"
	"testing"

	"sallyport/state"
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
	case reflect.Int64:
		v.SetInt(1500)
	default:
		panic("a field of the kind " + v.Kind().String())
	}
}

// TestHomeKeepsEveryField: nothing that a node was asked for is lost on the way to the state directory and back.
func TestHomeKeepsEveryField(t *testing.T) {
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.CreateNode(context.Background(), state.Node{Name: "n"}); err != nil {
		t.Fatal(err)
	}
	h := NewHome(dir, "n", true)
	var want Resources
	fill(reflect.ValueOf(&want).Elem())
	want.Policies[0].ResourceType = "" // a policy has either
	if err := h.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
