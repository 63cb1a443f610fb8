package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// smallProgram is what `make small` may make, in bytes. The figure is that of amd64, and a little room.
const smallProgram = 18 << 20

// TestReachSmallBuild: the program that is built with the tag small is as small as it is said to be, carries a connection over a relay, and says what it was
// built without.
func TestReachSmallBuild(t *testing.T) {
	if testing.Short() || os.Getenv("SALLYPORT_SMALL") == "" {
		t.Skip("SALLYPORT_SMALL names no program: make test-reach builds it")
	}
	small := os.Getenv("SALLYPORT_SMALL")
	info, err := os.Stat(small)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the small program has %.1f MiB", float64(info.Size())/(1<<20))
	if info.Size() > smallProgram {
		t.Errorf("%d bytes, more than %d", info.Size(), smallProgram)
	}
	s := newShell(t)
	s.smallPortal(small)
	for line, want := range map[string]string{
		"sallyport kafka-inlet create": "built without Kafka", "sallyport node show box --jq .name": "built without --jq", "sallyport vault create --tpm t": "built without TPM",
		`sallyport node create web --listener wss://127.0.0.1:0/ --acme '{"domains": ["relay.example.com"]}' --foreground`: "built without ACME",
	} {
		if o := s.run(line, "SALLYPORT_HOME="+filepath.Join(s.dir, "bank")); o.code == 0 || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: exit code %d, %s%s", line, o.code, o.stdout, o.stderr)
		}
	}
}
