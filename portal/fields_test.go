package portal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// extensionVector is a message of the extension, and what it says.
type extensionVector struct {
	Name, Hex, Kind, Payload, ID, Secret, Client string
	Version                                      uint8
	Window, Amount, Hold                         uint64
	Counter                                      *uint16
	Confirmed                                    *uint64
	Asks                                         bool
	Again                                        uint64
	Attempt, Received, Allowed                   uint64
	Reason                                       Reason
}

func readExtensionVectors(t testing.TB) (v struct{ Messages, Malformed []extensionVector }) {
	t.Helper()
	b, err := os.ReadFile("../docs/protocol/vectors/06-portal-extension.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Messages) < 18 || len(v.Malformed) < 16 {
		t.Fatal("vectors missing")
	}
	return v
}

var extensionKinds = map[string]byte{"ping": kindPing, "pong": kindPong, "payload": kindPayload, "credit": kindCredit, "finish": kindFinish,
	"resume": kindResume, "resumed": kindResumed, "disconnect": kindDisconnect}

// TestExtensionVectors holds the codec of the extension against vectors that other code made.
func TestExtensionVectors(t *testing.T) {
	v := readExtensionVectors(t)
	for _, c := range v.Messages {
		b := unhex(t, c.Hex)
		m, err := parse(b)
		if err != nil || m.kind != extensionKinds[c.Kind] || m.reason != c.Reason || m.extension != c.Version || m.amount != c.Window+c.Amount {
			t.Errorf("%s: %+v, %v", c.Name, m, err)
			continue
		}
		if m.counted != (c.Counter != nil) || m.counted && m.counter != *c.Counter || m.confirms != (c.Confirmed != nil) || m.confirms && m.confirmed != *c.Confirmed {
			t.Errorf("%s: %+v", c.Name, m)
		}
		var f fields
		if m.fields > 0 {
			if f, err = parseFields(b[m.fields:]); err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
		}
		var r resumeMessage
		if m.kind == kindResume || m.kind == kindResumed {
			if r, err = parseResume(b); err != nil || r.attempt != c.Attempt || r.received != c.Received || r.allowed != c.Allowed {
				t.Errorf("%s: %+v, %v", c.Name, r, err)
			}
			f.id, f.secret = r.id, r.secret
		}
		for _, x := range []struct {
			is   token
			want string
		}{{f.id, c.ID}, {f.secret, c.Secret}} {
			if want := unhex(t, x.want); x.is != (token{}) || len(want) > 0 {
				if !bytes.Equal(x.is[:], want) {
					t.Errorf("%s: token %x, want %s", c.Name, x.is, x.want)
				}
			}
		}
		if f.hold != c.Hold || f.client != c.Client || f.asks != c.Asks || f.again != c.Again {
			t.Errorf("%s: fields %+v", c.Name, f)
		}
		if again := encodeExtension(m, b, &f, &r); c.Version < 3 && !bytes.Contains([]byte(c.Name), []byte("not known")) && c.Name != "ping of version 1 with bytes after it" && !bytes.Equal(again, b) {
			t.Errorf("%s: encoded as %x", c.Name, again)
		}
	}
	for _, c := range v.Malformed {
		if m, err := parse(unhex(t, c.Hex)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %+v, %v", c.Name, m, err)
		}
	}
}

// encodeExtension writes a message again, the way the connections do.
func encodeExtension(m message, b []byte, f *fields, r *resumeMessage) []byte {
	switch m.kind {
	case kindPing, kindPong:
		if m.extension >= resumeVersion {
			return appendOffer(nil, m.kind, int(m.amount), f)
		}
		return appendHandshake(nil, m.kind, int(m.amount))
	case kindPayload:
		buf := make([]byte, 16, 16+len(b))
		buf = append(buf, b[m.from:m.to]...)
		start := payloadHeader(buf, 16, m.to-m.from)
		version := uint8(extensionVersion)
		if m.confirms {
			version = resumeVersion
		}
		tail := [counterSize + confirmedSize]byte{}
		return append(buf[start:], tail[:putCounter(tail[:], m.counter, version, m.confirmed)]...)
	case kindCredit:
		if m.confirms {
			return appendConfirmingCredit(nil, m.amount, m.confirmed, f.asks)
		}
		return appendCredit(nil, m.amount)
	case kindFinish:
		version := uint8(extensionVersion)
		if m.confirms {
			version = resumeVersion
		}
		return appendFinish(nil, m.counter, version, m.confirmed)
	case kindResume, kindResumed:
		return r.append(nil)
	case kindDisconnect:
		return []byte{kindDisconnect, byte(m.reason)}
	}
	return nil
}

func FuzzFields(f *testing.F) {
	v := readExtensionVectors(f)
	for _, c := range append(v.Messages, v.Malformed...) {
		b, err := hex.DecodeString(c.Hex)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatalf("%v is not ErrMessage", err)
			}
			return
		}
		var list fields
		if m.fields > 0 {
			if list, err = parseFields(b[m.fields:]); err != nil {
				t.Fatalf("parse took fields that parseFields refuses: %v", err)
			}
			if len(list.client) > maxClient {
				t.Fatalf("client of %d bytes", len(list.client))
			}
			again, err := parseFields(list.append(nil))
			if err != nil || again != list {
				t.Fatalf("%+v was read again as %+v, %v", list, again, err)
			}
		}
		if m.kind == kindResume || m.kind == kindResumed {
			r, err := parseResume(b)
			if err != nil {
				t.Fatalf("parse took a resume that parseResume refuses: %v", err)
			}
			again, err := parseResume(r.append(nil))
			if err != nil || again != r {
				t.Fatalf("%+v was read again as %+v, %v", r, again, err)
			}
		}
	})
}

// TestUnknownFieldsAreSkipped: fields that a later version sends are no mistake, also when it sends one of them more than once; a field that is known may
// come once.
func TestUnknownFieldsAreSkipped(t *testing.T) {
	field := func(tag byte, value ...byte) []byte { return append([]byte{tag, byte(len(value))}, value...) }
	for tag := byte(0); tag < 32; tag++ {
		if tag >= tagID && tag <= tagSent {
			continue
		}
		b := bytes.Join([][]byte{field(tag, 1), field(tagHold, 5), field(tag), field(tag, 1, 2)}, nil)
		if f, err := parseFields(b); err != nil || f.hold != 5 {
			t.Errorf("field %d, three times: hold %d, %v", tag, f.hold, err)
		}
	}
	if _, err := parseFields(append(field(tagHold, 5), field(tagHold, 5)...)); !errors.Is(err, errRepeated) {
		t.Errorf("a known field, twice: %v", err)
	}
}
