package project

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"sallyport/routing/multiaddr"
)

// fields is one JSON object, read field by field: names are compared exactly, unknown ones are ignored, and each error can name the
// field. The first error stays.
type fields struct {
	input string // "ticket" or "project"
	path  string // prefix of the field names in errors, for nested objects
	raw   map[string]json.RawMessage
	err   error
}

func parseObject(input, path string, data []byte) (*fields, error) {
	f := &fields{input: input, path: path}
	if !utf8.Valid(data) {
		return nil, &Error{Input: input, Field: strings.TrimSuffix(path, "."), Reason: ErrInvalid, Problem: "not UTF-8 text"}
	}
	if err := json.Unmarshal(data, &f.raw); err != nil || f.raw == nil {
		return nil, &Error{Input: input, Field: strings.TrimSuffix(path, "."), Reason: ErrInvalid, Problem: "must be a JSON object", Err: jsonError(err)}
	}
	return f, nil
}

// jsonError keeps the position of a syntax error and drops every other text of package json, which names Go types.
func jsonError(err error) error {
	if syntax, ok := err.(*json.SyntaxError); ok {
		return fmt.Errorf("at byte %d: %w", syntax.Offset, err)
	}
	return nil
}

func (f *fields) fail(field, problem string, reason, err error) {
	if f.err == nil {
		f.err = &Error{Input: f.input, Field: f.path + field, Problem: problem, Reason: reason, Err: err}
	}
}

// get returns a field; absent and null are the same.
func (f *fields) get(name, want string, required bool) (json.RawMessage, bool) {
	v, ok := f.raw[name]
	if !ok || bytes.Equal(v, []byte("null")) {
		if required {
			f.fail(name, "missing, it must be "+want, ErrMissing, nil)
		}
		return nil, false
	}
	return v, true
}

// value reads a field into v, which stays untouched if the field is absent. want describes the type for people.
func (f *fields) value(name, want string, required bool, v any) {
	raw, ok := f.get(name, want, required)
	if !ok {
		return
	}
	if json.Unmarshal(raw, v) != nil {
		f.fail(name, "must be "+want, ErrInvalid, nil)
	}
}

func (f *fields) text(name string, required bool) (s string) {
	f.value(name, "text", required, &s)
	return s
}

// route reads a multi-part address; empty text is an absent route.
func (f *fields) route(name string, required bool) string {
	s, err := canonicalRoute(f.text(name, required))
	if err != nil {
		f.fail(name, routeProblem, ErrInvalid, err)
	}
	return s
}

const routeProblem = "must be a route such as /dnsaddr/example.org/tcp/4000/service/api"

func canonicalRoute(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	a, err := multiaddr.Parse(s)
	if err != nil {
		return "", err
	}
	return a.String(), nil
}

// objects reads an array of objects.
func (f *fields) objects(name string, each func(*fields)) {
	var items []json.RawMessage
	f.value(name, "an array of objects", true, &items)
	for i, item := range items {
		path := fmt.Sprintf("%s%s[%d].", f.path, name, i)
		o, err := parseObject(f.input, path, item)
		if err == nil {
			each(o)
			err = o.err
		}
		if err != nil {
			if f.err == nil {
				f.err = err
			}
			return
		}
	}
}
