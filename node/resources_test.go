package node

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"sallyport/node/admin"
	"sallyport/policy"
)

// written is a store that keeps what was saved last, without policies.
type written struct {
	Store
	last Resources
}

func (w *written) Save(r Resources) error {
	r.Policies = nil // the defaults
	w.last = r
	return nil
}

// TestDeleteLost: what could not be created again stays written down, and can be deleted like what could.
func TestDeleteLost(t *testing.T) {
	ctx := context.Background()
	all := Resources{
		Outlets: []admin.OutletRequest{{Name: "db"}, {Name: "web"}}, Inlets: []admin.InletRequest{{Alias: "in"}},
		Relays: []admin.RelayRequest{{Name: "blue"}}, Listeners: []admin.ListenerRequest{{Address: "front"}},
		TCP: []admin.TransportRequest{{Address: "127.0.0.1:1"}},
	}
	store := &written{}
	n := &Node{policies: policy.NewSet(), lost: all, opts: Options{Store: store}}
	if err := n.save(); err != nil || !reflect.DeepEqual(store.last, all) {
		t.Fatalf("saved %+v, %v", store.last, err)
	}
	for what, remove := range map[string]func(context.Context, string) error{"db": n.DeleteOutlet, "in": n.DeleteInlet, "blue": n.DeleteRelay} {
		if err := remove(ctx, what); err != nil {
			t.Errorf("delete %s: %v", what, err)
		}
		if err := remove(ctx, what); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("delete %s again: %v", what, err)
		}
	}
	if !n.lost.forgetListener("front") || !n.lost.forgetTCP("127.0.0.1:1") || n.lost.forgetListener("front") || n.lost.forgetTCP("127.0.0.1:2") {
		t.Error("a listener was not forgotten, or twice")
	}
	if err := n.save(); err != nil || !reflect.DeepEqual(store.last, Resources{Outlets: []admin.OutletRequest{{Name: "web"}}}) {
		t.Errorf("left: %+v, %v", store.last, err)
	}
}
