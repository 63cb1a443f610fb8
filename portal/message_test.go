package portal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"sallyport/routing/bare"
)

type vectors struct {
	Messages []struct{ Name, Hex, Payload string }
	Decode   []struct {
		Hex, Kind, Payload string
		Counter            *uint16
		Error              bool
	}
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	b, err := os.ReadFile("testdata/03-portal-messages.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// encode writes a message the way the connections do.
func encode(kind byte, data []byte) []byte {
	switch kind {
	case kindPayload:
		buf := append(make([]byte, 16), data...)
		return buf[payloadHeader(buf, 16, len(data)):]
	case kindPing, kindPong:
		return appendHandshake(nil, kind, 0)
	}
	return []byte{kind}
}

func TestMessageVectors(t *testing.T) {
	kinds := map[string]byte{"ping": kindPing, "pong": kindPong, "disconnect": kindDisconnect, "payload": kindPayload}
	v := readVectors(t)
	if len(v.Messages) < 7 || len(v.Decode) < 11 {
		t.Fatal("vectors missing")
	}
	for _, c := range v.Messages {
		if c.Hex == "" { // only the beginning of a large payload is given
			if got := encode(kindPayload, make([]byte, MaxPayload)); !bytes.HasPrefix(got, unhex(t, "03808008")) || len(got) != 131_076 {
				t.Errorf("%s: begins %x, %d bytes", c.Name, got[:8], len(got))
			}
			continue
		}
		b := unhex(t, c.Hex)
		if got := encode(b[0], unhex(t, c.Payload)); !bytes.Equal(got, b) {
			t.Errorf("%s: encoded as %x", c.Name, got)
		}
		m, err := parse(b)
		if err != nil || m.kind != b[0] || hex.EncodeToString(b[m.from:m.to]) != c.Payload {
			t.Errorf("%s: %+v, %v", c.Name, m, err)
		}
	}
	for _, c := range v.Decode {
		b := unhex(t, c.Hex)
		m, err := parse(b)
		if c.Error {
			if !errors.Is(err, ErrMessage) {
				t.Errorf("%s: %+v, %v", c.Hex, m, err)
			}
			continue
		}
		if err != nil || m.kind != kinds[c.Kind] || hex.EncodeToString(b[m.from:m.to]) != c.Payload {
			t.Errorf("%s: %+v, %v", c.Hex, m, err)
		}
		if m.counted != (c.Counter != nil) || (c.Counter != nil && m.counter != *c.Counter) {
			t.Errorf("%s: counter %v %d", c.Hex, m.counted, m.counter)
		}
	}
}

func TestExtensionMessages(t *testing.T) {
	for _, window := range []int{1, 127, 128, 512 << 10, maxCredit} {
		for _, kind := range []byte{kindPing, kindPong} {
			m, err := parse(appendHandshake(nil, kind, window))
			if err != nil || m.kind != kind || m.extension != extensionVersion || m.amount != uint64(window) {
				t.Errorf("%+v, %v", m, err)
			}
		}
		m, err := parse(appendCredit(nil, uint64(window)))
		if err != nil || m.kind != kindCredit || m.amount != uint64(window) {
			t.Errorf("%+v, %v", m, err)
		}
	}
	// A Ping with something else after it is one without the extension, as for the reference.
	for _, other := range []string{"00ff", "005350", "00535401", "01000000000000"} {
		if m, err := parse(unhex(t, other)); err != nil || m.extension != 0 {
			t.Errorf("%s: %+v, %v", other, m, err)
		}
	}
	if m, err := parse([]byte{kindDisconnect, byte(ReasonGap)}); err != nil || m.reason != ReasonGap {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := parse([]byte{kindFinish, 0x34, 0x12}); err != nil || m.counter != 0x1234 || !m.counted {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"10", "10ffffffffffffffffffff", "00535001", "0053500180", "11", "1100", "12", "14", "ff", "03ffffffffffffffffff0161"} {
		if m, err := parse(unhex(t, bad)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %+v, %v", bad, m, err)
		}
	}
	for i := range reasonCount {
		if i.String() == "" {
			t.Errorf("reason %d has no text", i)
		}
	}
	if len(Reasons()) != int(reasonCount) || Reason(200).String() != "reason 200" {
		t.Error("reasons are not named")
	}
}

func FuzzParse(f *testing.F) {
	v := readVectors(f)
	for _, c := range v.Messages {
		f.Add(unhex(f, c.Hex))
	}
	for _, c := range v.Decode {
		f.Add(unhex(f, c.Hex))
	}
	f.Add(appendHandshake(nil, kindPing, 1<<19))
	f.Add(appendCredit(nil, 1<<20))
	f.Add([]byte{kindFinish, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatalf("%v is not ErrMessage", err)
			}
			return
		}
		var again []byte
		switch m.kind {
		case kindPayload:
			if m.from > m.to || m.to > len(b) {
				t.Fatalf("data from %d to %d of %d bytes", m.from, m.to, len(b))
			}
			again = bare.AppendUvarint([]byte{kindPayload}, uint64(m.to-m.from))
			again = append(again, b[m.from:m.to]...)
			if m.counted {
				again = binary.LittleEndian.AppendUint16(append(again, 1), m.counter)
			}
			if m.confirms {
				again = binary.LittleEndian.AppendUint32(again, uint32(m.confirmed))
			}
		case kindPing, kindPong:
			again = []byte{m.kind}
			if m.extension == 0 {
				m.amount = 0 // means nothing
			} else {
				again = bare.AppendUvarint(append(again, 'S', 'P', m.extension), m.amount)
			}
		case kindDisconnect:
			again = []byte{m.kind, byte(m.reason)}
		case kindCredit:
			if again = appendCredit(nil, m.amount); m.confirms {
				again = bare.AppendUvarint(again, m.confirmed)
			}
		case kindFinish:
			again = binary.LittleEndian.AppendUint16([]byte{m.kind}, m.counter)
			if m.confirms {
				again = binary.LittleEndian.AppendUint32(again, uint32(m.confirmed))
			}
		case kindResume, kindResumed:
			return // FuzzFields
		default:
			t.Fatalf("kind %d was accepted", m.kind)
		}
		n, err := parse(again)
		if err != nil {
			t.Fatalf("%x read, but not %x: %v", b, again, err)
		}
		same := bytes.Equal(b[m.from:m.to], again[n.from:n.to])
		m.from, m.to, n.from, n.to, m.fields, n.fields = 0, 0, 0, 0, 0, 0 // fields: FuzzFields
		if !same || m != n {
			t.Fatalf("%x is %+v, %x is %+v", b, m, again, n)
		}
	})
}
