package state_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"sallyport/state"
)

func Example() {
	tmp, err := os.MkdirTemp("", "state")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(tmp)

	ctx := context.Background()
	dir, err := state.Open(filepath.Join(tmp, "home"))
	if err != nil {
		panic(err)
	}
	me, err := state.CurrentProcess()
	if err != nil {
		panic(err)
	}
	if _, err := dir.CreateNode(ctx, state.Node{Name: "blue", Process: me}); err != nil {
		panic(err)
	}
	err = dir.UpdateResources(ctx, "blue", func(r *state.Resources) error {
		r.Outlets = append(r.Outlets, state.Outlet{Name: "db", To: "127.0.0.1:5432"})
		return nil
	})
	if err != nil {
		panic(err)
	}

	node, err := dir.Node("") // the default
	if err != nil {
		panic(err)
	}
	resources, err := dir.Resources(node.Name)
	if err != nil {
		panic(err)
	}
	fmt.Println(node.Name, node.Status(), resources.Outlets[0].To)
	// Output: blue running 127.0.0.1:5432
}
