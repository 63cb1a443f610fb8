package datagram

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

var testSession = session{1, 2, 3, 4, 5, 6, 7, 8}

// vectors are messages as docs/protocol/07 has them.
var vectors = []struct {
	name, hex string
	want      message
}{
	{"datagram", "40 0102030405060708 05 68656c6c6f", message{kind: kindDatagram, number: 5, data: []byte("hello")}},
	{"empty datagram", "40 0102030405060708 00", message{kind: kindDatagram, data: []byte{}}},
	{"large flow", "40 0102030405060708 ffffffffffffffffff01 00", message{kind: kindDatagram, number: 1<<64 - 1, data: []byte{0}}},
	{"mark", "41 0102030405060708 ac02", message{kind: kindMark, number: 300}},
	{"mark with a field that nobody knows", "41 0102030405060708 01 07 02 aabb 08 00", message{kind: kindMark, number: 1}},
	{"marked", "42 0102030405060708 ac02", message{kind: kindMarked, number: 300}},
	{"end", "43 0102030405060708 09 02", message{kind: kindEnd, number: 9, reason: ReasonLimit}},
	{"end of a later version", "43 0102030405060708 09 7f 01 02", message{kind: kindEnd, number: 9, reason: 127}},
}

func unhex(t testing.TB, text string) []byte {
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(text), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		b := unhex(t, v.hex)
		m, err := parse(b)
		if err != nil || m.kind != v.want.kind || m.session != testSession || m.number != v.want.number || m.reason != v.want.reason || !bytes.Equal(m.data, v.want.data) {
			t.Errorf("%s: %+v, %v", v.name, m, err)
		}
	}
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{append(appendHead(nil, kindDatagram, testSession, 5), "hello"...), vectors[0].hex},
		{appendHead(nil, kindMark, testSession, 300), vectors[3].hex},
		{appendHead(nil, kindMarked, testSession, 300), vectors[5].hex},
		{appendEnd(nil, testSession, 9, ReasonLimit), vectors[6].hex},
	} {
		if !bytes.Equal(c.got, unhex(t, c.want)) {
			t.Errorf("%x, want %s", c.got, c.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, text := range []string{
		"", "40", "40 01020304050607", "40 0102030405060708", "40 0102030405060708 80", "40 0102030405060708 ffffffffffffffffffff01",
		"41 0102030405060708", "41 0102030405060708 01 07", "41 0102030405060708 01 07 02 aa", "41 0102030405060708 01 07 ffffffffffffffffff01 aa",
		"43 0102030405060708 09", "44 0102030405060708 09", "00 0102030405060708 09",
	} {
		if m, err := parse(unhex(t, text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %+v, %v", text, m, err)
		}
	}
	head := appendHead(nil, kindDatagram, testSession, 1)
	if _, err := parse(append(head, make([]byte, MaxSize)...)); err != nil {
		t.Error("the largest datagram:", err)
	}
	if _, err := parse(append(head, make([]byte, MaxSize+1)...)); !errors.Is(err, ErrMalformed) {
		t.Error("a larger one was taken")
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		// What it means is the same once it is written again.
		again := appendHead(nil, m.kind, m.session, m.number)
		switch m.kind {
		case kindDatagram:
			again = append(again, m.data...)
		case kindEnd:
			again = appendEnd(nil, m.session, m.number, m.reason)
		}
		n, err := parse(again)
		if err != nil || n.kind != m.kind || n.session != m.session || n.number != m.number || n.reason != m.reason || !bytes.Equal(n.data, m.data) {
			t.Fatalf("%+v became %+v, %v", m, n, err)
		}
	})
}
