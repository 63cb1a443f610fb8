package config

// Bounds on what a text may make the parser and us do. They are far above any sensible configuration; the parser is recursive
// and would overflow the stack, which cannot be recovered from, on a text of brackets.
const (
	maxDepth = 32 // nested collections
	// maxTokens bounds the time: the parser's grows with the square of the number of entries of a collection. It allows for some
	// 1500 resources of three options.
	maxTokens = 20_000
)

type kind int

const (
	null kind = iota
	boolean
	scalar // strings and numbers, kept as written: 1.10 stays 1.10
	sequence
	mapping
)

// value is a value of a configuration: aliases and merge keys of YAML resolved, positions kept. Values are shared by their aliases; do not modify.
type value struct {
	kind    kind
	text    string // scalar: its text; boolean: "true" or "false"
	quoted  bool   // scalar: certainly a string, whatever it looks like
	number  bool   // scalar: written as a number
	items   []*value
	entries []entry
	pos     position
	weight  int
}

type entry struct {
	key   string
	value *value
	pos   position // of the key
}

func (v *value) isScalar() bool { return v.kind <= scalar }

// get returns the value of a key of a mapping, nil if there is none.
func (v *value) get(key string) *value {
	for _, e := range v.entries {
		if e.key == key {
			return e.value
		}
	}
	return nil
}

// document is a configuration as what was read: of nothing it is empty.
func document(s *source, root *value) (*value, error) {
	switch root.kind {
	case null:
		return &value{kind: mapping, pos: root.pos}, nil
	case mapping:
		return root, nil
	}
	return nil, s.errorf(root.pos, "a configuration is a map of keys and values")
}

// again is the error of a key that a mapping has already.
func (s *source) again(e, first entry) error {
	return s.errorf(e.pos, "key %q again, first on line %d", e.key, s.line(first.pos))
}
