package client

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const outside = `package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"sallyport/client"
)

func main() {
	ctx := context.Background()
	c, err := client.Open(ctx, client.Options{InMemory: true, NoProject: true})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	_ = &http.Transport{DialContext: c.DialContext}
	_, err = c.Dial(ctx, "not a name")
	fmt.Println(errors.Is(err, client.ErrName))
}
`

// TestFromAnotherModule requires the library as docs/library.md says, from a module outside the tree, without its dependencies' sources at hand.
func TestFromAnotherModule(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(outside), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off") // what the tree has been built with is enough
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("mod", "init", "example.com/outside")
	run("mod", "edit", "-require", "sallyport@v0.0.0", "-replace", "sallyport="+root)
	if sum, err := os.ReadFile(filepath.Join(root, "go.sum")); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run("run", "."); got != "true\n" {
		t.Errorf("%q", got)
	}
}
