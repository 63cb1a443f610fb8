package receipts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/records"
)

// party is a node that makes receipts into memory.
type party struct {
	id      identity.Identifier
	manager *identity.Manager
	rs      *records.Receipts
	out     bytes.Buffer
}

func (p *party) Write(_ []*records.Record, lines []byte) error {
	p.out.Write(lines)
	return nil
}

func (p *party) Close() error { return nil }

func newParty(t testing.TB) *party {
	t.Helper()
	ctx := context.Background()
	p := &party{manager: identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})}
	i, err := p.manager.Create(ctx, identity.CreateOptions{Algorithm: vault.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	p.id = i.Identifier()
	p.rs = &records.Receipts{Identity: p.id.String(), History: func() []byte { h, _ := p.manager.History(ctx, p.id); return h },
		Sign: func(ctx context.Context, text []byte) ([]byte, error) {
			return p.manager.SignStatement(ctx, p.id, text, time.Now().Add(time.Hour))
		}}
	return p
}

// write has the party write records, all with one signature at the end.
func (p *party) write(list ...*records.Record) string {
	p.out.Write(p.rs.Head())
	l := records.New(records.Options{Node: "n", Sink: p, Receipts: p.rs})
	for _, r := range list {
		l.Record(r)
	}
	l.Close()
	return p.out.String()
}

// pair makes the records of both ends of n connections.
func pair(a, b *party, n int) (inlet, outlet []*records.Record) {
	began := time.Now().Add(-time.Hour)
	for i := range n {
		r := records.Record{ID: [16]byte{1, byte(i)}, Began: began.Add(time.Duration(i) * time.Minute), End: "inlet", Portal: "p", Peer: b.id, HasPeer: true,
			ToTarget: uint64(100 + i), ToClient: uint64(1000 * i), Setup: time.Millisecond, FirstByte: -1, Outcome: "closed", By: "client"}
		r.Ended = r.Began.Add(time.Second)
		o := r
		o.End, o.Peer = "outlet", a.id
		inlet, outlet = append(inlet, &r), append(outlet, &o)
	}
	return inlet, outlet
}

func read(t testing.TB, text string) *File {
	t.Helper()
	f, err := Read(context.Background(), strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestAgree: what both ends wrote is verified by their identities alone, and agrees.
func TestAgree(t *testing.T) {
	a, b := newParty(t), newParty(t)
	in, out := pair(a, b, 20)
	slices.Reverse(out) // the order is each end's own
	fa, fb := read(t, a.write(in...)), read(t, b.write(out...))
	if fa.Identity != a.id.String() || fb.Identity != b.id.String() || fa.Unsigned != 0 || len(fa.Records) != 20 || !fa.Records[19].Signed {
		t.Errorf("%s: %d records, %d unsigned", fa.Identity, len(fa.Records), fa.Unsigned)
	}
	if c := Compare(fa, fb); c.Agreed != 20 || len(c.Differences) != 0 || c.Others != 0 {
		t.Errorf("%+v", c)
	}
}

// TestDisagree: each lie of one end about a connection is named.
func TestDisagree(t *testing.T) {
	for _, k := range []struct {
		name, want string
		change     func(in, out []*records.Record) (a, b []*records.Record)
	}{
		{"more bytes", "bytes_to_target: 110 sent by the inlet, 111 received by the outlet", func(in, out []*records.Record) (_, _ []*records.Record) {
			out[10].ToTarget++
			return in, out
		}},
		{"fewer bytes of a whole stream", "bytes_to_client: 9999 sent by the outlet, 10000 received by the inlet", func(in, out []*records.Record) (_, _ []*records.Record) {
			out[10].ToClient--
			return in, out
		}},
		{"left out", "the other end does not", func(in, out []*records.Record) (_, _ []*records.Record) {
			return in, append(out[:10:10], out[11:]...)
		}},
		{"made up", "the other end does not", func(in, out []*records.Record) (_, _ []*records.Record) {
			return append(in[:10:10], in[11:]...), out
		}},
		{"another time", "began: 1h0m0s apart", func(in, out []*records.Record) (_, _ []*records.Record) {
			out[10].Began = out[10].Began.Add(-time.Hour)
			return in, out
		}},
		{"the same end", "both say", func(in, out []*records.Record) (_, _ []*records.Record) {
			out[10].End = "inlet"
			return in, out
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			a, b := newParty(t), newParty(t)
			in, out := k.change(pair(a, b, 20))
			c := Compare(read(t, a.write(in...)), read(t, b.write(out...)))
			if len(c.Differences) != 1 || c.Agreed != 19 || !strings.Contains(c.Differences[0].What, k.want) {
				t.Errorf("%+v", c)
			}
		})
	}
}

// TestCutShort: a connection that was reset may have carried more at the end that sent; that is said and no difference.
func TestCutShort(t *testing.T) {
	a, b := newParty(t), newParty(t)
	in, out := pair(a, b, 3)
	in[1].Outcome, out[1].Outcome, out[1].ToTarget = "reset", "reset", 50
	if c := Compare(read(t, a.write(in...)), read(t, b.write(out...))); c.Agreed != 3 || c.CutShort != 1 || len(c.Differences) != 0 {
		t.Errorf("%+v", c)
	}
}

// TestTampered: what was changed, left out or put in after it was signed is found, and so is a signature of somebody else.
func TestTampered(t *testing.T) {
	a, b := newParty(t), newParty(t)
	in, out := pair(a, b, 10)
	whole, other := a.write(in...), b.write(out...)
	lines := strings.SplitAfter(whole, "\n")
	for name, text := range map[string]string{
		"changed":            strings.Replace(whole, `"bytes_to_target":105`, `"bytes_to_target":106`, 1),
		"left out":           strings.Join(append(append([]string{}, lines[:5]...), lines[6:]...), ""),
		"twice":              strings.Join(append(append([]string{}, lines[:5]...), lines[4:]...), ""),
		"exchanged":          strings.Join(append(append([]string{}, lines[:3]...), append([]string{lines[4], lines[3]}, lines[5:]...)...), ""),
		"the last left out":  strings.Join(append(append([]string{}, lines[:10]...), lines[11:]...), ""),
		"another's history":  strings.Join(append([]string{strings.SplitAfter(other, "\n")[0]}, lines[1:]...), ""),
		"another's mixed in": lines[0] + strings.Replace(lines[0], a.id.String(), b.id.String(), 1),
		"no head":            strings.Join(lines[1:], ""),
		"no JSON":            lines[0] + "{\n",
	} {
		if _, err := Read(context.Background(), strings.NewReader(text)); !errors.Is(err, ErrFile) || !strings.Contains(fmt.Sprint(err), "line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := read(t, strings.Join(lines[:len(lines)-2], "")) // without the signature
	if f.Unsigned != 10 || f.Records[0].Signed {
		t.Errorf("%d unsigned", f.Unsigned)
	}
}

// TestGoesOn: a program that was started again goes on with the file; a primary key that was rotated is believed.
func TestGoesOn(t *testing.T) {
	a, b := newParty(t), newParty(t)
	in, _ := pair(a, b, 9)
	a.write(in[:3]...)
	fresh := *a.rs
	a.rs = &records.Receipts{Identity: fresh.Identity, History: fresh.History, Sign: fresh.Sign}
	l := records.New(records.Options{Node: "n", Sink: a, Receipts: a.rs})
	a.out.Write(a.rs.Head())
	if _, err := a.manager.Rotate(context.Background(), a.id, identity.RotateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range in[3:] {
		l.Record(r)
	}
	l.Close()
	if f := read(t, a.out.String()); f.Unsigned != 0 || len(f.Records) != 9 {
		t.Errorf("%d records, %d unsigned", len(f.Records), f.Unsigned)
	}
}

// TestPlainRecords: a file without receipts can be compared, and says that nobody stands for it.
func TestPlainRecords(t *testing.T) {
	a, b := newParty(t), newParty(t)
	in, out := pair(a, b, 5)
	var text []byte
	for _, r := range out {
		text = append(r.AppendJSON(text, "n"), '\n')
	}
	fb := read(t, string(text))
	if fb.Identity != "" || fb.Unsigned != 5 {
		t.Errorf("%+v", fb)
	}
	if c := Compare(read(t, a.write(in...)), fb); c.Agreed != 5 {
		t.Errorf("%+v", c)
	}
}

func FuzzRead(f *testing.F) {
	a, b := newParty(f), newParty(f)
	in, _ := pair(a, b, 3)
	f.Add(a.write(in...))
	f.Add(`{"receipts":1,"identity":"I00","history":"","chain":""}`)
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Read(context.Background(), strings.NewReader(text))
		if err == nil {
			Compare(file, file)
		}
	})
}
