package httpheader

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Field is a header field to set.
type Field struct {
	Name, Value string
}

// ParseField reads NAME:VALUE. White space around the value is dropped. Names that say where a request ends are refused: to set them
// would be to tear requests apart.
func ParseField(text string) (Field, error) {
	name, value, found := strings.Cut(text, ":")
	f := Field{Name: name, Value: strings.Trim(value, " \t")}
	switch {
	case !found:
		return f, errors.New("it must be NAME:VALUE")
	case !isToken([]byte(name)):
		return f, fmt.Errorf("%q is not a header name", name)
	case f.Value == "":
		return f, fmt.Errorf("the value of %s is empty", name)
	case !isValue([]byte(f.Value)):
		return f, fmt.Errorf("the value of %s has control characters", name)
	}
	switch canonical([]byte(name)) {
	case "content-length", "transfer-encoding", "trailer", "upgrade", "connection", "http2-settings":
		return f, fmt.Errorf("%s belongs to the connection and cannot be set", name)
	}
	return f, nil
}

// canonical is a name as it is compared: in lower case, with "-" for "_".
func canonical(name []byte) string {
	b := bytes.ToLower(name)
	for i, c := range b {
		if c == '_' {
			b[i] = '-'
		}
	}
	return string(b)
}

// isToken reports whether b is a token (RFC 9110 §5.6.2).
func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenChars[c] {
			return false
		}
	}
	return len(b) > 0
}

var tokenChars = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] = true
	}
	return t
}()

// isValue reports whether b may be a field's value: no control characters but tabs.
func isValue(b []byte) bool {
	for _, c := range b {
		if (c < ' ' && c != '\t') || c == 0x7f {
			return false
		}
	}
	return true
}

// line is a field as it came.
type line struct{ name, value []byte }

// splitLines takes the lines of a head or trailer section apart, up to the empty one; they end in CRLF or LF.
func splitLines(b []byte) [][]byte {
	var lines [][]byte
	for len(b) > 0 {
		l, rest, _ := bytes.Cut(b, []byte{'\n'})
		l = bytes.TrimSuffix(l, []byte{'\r'})
		if len(l) == 0 {
			break
		}
		lines, b = append(lines, l), rest
	}
	return lines
}

// parseFields reads the field lines of a head or trailer section.
func parseFields(lines [][]byte) ([]line, error) {
	fields := make([]line, 0, len(lines))
	for _, l := range lines {
		name, value, found := bytes.Cut(l, []byte{':'})
		value = bytes.Trim(value, " \t")
		switch {
		case l[0] == ' ' || l[0] == '\t':
			return nil, refuse(400, "a header line is folded")
		case !found || !isToken(name):
			return nil, refuse(400, "a header line has no name")
		case !isValue(value):
			return nil, refuse(400, "a header has control characters")
		}
		fields = append(fields, line{name, value})
	}
	return fields, nil
}

// framing says where the body of a message with these fields ends: after length bytes, after its last chunk, or, with neither, where the
// kind of message says.
type framing struct {
	chunked bool
	length  int64 // -1 if not given
}

// bodyOf reads the framing; two statements of it are one too many (RFC 9112 §6.3). One that is spelled with "_" is a statement for some servers and
// none for others, so what follows it would be a body for these and a request for those.
func bodyOf(fields []line) (framing, error) {
	f := framing{length: -1}
	codings := 0
	for _, h := range fields {
		name := canonical(h.name)
		if (name == "content-length" || name == "transfer-encoding") && bytes.IndexByte(h.name, '_') >= 0 {
			return f, refuse(400, "a length is spelled with _")
		}
		switch name {
		case "content-length":
			n, ok := parseUint(h.value, 10)
			if !ok || f.length >= 0 {
				return f, refuse(400, "Content-Length is not one number")
			}
			f.length = n
		case "transfer-encoding":
			for _, coding := range bytes.Split(h.value, []byte{','}) {
				coding = bytes.Trim(coding, " \t")
				if !isToken(coding) || f.chunked { // chunked is the last one, once
					return f, refuse(400, "Transfer-Encoding is not clear")
				}
				f.chunked = bytes.EqualFold(coding, []byte("chunked"))
				codings++
			}
		}
	}
	switch {
	case codings > 0 && !f.chunked:
		return f, refuse(400, "Transfer-Encoding does not end in chunked")
	case codings > 0 && f.length >= 0:
		return f, refuse(400, "both Content-Length and Transfer-Encoding")
	}
	return f, nil
}

// parseUint reads digits alone, without sign or white space, up to 2^60.
func parseUint(b []byte, base int64) (n int64, ok bool) {
	for _, c := range b {
		d := int64(-1)
		switch {
		case c >= '0' && c <= '9':
			d = int64(c - '0')
		case base == 16 && c|0x20 >= 'a' && c|0x20 <= 'f':
			d = int64(c|0x20-'a') + 10
		}
		if d < 0 || n > (1<<60)/base {
			return 0, false
		}
		n = n*base + d
	}
	return n, len(b) > 0
}

// chunkSize reads the line before a chunk; it must end in CRLF. Extensions are allowed.
func chunkSize(l []byte) (int64, bool) {
	l, found := bytes.CutSuffix(l, []byte("\r\n"))
	size, extension, _ := bytes.Cut(l, []byte{';'})
	n, ok := parseUint(bytes.TrimRight(size, " \t"), 16)
	return n, found && ok && isValue(extension)
}
