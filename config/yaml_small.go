//go:build small

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parse parses the expanded text, which is JSON: this program was built without YAML. An empty document is an empty mapping.
func parse(s *source) (*value, error) {
	r := reader{src: s, dec: json.NewDecoder(bytes.NewReader(s.expanded)), pos: position{1, 1}}
	r.dec.UseNumber()
	r.skip()
	switch {
	case r.at == len(s.expanded):
		return &value{kind: mapping, pos: position{1, 1}}, nil
	case s.expanded[r.at] != '{':
		return nil, s.errorf(r.pos, "a configuration is JSON here: this program was built without YAML")
	}
	root, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if r.skip(); r.at < len(s.expanded) {
		return nil, s.errorf(r.pos, "a second document; a configuration is one")
	}
	return document(s, root)
}

// reader reads values one token after the other, and knows where they are.
type reader struct {
	src    *source
	dec    *json.Decoder
	tokens int
	at     int      // a byte of the expanded text
	pos    position // of it
}

// skip goes to the next token.
func (r *reader) skip() {
	r.walk(int(r.dec.InputOffset()))
	text := r.src.expanded
	end := r.at
	for end < len(text) && strings.IndexByte(" \t\r\n,:", text[end]) >= 0 {
		end++
	}
	r.walk(end)
}

// walk goes to a byte further on.
func (r *reader) walk(to int) {
	for text := r.src.expanded; r.at < to; {
		_, n := utf8.DecodeRune(text[r.at:])
		if r.pos.column++; text[r.at] == '\n' {
			r.pos = position{r.pos.line + 1, 1}
		}
		r.at += n
	}
}

// token returns the next token and where it begins.
func (r *reader) token() (json.Token, position, error) {
	r.skip()
	p := r.pos
	if r.tokens++; r.tokens > maxTokens {
		return nil, p, r.src.errorf(p, "the configuration is too large: more than %d values", maxTokens)
	}
	t, err := r.dec.Token()
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		r.walk(min(int(syntax.Offset)-1, len(r.src.expanded)))
		return nil, p, r.src.errorf(r.pos, "this is not JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.walk(len(r.src.expanded))
		return nil, p, r.src.errorf(r.pos, "this is not JSON: it ends too early")
	case err != nil:
		return nil, p, r.src.errorf(p, "this is not JSON: %v", err)
	}
	return t, p, nil
}

func (r *reader) value(depth int) (*value, error) {
	t, p, err := r.token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, r.src.errorf(p, "nested more than %d deep", maxDepth)
	}
	v := &value{pos: p}
	switch t := t.(type) {
	case bool:
		v.kind, v.text = boolean, strconv.FormatBool(t)
	case json.Number:
		v.kind, v.text, v.number = scalar, t.String(), true
	case string:
		v.kind, v.text, v.quoted = scalar, t, true
	case json.Delim:
		if v.kind = sequence; t == '{' {
			v.kind = mapping
		}
		for index := map[string]int{}; r.dec.More() && err == nil; {
			err = r.element(v, index, depth)
		}
		if err == nil {
			_, _, err = r.token() // the end
		}
	}
	return v, err
}

// element reads what stands next in a collection. index is where the keys of a mapping are.
func (r *reader) element(v *value, index map[string]int, depth int) error {
	if v.kind == sequence {
		item, err := r.value(depth + 1)
		v.items = append(v.items, item)
		return err
	}
	key, p, err := r.token()
	if err != nil {
		return err
	}
	e := entry{pos: p}
	if e.key, _ = key.(string); e.key == "" {
		return r.src.errorf(p, "a key must be a non-empty text")
	}
	if i, known := index[e.key]; known {
		return r.src.again(e, v.entries[i])
	}
	index[e.key] = len(v.entries)
	e.value, err = r.value(depth + 1)
	v.entries = append(v.entries, e)
	return err
}
