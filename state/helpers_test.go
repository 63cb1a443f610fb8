package state

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"sallyport/crypto/identity"
	"sallyport/node/resource"
)

// own returns the n-th of the identities in the vectors.
func own(t testing.TB, n int) *identity.Identity {
	t.Helper()
	data, err := os.ReadFile("testdata/02-identities.json")
	must(t, err)
	var v struct {
		Vectors []struct {
			History string `json:"change_history_hex"`
		} `json:"vectors"`
	}
	must(t, json.Unmarshal(data, &v))
	i, err := identity.ImportHex(v.Vectors[n].History, nil)
	must(t, err)
	return i
}

func open(t testing.TB) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "home"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// withIdentity stores an identity and names it.
func withIdentity(t testing.TB, d *Dir, name string, n int) NamedIdentity {
	t.Helper()
	must(t, d.Store().PutIdentity(t.Context(), own(t, n)))
	if _, err := d.EnsureVault(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	id, err := d.CreateNamed(t.Context(), name, own(t, n).Identifier().String(), "")
	must(t, err)
	return id
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError checks the class of an error and that its text has all parts.
func wantError(t testing.TB, err, class error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %v", class)
		return
	}
	if class != nil && !errors.Is(err, class) {
		t.Errorf("error %q is not %q", err, class)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not contain %q", err, p)
		}
	}
}

// TestMain turns the test binary into a helper process when the environment says so.
func TestMain(m *testing.M) {
	switch dir, what, _ := strings.Cut(os.Getenv("SALLYPORT_STATE_TEST"), "|"); what {
	case "":
		goleak.VerifyTestMain(m)
	case "write":
		os.Exit(helper(writeNames(dir)))
	case "hold":
		os.Exit(helper(holdLock(dir)))
	default:
		os.Exit(3)
	}
}

func helper(err error) int {
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

// writeNames adds to one list in many small changes, as many commands at once would.
func writeNames(dir string) error {
	d, err := Open(dir)
	if err != nil {
		return err
	}
	for range 20 {
		write := func() error {
			return d.UpdateResources(context.Background(), "n1", func(r []resource.Stored) ([]resource.Stored, error) {
				return append(r, hop(RandomName())), nil
			})
		}
		err := write()
		for tries := 0; errors.Is(err, ErrLocked) && tries < 20; tries++ { // one of several may wait for long on a busy machine
			err = write()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// holdLock stops in the middle of a change until it is killed: the temporary file is written, the rename has not happened.
func holdLock(dir string) error {
	d, err := Open(dir)
	if err != nil {
		return err
	}
	return d.locked(context.Background(), func() error {
		if err := os.WriteFile(tempName(d.file("identities.json")), []byte(`{"version":1,"identi`), 0o600); err != nil {
			return err
		}
		_, _ = os.Stdout.WriteString("holding\n")
		var forever [1]byte
		_, err := os.Stdin.Read(forever[:])
		return err
	})
}

// hop is some resource.
func hop(name string) resource.Stored {
	return resource.Stored{Kind: resource.KindHop, Name: name, Request: []byte(`{"address":"` + name + `"}`)}
}
