package control

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/routing"
)

type vector struct {
	Name, Hex, Malformed string
	Answer               bool
	ID, Code             uint64
	Data, Text, Reason   string
	Have, Wait           uint64
	State                State
	Extra                [][2]any
	Kind                 routing.NoticeKind
}

func (v vector) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(v.Hex, " ", ""))
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return b
}

func vectors(t testing.TB) (v struct{ Messages, Notices []vector }) {
	t.Helper()
	b, err := os.ReadFile("../../docs/protocol/vectors/07-control-service.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Messages) < 16 || len(v.Notices) < 4 {
		t.Fatal("vectors are missing")
	}
	return v
}

// TestVectors holds the codecs against the vectors.
func TestVectors(t *testing.T) {
	all := vectors(t)
	for _, v := range all.Messages {
		b := v.bytes(t)
		m, err := Parse(b)
		if v.Malformed != "" {
			if !errors.Is(err, ErrMessage) {
				t.Errorf("%s (%s): %+v, %v", v.Name, v.Malformed, m, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		want := Message{Answer: v.Answer, ID: v.ID, Code: v.Code, Fields: Fields{
			Name: v.Text, Have: v.Have, Wait: time.Duration(v.Wait) * time.Millisecond, State: v.State, Reason: v.Reason,
		}}
		if v.Data != "" {
			want.Data, _ = hex.DecodeString(v.Data)
		}
		for _, x := range v.Extra {
			value, _ := hex.DecodeString(x[1].(string))
			want.Extra = append(want.Extra, Field{Tag: uint64(x[0].(float64)), Value: value})
		}
		if got := want.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%s: encoded as %x, want %x", v.Name, got, b)
		}
		if got := m.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%s: read as %+v", v.Name, m)
		}
	}
	for _, v := range all.Notices {
		n, ok := routing.ParseNotice(v.bytes(t))
		if ok != (v.Malformed == "") || ok && (n.Kind != v.Kind || n.Name != v.Text) {
			t.Errorf("%s: %+v, %v", v.Name, n, ok)
		}
	}
}

// TestBounds: what is too long is refused, and a wait is no longer than the longest.
func TestBounds(t *testing.T) {
	for _, f := range []Fields{
		{Name: strings.Repeat("n", MaxName+1)}, {Reason: strings.Repeat("n", MaxReason+1)}, {Data: make([]byte, MaxData+1)},
		{Extra: []Field{{Tag: 99, Value: make([]byte, maxFieldLen+1)}}}, {Extra: []Field{{Tag: 99}, {Tag: 99}}},
	} {
		m := Message{Fields: f}
		if got, err := Parse(m.Append(nil)); !errors.Is(err, ErrMessage) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	m := Message{Fields: Fields{Wait: 1000 * time.Hour}}
	if got, err := Parse(m.Append(nil)); err != nil || got.Wait != MaxWait {
		t.Errorf("wait %v, %v", got.Wait, err)
	}
}

// TestGroupFields: what registrations and groups are described by comes back as it was, and cut short anywhere it is refused.
func TestGroupFields(t *testing.T) {
	members := []GroupMember{
		{Way: strings.Repeat("0a", 16), ID: [16]byte{1}, Identity: [32]byte{2}, Priority: 1000, State: StateUp, Connections: 1 << 40, Relay: "r1"},
		{Identity: [32]byte{3}, State: StateDown},
	}
	full := Message{Answer: true, ID: 5, Fields: Fields{
		Name: "n", Rule: 2, Priority: 7, Share: "(= subject.a \"b\")", Connections: 300, Members: members, Way: "0b",
	}}
	got, err := Parse(full.Append(nil))
	if err != nil || !reflect.DeepEqual(got, full) {
		t.Errorf("%+v, %v", got, err)
	}
	list := appendMembers(nil, members)
	whole := 0
	for n := range list {
		if got, err := parseMembers(list[:n]); err == nil {
			whole += len(got)
		}
	}
	if whole != 1 { // behind the first, and behind nothing
		t.Errorf("%d members of lists that were cut short", whole)
	}
	many := Message{Fields: Fields{Members: slices.Repeat(members, 100)}}
	got, err = Parse(many.Append(nil))
	if n := len(got.Members); err != nil || n < 40 || n > 100 {
		t.Errorf("%d members in one message, %v", n, err)
	}
	for _, bad := range []Fields{{Share: strings.Repeat("s", MaxShare+1)}, {Way: strings.Repeat("w", MaxName+1)}, {Members: []GroupMember{{Relay: strings.Repeat("r", MaxName+1)}}},
		{Members: []GroupMember{{Way: "\xff"}}}, {Share: "\xff"}} {
		m := Message{Fields: bad}
		if got, err := Parse(m.Append(nil)); !errors.Is(err, ErrMessage) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f).Messages {
		f.Add(v.bytes(f))
	}
	group := Message{Answer: true, Fields: Fields{Rule: 1, Priority: 2, Share: "x", Connections: 3, Way: "w", Members: []GroupMember{{Way: "w", State: StateUp}, {Relay: "r"}}}}
	f.Add(group.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatal(err)
			}
			return
		}
		again, err := Parse(m.Append(nil))
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if again.ID != m.ID || again.Code != m.Code || again.Name != m.Name || again.Have != m.Have || again.Wait != m.Wait ||
			!bytes.Equal(again.Data, m.Data) || again.State != m.State || again.Reason != m.Reason || len(again.Extra) != len(m.Extra) ||
			again.Share != m.Share || again.Way != m.Way || again.Priority != m.Priority || !slices.Equal(again.Members, m.Members) {
			t.Fatalf("%+v became %+v", m, again)
		}
	})
}
