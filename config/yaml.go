//go:build !small

package config

import (
	"errors"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on what only YAML has.
const (
	maxMarks = 1024 // anchors, aliases, tags and explicit keys, each of which may nest without brackets
	// maxWeight bounds the values of a document with aliases expanded: one for each value plus one for each 32 bytes of text.
	// A document of MaxText bytes without aliases stays below.
	maxWeight = 3 * MaxText / 4
)

// parse parses the expanded text. An empty document is an empty mapping.
func parse(s *source) (root *value, err error) {
	// The parser is a large third-party one; a panic in it is a bug, but must not take a node down.
	defer func() {
		if r := recover(); r != nil {
			root, err = nil, s.errorf(position{1, 1}, "the YAML parser failed: %v", r)
		}
	}()
	tokens := lexer.Tokenize(string(s.expanded))
	if err := checkTokens(s, tokens); err != nil {
		return nil, err
	}
	// The converter refuses duplicate keys itself, with positions in the text as written.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(s, err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentGroupType {
			continue
		}
		if doc.Body.Type() == ast.DirectiveType {
			return nil, s.errorf(posOf(doc.Body), "YAML directives are not supported")
		}
		if body != nil {
			return nil, s.errorf(posOf(doc.Body), "a second document; a configuration is one")
		}
		body = doc.Body
	}
	if body == nil {
		return &value{kind: mapping, pos: position{1, 1}}, nil
	}
	c := converter{src: s, anchors: map[string]*value{}}
	root, err = c.convert(body, 0)
	if err != nil {
		return nil, err
	}
	return document(s, root)
}

// checkTokens refuses nesting before the recursive parser sees it. Block nesting is bounded by line length and by the
// indentation it costs, except for `- - - -`.
func checkTokens(s *source, tokens token.Tokens) error {
	if len(tokens) > maxTokens {
		return s.errorf(tokenPos(tokens[maxTokens]), "the configuration is too large: more than %d YAML tokens", maxTokens)
	}
	depth, dashes, marks, line := 0, 0, 0, 0
	for _, t := range tokens {
		p := tokenPos(t)
		if p.line != line {
			line, dashes = p.line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			dashes++
		case token.AnchorType, token.AliasType, token.TagType, token.MappingKeyType:
			marks++
		}
		if depth > maxDepth || dashes > maxDepth {
			return s.errorf(p, "nested more than %d deep", maxDepth)
		}
		if marks > maxMarks {
			return s.errorf(p, "more than %d anchors, aliases, tags and explicit keys", maxMarks)
		}
	}
	return nil
}

func syntaxError(s *source, err error) error {
	var ye yaml.Error
	if errors.As(err, &ye) && ye.GetToken() != nil {
		return s.errorf(tokenPos(ye.GetToken()), "%s", strings.TrimSpace(ye.GetMessage()))
	}
	return s.errorf(position{1, 1}, "%s", strings.TrimSpace(err.Error()))
}

func tokenPos(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{t.Position.Line, t.Position.Column}
}

// posOf returns where a node starts. A mapping's own token is the colon of its first entry.
func posOf(n ast.Node) position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return posOf(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return posOf(n.Key)
	}
	if n == nil {
		return position{1, 1}
	}
	return tokenPos(n.GetToken())
}

// converter turns the parser's tree into values.
type converter struct {
	src     *source
	anchors map[string]*value
	weight  int
}

func (c *converter) convert(n ast.Node, depth int) (*value, error) {
	if depth > maxDepth {
		return nil, c.src.errorf(posOf(n), "nested more than %d deep", maxDepth)
	}
	v := &value{pos: posOf(n)}
	var err error
	switch n := n.(type) {
	case nil, *ast.NullNode:
	case *ast.BoolNode:
		v.kind, v.text = boolean, strconv.FormatBool(n.Value)
	case *ast.StringNode:
		v.kind, v.text, v.quoted = scalar, n.Value, true
	case *ast.LiteralNode:
		v.kind, v.text, v.quoted = scalar, n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		v.kind, v.text, v.number = scalar, n.GetToken().Value, true
	case *ast.InfinityNode, *ast.NanNode:
		v.kind, v.text = scalar, n.GetToken().Value
	case *ast.TagNode:
		return c.convertTag(n, depth)
	case *ast.AnchorNode:
		if v, err = c.convert(n.Value, depth+1); err == nil {
			c.anchors[nodeText(n.Name)] = v
		}
		return v, err
	case *ast.AliasNode:
		known := c.anchors[nodeText(n.Value)]
		if known == nil {
			return nil, c.src.errorf(v.pos, "no anchor &%s before this alias", nodeText(n.Value))
		}
		return known, c.charge(v.pos, known.weight)
	case *ast.SequenceNode:
		err = c.sequence(v, n, depth)
	case *ast.MappingNode:
		err = c.mapping(v, n.Values, depth)
	case *ast.MappingValueNode:
		err = c.mapping(v, []*ast.MappingValueNode{n}, depth)
	default:
		err = c.src.errorf(v.pos, "unsupported YAML (%s)", n.Type())
	}
	if err != nil {
		return nil, err
	}
	own := 1 + len(v.text)/32
	v.weight += own
	return v, c.charge(v.pos, own)
}

// charge counts a value against the document's bound. An alias is charged for everything below it.
func (c *converter) charge(p position, weight int) error {
	if c.weight += weight; c.weight > maxWeight {
		return c.src.errorf(p, "the aliases of this document expand to too many values")
	}
	return nil
}

func (c *converter) convertTag(n *ast.TagNode, depth int) (*value, error) {
	v, err := c.convert(n.Value, depth+1)
	if err != nil {
		return nil, err
	}
	switch n.Start.Value {
	case "!!str":
		if v.isScalar() {
			tagged := *v // the value may be shared with an alias
			tagged.kind, tagged.quoted, tagged.number = scalar, true, false
			return &tagged, nil
		}
	case "!!int", "!!float", "!!bool", "!!null", "!!seq", "!!map":
		return v, nil
	}
	return nil, c.src.errorf(tokenPos(n.Start), "unsupported tag %s", n.Start.Value)
}

func (c *converter) sequence(v *value, n *ast.SequenceNode, depth int) error {
	v.kind = sequence
	for _, item := range n.Values {
		iv, err := c.convert(item, depth+1)
		if err != nil {
			return err
		}
		v.items = append(v.items, iv)
		v.weight += iv.weight
	}
	return nil
}

func (c *converter) mapping(v *value, values []*ast.MappingValueNode, depth int) error {
	v.kind = mapping
	index := make(map[string]int, len(values)) // key -> entry; negative for a merged one: ^entry
	for _, mv := range values {
		ev, err := c.convert(mv.Value, depth+1)
		if err != nil {
			return err
		}
		if _, merge := mv.Key.(*ast.MergeKeyNode); merge {
			if err := c.merge(v, ev, index, posOf(mv.Key)); err != nil {
				return err
			}
			continue
		}
		kv, err := c.convert(mv.Key, depth+1)
		if err != nil {
			return err
		}
		if !kv.isScalar() || kv.kind == null || kv.text == "" {
			return c.src.errorf(kv.pos, "a key must be a non-empty text")
		}
		e := entry{key: kv.text, value: ev, pos: kv.pos}
		v.weight += ev.weight
		switch i, known := index[e.key]; {
		case known && i >= 0:
			return c.src.again(e, v.entries[i])
		case known:
			v.entries[^i], index[e.key] = e, ^i
		default:
			index[e.key] = len(v.entries)
			v.entries = append(v.entries, e)
		}
	}
	return nil
}

// merge applies `<<: from`: entries of from (a map, or maps of which the earlier win) that v does not have itself.
func (c *converter) merge(v, from *value, index map[string]int, p position) error {
	maps := from.items
	if from.kind != sequence {
		maps = []*value{from}
	}
	for _, m := range maps {
		if m.kind != mapping {
			return c.src.errorf(p, "<< takes a map or a list of maps")
		}
		for _, e := range m.entries {
			if _, known := index[e.key]; known {
				continue
			}
			index[e.key] = ^len(v.entries)
			v.entries = append(v.entries, e)
			v.weight += e.value.weight
		}
	}
	return nil
}

func nodeText(n ast.Node) string {
	if n == nil || n.GetToken() == nil {
		return ""
	}
	return n.GetToken().Value
}
