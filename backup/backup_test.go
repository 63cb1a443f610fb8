package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"sallyport/crypto/vault"
	"sallyport/state"
)

var key = vault.Secret{Bytes: bytes.Repeat([]byte("k"), 32), Random: true}

func manifest() Manifest {
	return Manifest{Program: "1", Made: time.Unix(1000, 0).UTC(), From: "/home/x", Elsewhere: []state.Elsewhere{{What: "the keys of vault \"hsm\"", At: "pkcs11:token=t"}}}
}

// write makes a backup with some files.
func write(t testing.TB, s vault.Secret, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, s, manifest())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := w.Add(name, int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read returns the files of a backup.
func read(b []byte, s vault.Secret) (m Manifest, files map[string]string, err error) {
	r, err := Open(bytes.NewReader(b), int64(len(b)), s)
	if err != nil {
		return m, nil, err
	}
	files = map[string]string{}
	return r.Manifest, files, r.Each(func(name string, size int64, r io.Reader) error {
		text, err := io.ReadAll(r)
		if int64(len(text)) != size && err == nil {
			return fmt.Errorf("%s: %d of %d bytes", name, len(text), size)
		}
		files[name] = string(text)
		return err
	})
}

func TestRoundTrip(t *testing.T) {
	files := map[string]string{"identities.json": "{}", "vaults/default/key": strings.Repeat("secret", 40_000), "empty": ""}
	for _, s := range []vault.Secret{key, {Bytes: []byte("a passphrase")}} {
		b := write(t, s, files)
		m, got, err := read(b, s)
		if err != nil || len(got) != len(files) || m.From != "/home/x" || !m.Made.Equal(time.Unix(1000, 0)) || len(m.Elsewhere) != 1 {
			t.Fatalf("%+v, %d files, %v", m, len(got), err)
		}
		for name, text := range files {
			if got[name] != text {
				t.Errorf("%s differs", name)
			}
		}
		if bytes.Contains(b, []byte("secretsecret")) || bytes.Contains(b, []byte("identities")) {
			t.Error("it can be read without its secret")
		}
	}
}

// TestSecrets: what does not open a backup.
func TestSecrets(t *testing.T) {
	b := write(t, key, nil)
	other := vault.Secret{Bytes: bytes.Repeat([]byte("x"), 32), Random: true}
	for _, c := range []struct {
		secret vault.Secret
		err    error
	}{{other, ErrSecret}, {vault.Secret{Bytes: []byte("passphrase")}, ErrSecret}, {vault.Secret{Bytes: []byte("short"), Random: true}, vault.ErrKey}, {vault.Secret{}, vault.ErrKey}} {
		if _, _, err := read(b, c.secret); !errors.Is(err, c.err) {
			t.Errorf("%q: %v, not %v", c.secret.Bytes, err, c.err)
		}
		if _, err := NewWriter(io.Discard, c.secret, Manifest{}); errors.Is(c.err, vault.ErrKey) && !errors.Is(err, vault.ErrKey) {
			t.Errorf("%q: %v", c.secret.Bytes, err)
		}
	}
	if kind, err := Kind(bytes.NewReader(b), int64(len(b))); kind != "key" || err != nil {
		t.Errorf("%q, %v", kind, err)
	}
}

// known reports whether an error has one of the classes of this package.
func known(err error) bool {
	return errors.Is(err, ErrFormat) || errors.Is(err, ErrVersion) || errors.Is(err, ErrSecret) || errors.Is(err, ErrDamaged)
}

// TestDamage: a backup that was cut anywhere, or of which any byte was changed, is refused, with an error that has its class.
func TestDamage(t *testing.T) {
	whole := write(t, key, map[string]string{"a": "content", "b/c": "more"})
	for n := range whole {
		if n > 250 && n%5 != 0 && n < len(whole)-20 { // behind the headers, where each costs scrypt
			continue
		}
		if _, _, err := read(whole[:n], key); !known(err) {
			t.Errorf("cut at %d of %d: %v", n, len(whole), err)
		}
		changed := bytes.Clone(whole)
		changed[n] ^= 0x04
		if _, _, err := read(changed, key); !known(err) {
			t.Errorf("byte %d changed: %v", n, err)
		}
	}
	if _, _, err := read(append(bytes.Clone(whole), 0), key); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte more: %v", err)
	}
	later := bytes.Replace(whole, []byte("backup 1 "), []byte("backup 2 "), 1)
	if _, _, err := read(later, key); !errors.Is(err, ErrVersion) {
		t.Errorf("a later version: %v", err)
	}
	for _, text := range []string{"", "x", "hello\n", "sallyport backup 0 key\n", "sallyport backup 1 rot13\n", "sallyport backup 1 key\n", strings.Repeat("a", 1000)} {
		if _, _, err := read([]byte(text), key); !known(err) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// archive encrypts an archive that this package does not make.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%d key\n", magic, Version)
	_, text, err := passphrase(key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.NewScryptRecipient(text)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(keyWork)
	out, err := age.Encrypt(&b, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(packed(t, headers...)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packed is an archive with files whose content is zeros.
func packed(t testing.TB, headers ...tar.Header) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		content := make([]byte, h.Size)
		if h.Name == manifestName {
			content = []byte("{}")
			h.Size = 2
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestStrangeArchives: whoever knows the passphrase can make any archive; nothing but regular files with plain names comes out of it.
func TestStrangeArchives(t *testing.T) {
	first := tar.Header{Typeflag: tar.TypeReg, Name: manifestName}
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 3} }
	if _, files, err := read(archive(t, first, file("a/b")), key); err != nil || len(files) != 1 {
		t.Fatalf("%v, %v: the archives of this test cannot be read", files, err)
	}
	for what, headers := range map[string][]tar.Header{
		"no manifest":     {file("a")},
		"nothing":         {},
		"absolute":        {first, file("/etc/passwd")},
		"parent":          {first, file("../x")},
		"parent within":   {first, file("a/../../x")},
		"dot":             {first, file("./a")},
		"two slashes":     {first, file("a//b")},
		"backslash":       {first, file(`a\..\b`)},
		"newline":         {first, file("a\nb")},
		"long":            {first, file(strings.Repeat("a", maxName+1))},
		"twice":           {first, file("a"), file("a")},
		"directory":       {first, {Typeflag: tar.TypeDir, Name: "a/"}},
		"symbolic link":   {first, {Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/etc"}},
		"hard link":       {first, {Typeflag: tar.TypeLink, Name: "a", Linkname: "/etc/passwd"}},
		"device":          {first, {Typeflag: tar.TypeChar, Name: "a"}},
		"second manifest": {first, first},
	} {
		if _, files, err := read(archive(t, headers...), key); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, %v", what, files, err)
		}
	}
	w, err := NewWriter(io.Discard, key, Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add("../x", 0, strings.NewReader("")); !errors.Is(err, ErrFormat) {
		t.Errorf("%v", err)
	}
}

// FuzzOpen reads files that anybody may have written.
func FuzzOpen(f *testing.F) {
	whole := write(f, key, map[string]string{"a": "content"})
	f.Add(whole)
	f.Add(whole[:30])
	f.Add([]byte("sallyport backup 1 passphrase\nage-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 30\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Contains(b, []byte("scrypt")) && !bytes.Contains(b, []byte(" 10\n")) {
			return // takes long, as it says
		}
		if _, _, err := read(b, key); err != nil && !known(err) {
			t.Error(err)
		}
	})
}

// FuzzArchive reads archives that whoever knows the secret may have written.
func FuzzArchive(f *testing.F) {
	first := tar.Header{Typeflag: tar.TypeReg, Name: manifestName}
	f.Add(packed(f, first, tar.Header{Typeflag: tar.TypeReg, Name: "a/b", Size: 10}))
	f.Add(packed(f, first, tar.Header{Typeflag: tar.TypeReg, Name: "../b", Size: 10}))
	f.Add(packed(f, first, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &Reader{plain: bytes.NewReader(b), size: int64(len(b))}
		seen := map[string]bool{}
		_ = r.Each(func(name string, size int64, r io.Reader) error {
			at := filepath.Join("/root/dir", filepath.FromSlash(name))
			if !filepath.IsLocal(name) || seen[at] || !strings.HasPrefix(at, "/root/dir/") || size < 0 {
				t.Errorf("%q leads out, or is there twice", name)
			}
			seen[at] = true
			return nil
		})
	})
}
