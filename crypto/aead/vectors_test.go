package aead

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// vector is one case of a published collection.
type vector struct {
	name                               string
	key, nonce, ad, message, text, tag []byte
	valid                              bool
}

// check runs v through Seal and Open. An invalid vector says only that Open must refuse it.
func (v *vector) check(t *testing.T) {
	t.Helper()
	var k Key
	k.Init((*[KeySize]byte)(v.key))
	nonce := (*[NonceSize]byte)(v.nonce)
	sealed := append(bytes.Clone(v.text), v.tag...)
	out := bytes.Repeat([]byte{0x5a}, len(v.text))
	err := k.Open(out, nonce, sealed, v.ad)
	if !v.valid {
		if err == nil {
			t.Errorf("%s: a forgery was opened", v.name)
		}
		if !released(out) {
			t.Errorf("%s: output of a failed Open: %x", v.name, out)
		}
		return
	}
	if err != nil || !bytes.Equal(out, v.message) {
		t.Errorf("%s: Open gave %x, %v, want %x", v.name, out, err, v.message)
	}
	again := make([]byte, len(sealed))
	k.Seal(again, nonce, v.message, v.ad)
	if !bytes.Equal(again, sealed) {
		t.Errorf("%s: Seal gave %x, want %x", v.name, again, sealed)
	}
}

// released reports whether out, filled with 0x5a before an Open that failed, is as it should be: zeroed or untouched.
func released(out []byte) bool {
	return bytes.Count(out, []byte{0}) == len(out) || bytes.Count(out, []byte{0x5a}) == len(out)
}

func TestWycheproof(t *testing.T) {
	text, err := os.ReadFile("testdata/aes_gcm_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			KeySize, IvSize, TagSize int
			Tests                    []struct {
				TcID                       int
				Key, Iv, Aad, Msg, Ct, Tag string
				Result, Comment            string
			}
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	for _, g := range file.TestGroups {
		if g.KeySize != 8*KeySize || g.IvSize != 8*NonceSize || g.TagSize != 8*Overhead {
			continue
		}
		for _, c := range g.Tests {
			vectors = append(vectors, vector{name: c.Comment, key: unhex(t, c.Key), nonce: unhex(t, c.Iv), ad: unhex(t, c.Aad),
				message: unhex(t, c.Msg), text: unhex(t, c.Ct), tag: unhex(t, c.Tag), valid: c.Result == "valid"})
		}
	}
	if len(vectors) != 66 {
		t.Errorf("%d vectors, want 66", len(vectors))
	}
	eachKernel(t, func(t *testing.T) {
		for i := range vectors {
			vectors[i].check(t)
		}
	})
}

func TestCAVP(t *testing.T) {
	for _, file := range []string{"gcmEncryptExtIV256", "gcmDecrypt256"} {
		vectors := readCAVP(t, "testdata/"+file+".rsp.gz")
		if len(vectors) != 375 {
			t.Errorf("%s: %d vectors, want 375", file, len(vectors))
		}
		t.Run(file, func(t *testing.T) {
			eachKernel(t, func(t *testing.T) {
				for i := range vectors {
					vectors[i].check(t)
				}
			})
		})
	}
}

// readCAVP reads a response file: cases of "Name = hex" lines, divided by empty lines, and FAIL for a forgery.
func readCAVP(t *testing.T, file string) (vectors []vector) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var v *vector
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " = ")
		switch name {
		case "Count":
			vectors = append(vectors, vector{name: value, valid: true})
			v = &vectors[len(vectors)-1]
		case "Key":
			v.key = unhex(t, value)
		case "IV":
			v.nonce = unhex(t, value)
		case "AAD":
			v.ad = unhex(t, value)
		case "PT":
			v.message = unhex(t, value)
		case "CT":
			v.text = unhex(t, value)
		case "Tag":
			v.tag = unhex(t, value)
		case "FAIL":
			v.valid = false
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return vectors
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
