package pkcs11

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"sallyport/crypto/vault/program"
)

func TestParseURI(t *testing.T) {
	for text, want := range map[string]URI{
		"pkcs11:":        {},
		"PKCS11:token=a": {Token: "a"},
		"pkcs11:token=My%20token%3b;object=k;id=%00%ff": {Token: "My token;", Object: "k", ID: []byte{0, 0xff}},
		"pkcs11:serial=1;model=m;manufacturer=x;slot-id=7;type=private?module-name=softhsm2&pin-source=file:/run/pin": {
			Serial: "1", Model: "m", Manufacturer: "x", SlotID: "7", ModuleName: "softhsm2", PINSource: "/run/pin"},
		"pkcs11:?module-path=/usr/lib/m.so": {ModulePath: "/usr/lib/m.so"},
	} {
		got, err := ParseURI(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := ParseURI(got.String()); err != nil || !reflect.DeepEqual(got, again) {
			t.Errorf("%s is written as %s: %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "pkcs11", "token=a", "pkcs11:token", "pkcs11:=a", "pkcs11:token=a;token=b", "pkcs11:tokem=a", "pkcs11:token=%zz", "pkcs11:token=%00",
		"pkcs11:token=a?pin-value=1234", "pkcs11:?module-path=m.so", "pkcs11:?module-name=../m", "pkcs11:?pin-source=|cat", "pkcs11:type=cert", "pkcs11:slot-id=x",
		"pkcs11:?module-path=/m.so&module-name=m", "pkcs11:?x-vendor=1", "pkcs11:token=" + strings.Repeat("a", maxURI),
	} {
		if u, err := ParseURI(text); !errors.Is(err, ErrURI) {
			t.Errorf("%q: %+v, %v", text, u, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=My%20token;object=k;id=%00%ff?module-name=softhsm2&pin-source=file:/run/pin")
	f.Add("pkcs11:token=" + strings.Repeat(" ", maxURI/2)) // a bare space is written in three bytes
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURI(text)
		if err != nil {
			return
		}
		if again, err := ParseURI(u.String()); err != nil || again.String() != u.String() {
			t.Errorf("%q is written as %q: %v", text, u, err)
		}
	})
}

func FuzzReadMessage(f *testing.F) {
	var b bytes.Buffer
	_ = program.WriteMessage(&b, Request{Op: OpFind, Label: "k"})
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		_ = program.ReadMessage(bytes.NewReader(b), &r)
		var resp Response
		_ = program.ReadMessage(bytes.NewReader(b), &resp)
	})
}
