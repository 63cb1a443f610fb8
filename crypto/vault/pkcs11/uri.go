// Package pkcs11 keeps signing keys in a PKCS#11 token. The token's module is loaded by another program, sallyport-pkcs11, so that no foreign code
// runs in the process with the channels; this package has the URIs that name tokens (RFC 7512), the messages between the two, and the vault.
package pkcs11

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// ErrURI reports a URI that does not name a token.
var ErrURI = errors.New("pkcs11: bad URI")

// maxURI bounds a URI, in bytes.
const maxURI = 4096

// URI names a token, and perhaps an object in it. An empty attribute matches whatever there is.
type URI struct {
	Token, Manufacturer, Serial, Model string
	SlotID                             string // decimal
	// Object is a key's label, ID its CKA_ID.
	Object string
	ID     []byte
	// ModulePath is absolute; ModuleName is what a module is called without prefix and suffix.
	ModulePath, ModuleName string
	// PINSource is a file's absolute path.
	PINSource string
}

// ParseURI reads a pkcs11: URI (RFC 7512). Attributes that are unknown, given twice or not of use for a token are refused: what was meant by
// them would not be done. A PIN in the URI is refused too, since URIs are written down.
func ParseURI(text string) (u URI, err error) {
	fail := func(format string, args ...any) (URI, error) {
		return URI{}, fmt.Errorf("%w: %w", ErrURI, fmt.Errorf(format, args...))
	}
	if len(text) > maxURI {
		return fail("longer than %d bytes", maxURI)
	}
	rest, ok := cutScheme(text)
	if !ok {
		return fail("it must begin with pkcs11:")
	}
	path, query, _ := strings.Cut(rest, "?")
	seen := map[string]bool{}
	each := func(list, sep string, set func(name, value string) error) error {
		if list == "" {
			return nil
		}
		for _, pair := range strings.Split(list, sep) {
			name, raw, ok := strings.Cut(pair, "=")
			if !ok || name == "" {
				return fmt.Errorf("%q is no attribute", pair)
			}
			if seen[sep+name] {
				return fmt.Errorf("%s is given twice", name)
			}
			seen[sep+name] = true
			value, err := url.PathUnescape(raw)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if name != "id" && strings.ContainsRune(value, 0) {
				return fmt.Errorf("%s has a zero byte", name)
			}
			if err := set(name, value); err != nil {
				return err
			}
		}
		return nil
	}
	err = each(path, ";", func(name, value string) error {
		switch name {
		case "token":
			u.Token = value
		case "manufacturer":
			u.Manufacturer = value
		case "serial":
			u.Serial = value
		case "model":
			u.Model = value
		case "slot-id":
			if value == "" || strings.Trim(value, "0123456789") != "" || len(value) > 18 {
				return fmt.Errorf("slot-id %q is no number", value)
			}
			u.SlotID = value
		case "object":
			u.Object = value
		case "id":
			u.ID = []byte(value)
		case "type":
			if value != "private" && value != "public" {
				return fmt.Errorf("type %q: keys here are private", value)
			}
		default:
			return fmt.Errorf("attribute %q is unknown", name)
		}
		return nil
	})
	if err != nil {
		return fail("%w", err)
	}
	err = each(query, "&", func(name, value string) error {
		switch name {
		case "module-path":
			if !filepath.IsAbs(value) {
				return fmt.Errorf("module-path %q is not absolute", value)
			}
			u.ModulePath = value
		case "module-name":
			if value == "" || strings.ContainsAny(value, "/\x00") {
				return fmt.Errorf("module-name %q is no name", value)
			}
			u.ModuleName = value
		case "pin-source":
			value = strings.TrimPrefix(strings.TrimPrefix(value, "file://"), "file:")
			if !filepath.IsAbs(value) {
				return fmt.Errorf("pin-source %q is not the absolute path of a file", value)
			}
			u.PINSource = value
		case "pin-value":
			return errors.New("a PIN in a URI is written down with it: put it into a file (--pin-file, pin-source)")
		default:
			return fmt.Errorf("attribute %q is unknown", name)
		}
		return nil
	})
	if err != nil {
		return fail("%w", err)
	}
	if u.ModulePath != "" && u.ModuleName != "" {
		return fail("module-path and module-name say the same twice")
	}
	// What is kept is the URI as String writes it, with more bytes escaped: that text must be readable again.
	if n := len(u.String()); n > maxURI {
		return fail("%d bytes once its bytes are escaped, of at most %d", n, maxURI)
	}
	return u, nil
}

func cutScheme(text string) (string, bool) {
	if len(text) < 7 || !strings.EqualFold(text[:7], "pkcs11:") {
		return "", false
	}
	return text[7:], true
}

// String returns the URI, as ParseURI reads it.
func (u URI) String() string {
	var path, query []string
	add := func(list *[]string, name, value string) {
		if value != "" {
			*list = append(*list, name+"="+escape(value))
		}
	}
	add(&path, "token", u.Token)
	add(&path, "manufacturer", u.Manufacturer)
	add(&path, "serial", u.Serial)
	add(&path, "model", u.Model)
	add(&path, "slot-id", u.SlotID)
	add(&path, "object", u.Object)
	add(&path, "id", string(u.ID))
	add(&query, "module-path", u.ModulePath)
	add(&query, "module-name", u.ModuleName)
	add(&query, "pin-source", u.PINSource)
	text := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		text += "?" + strings.Join(query, "&")
	}
	return text
}

// escape keeps what RFC 7512 allows in every place and encodes the rest.
func escape(value string) string {
	var b strings.Builder
	for _, c := range []byte(value) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~:[]@!$'()*+,=/", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
	}
	return b.String()
}

// moduleDirs are where distributions put modules.
var moduleDirs = []string{
	"/usr/lib/x86_64-linux-gnu/pkcs11", "/usr/lib/aarch64-linux-gnu/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/pkcs11",
	"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/usr/lib/softhsm", "/usr/local/lib/softhsm",
}

// Module returns the path of the module.
func (u URI) Module() (string, error) {
	if u.ModulePath != "" {
		if _, err := os.Stat(u.ModulePath); err != nil {
			return "", fmt.Errorf("the PKCS#11 module: %w", err)
		}
		return u.ModulePath, nil
	}
	name := u.ModuleName
	if name == "" {
		name = "p11-kit-proxy"
	}
	for _, dir := range moduleDirs {
		for _, file := range []string{name + ".so", "lib" + name + ".so"} {
			path := filepath.Join(dir, file)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("there is no PKCS#11 module %s: name the token's with ?module-path=/path/to/module.so", name)
}
