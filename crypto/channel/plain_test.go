package channel

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestPlaintextVectors(t *testing.T) {
	v := readVectors(t)
	if len(v.Plaintexts) != 3 {
		t.Fatalf("%d plaintexts", len(v.Plaintexts))
	}
	payload, closing, refresh := v.Plaintexts[0].Hex, v.Plaintexts[1].Hex, v.Plaintexts[2].Hex
	wantBytes(t, "close", CloseMessage, closing)
	wantBytes(t, "refresh", AppendRefresh([]byte("x"), []byte{0x82, 0x80, 0x80})[1:], refresh)
	wantBytes(t, "payload", append(append([]byte(PayloadPrefix), payload[4:len(payload)-1]...), EmptyPadding), payload)
}

func TestParsePlaintext(t *testing.T) {
	for _, c := range []struct {
		what, in string
		kind     Kind
		body     string // of what is in after it, none if malformed
		bad      bool
	}{
		{"payload", "82820081 83 8080 4141 40", KindPayload, "83 8080 4141 40", false},
		{"with padding", "82820081 838080 40 43616263", KindPayload, "838080 40 43616263", false},
		{"something after it", "82820081 83808040 40 ffff", KindPayload, "83808040 40 ffff", false},
		{"further fields", "83 82 00 82 83808040 f6 40 00", KindPayload, "83808040 f6 40 00", false},
		{"all indefinite", "9f 82 00 9f 9f808040ff ff 40 ff", KindPayload, "9f808040ff ff 40 ff", false},
		{"long numbers", "980282 1900009801 83808040 40", KindPayload, "83808040 40", false},
		{"longest numbers", "9b0000000000000002 9a00000002 1b0000000000000000 990001 83808040 40", KindPayload, "83808040 40", false},
		{"refresh", "82820181 828080 40", KindRefresh, "828080 40", false},
		{"close", "8282028040", KindClose, "", false},
		{"close with something", "828202f640", KindClose, "", false},
		{"empty", "", 0, "", true},
		{"outer map", "a282008183", 0, "", true},
		{"no padding", "8182028040", 0, "", true},
		{"empty struct", "80", 0, "", true},
		{"variant of three", "828302804040", 0, "", true},
		{"variant of one", "82810240", 0, "", true},
		{"indefinite variant", "829f0280ff40", 0, "", true},
		{"kind 3", "8282038040", 0, "", true},
		{"kind 3 with content", "82820381 83808040 40", 0, "", true},
		{"kind 255 with content", "828218ff81 83808040 40", 0, "", true},
		{"kind 256", "82821901008040", 0, "", true},
		{"kind text", "82826130 8040", 0, "", true},
		{"kind negative", "8282208040", 0, "", true},
		{"payload without fields", "8282008040", 0, "", true},
		{"payload null", "828200f640", 0, "", true},
		{"indefinite without fields", "8282009fff40", 0, "", true},
		{"ends after prefix", "82820081", 0, "", true},
		{"refresh ends after prefix", "82820181", 0, "", true},
		{"ends in kind", "828219", 0, "", true},
		{"close ends", "828202", 0, "", true},
		{"reserved length", "9c", 0, "", true},
		{"reserved length 2", "9d00000000", 0, "", true},
	} {
		in := unhex(t, c.in)
		kind, body, err := ParsePlaintext(in)
		if c.bad {
			wantErr(t, c.what, err, ErrPlaintext)
			continue
		}
		if err != nil || kind != c.kind {
			t.Errorf("%s: kind %d, %v", c.what, kind, err)
		}
		wantBytes(t, c.what, body, unhex(t, c.body))
	}
}

// TestParsePlaintextPaths: the short way gives what the long one does.
func TestParsePlaintextPaths(t *testing.T) {
	for cut := range 12 {
		in := append([]byte(PayloadPrefix), 0x83, 0x80, 0x80, 0x41, 1, EmptyPadding, 0, 0)[:cut]
		kind, body, err := ParsePlaintext(in)
		kind2, body2, err2 := parsePlaintext(in)
		if kind != kind2 || !bytes.Equal(body, body2) || (err == nil) != (err2 == nil) {
			t.Errorf("%x: %d %x %v and %d %x %v", in, kind, body, err, kind2, body2, err2)
		}
	}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(text), []byte(" "), nil)))
	must(t, err)
	return b
}
