package identity

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

func load(t testing.TB, name string, v any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

type identityVectors struct {
	Vectors []struct {
		Name    string `json:"name"`
		History string `json:"change_history_hex"`
		ID      string `json:"identifier"`
		Changes int    `json:"num_changes"`
	} `json:"vectors"`
	Negative []struct {
		Name    string `json:"name"`
		History string `json:"change_history_hex"`
	} `json:"negative"`
}

// TestHistories verifies every change history of the vectors and refuses every broken one.
func TestHistories(t *testing.T) {
	var v identityVectors
	load(t, "02-identities.json", &v)
	for _, c := range v.Vectors {
		i, err := ImportHex(c.History, nil)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if i.Identifier().String() != c.ID || len(i.Changes()) != c.Changes || i.Hex() != c.History {
			t.Errorf("%s: %s with %d changes, want %s with %d", c.Name, i.Identifier(), len(i.Changes()), c.ID, c.Changes)
		}
	}
	for _, c := range v.Negative {
		raw, _ := hex.DecodeString(c.History)
		if i, err := Import(raw, nil); err == nil {
			t.Errorf("%s: accepted as %s", c.Name, i.Identifier())
		}
	}
}
