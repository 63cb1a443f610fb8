package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// keysIn looks through all files below some directories for the secret half of a key whose public half is in a change history there: raw, in
// hexadecimal or in base64. It returns the files that have one, and how many histories there are.
func keysIn(t *testing.T, dirs ...string) (found []string, histories int) {
	t.Helper()
	files, public := map[string][]byte{}, []byte(nil)
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil // it may go meanwhile
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			files[path] = b
			if filepath.Base(filepath.Dir(path)) == "histories" {
				public = append(public, b...)
				histories++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	text := regexp.MustCompile(`[0-9a-fA-F]{64,}|[0-9A-Za-z+/_-]{42,}`)
	for path, b := range files {
		parts := [][]byte{b}
		for _, word := range text.FindAll(b, -1) {
			for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.RawStdEncoding.DecodeString, base64.RawURLEncoding.DecodeString} {
				if raw, err := decode(string(word)); err == nil {
					parts = append(parts, raw)
				}
			}
		}
	scan:
		for _, part := range parts {
			for i := 0; i+ed25519.SeedSize <= len(part); i++ {
				seed := part[i : i+ed25519.SeedSize]
				if bytes.Count(seed, []byte{0}) > 8 { // a key has hardly any
					continue
				}
				if bytes.Contains(public, ed25519.NewKeyFromSeed(seed)[ed25519.SeedSize:]) {
					found = append(found, path)
					break scan
				}
			}
		}
	}
	return found, histories
}

// TestCLIInMemoryLeavesNoKey: a node with --in-memory that is killed leaves no key in shared memory, in the directory for temporary files or in the
// state directory. The same search finds that of a node without it.
func TestCLIInMemoryLeavesNoKey(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	p := ours(t)
	temporary := filepath.Join(p.dir, "tmp")
	if err := os.Mkdir(temporary, 0o700); err != nil {
		t.Fatal(err)
	}
	p.env = append(p.env, "TMPDIR="+temporary)
	name := fmt.Sprintf("n%d", os.Getpid())
	node := p.startInForeground(t, "node", "create", name, "--in-memory", "--foreground")
	// Its state directory is the one with its record; other nodes may run.
	home := ""
	for end := time.Now().Add(90 * time.Second); home == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the node has no state directory in memory")
		}
		for _, pattern := range []string{"/dev/shm/sallyport-*", filepath.Join(temporary, "sallyport-*")} {
			records, _ := filepath.Glob(filepath.Join(pattern, "nodes", name, "node.json"))
			for _, r := range records {
				if b, err := os.ReadFile(r); err == nil && strings.Contains(string(b), "tcp_listener_address") {
					home = filepath.Dir(filepath.Dir(filepath.Dir(r)))
				}
			}
		}
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	search := func(when string) {
		t.Helper()
		found, histories := keysIn(t, home, p.dir)
		if len(found) > 0 || histories != 1 {
			t.Errorf("%s: %d histories, keys in %v", when, histories, found)
		}
	}
	search("while it runs")
	if err := node.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = node.Wait()
	search("after kill -9")

	p.must(t, "identity", "create", "on-disk")
	if found, _ := keysIn(t, p.dir); len(found) == 0 {
		t.Error("the search does not find a key that is there")
	}
}
