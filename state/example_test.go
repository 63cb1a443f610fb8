package state_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"sallyport/node/resource"
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
	err = dir.UpdateResources(ctx, "blue", func(r []resource.Stored) ([]resource.Stored, error) {
		return append(r, resource.Stored{Kind: resource.KindOutlet, Name: "db", Request: []byte(`{"to":"127.0.0.1:5432"}`)}), nil
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
	fmt.Println(node.Name, node.Status(), resources[0].Kind, resources[0].Name)
	// Output: blue running tcp-outlet db
}
