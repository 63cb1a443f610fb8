package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// variables resolves names in the reference's order: command line, environment, the file's variables section.
type variables struct {
	flags map[string]string
	env   func(string) (string, bool)
	file  map[string]string
}

func (v *variables) lookup(name string) (string, bool) {
	if value, ok := v.flags[name]; ok {
		return value, true
	}
	if v.env != nil {
		if value, ok := v.env(name); ok {
			return value, true
		}
	}
	value, ok := v.file[name]
	return value, ok
}

// effective returns the variables of the file and of the command line with the values in effect.
func (v *variables) effective() map[string]string {
	all := make(map[string]string, len(v.file)+len(v.flags))
	for name := range v.file {
		all[name], _ = v.lookup(name)
	}
	maps.Copy(all, v.flags)
	return all
}

// readVariables reads the variables section of the unexpanded text. The rest of that text need not be YAML yet (`[${A}]` is
// not): when it cannot be parsed as a whole, the lines of the section are parsed alone.
func readVariables(s *source, opt Options) (*variables, error) {
	v := &variables{flags: opt.Variables, env: opt.Lookup, file: map[string]string{}}
	root, err := parse(s)
	if err != nil {
		section, ok := variablesLines(s.written)
		if !ok {
			// Without such lines the section, if any, is somewhere in flow style. Ignoring it would end in a misleading
			// "undefined variable", so its syntax error is the one to show.
			if bytes.Contains(s.written, []byte("variables")) {
				return nil, err
			}
			return v, nil
		}
		part := &source{written: s.written, breaks: s.breaks}
		part.setExpanded(section, []splice{{}})
		if root, err = parse(part); err != nil {
			return nil, err
		}
	}
	section := root.get("variables")
	if section == nil || section.kind == null {
		return v, nil
	}
	if section.kind != mapping {
		return nil, s.errorf(section.pos, "variables must be a map of names and values")
	}
	for _, e := range section.entries {
		switch {
		case !isVariableName(e.key):
			return nil, s.errorf(e.pos, "%q is not a variable name: letters, digits and _ only, no digit first", e.key)
		case !e.value.isScalar():
			return nil, s.errorf(e.value.pos, "variable %s must be a single value", e.key)
		case e.value.kind == null || e.value.text == "":
			return nil, s.errorf(e.pos, "variable %s has no value", e.key)
		}
		v.file[e.key] = e.value.text
	}
	return v, nil
}

// variablesLines returns text with blanks for everything but the lines of a block style variables section at the top level, so
// that a byte has the same position in both.
func variablesLines(text []byte) ([]byte, bool) {
	out := make([]byte, 0, len(text))
	found, inside := false, false
	for line := range bytes.SplitAfterSeq(text, []byte("\n")) {
		if len(line) > 0 && !bytes.ContainsAny(line[:1], " \t\n#") {
			inside = bytes.HasPrefix(line, []byte("variables:")) && !found
			found = found || inside
		}
		if inside {
			out = append(out, line...)
			continue
		}
		body := bytes.TrimSuffix(line, []byte("\n"))
		out = append(out, bytes.Repeat([]byte(" "), len(body))...)
		out = append(out, line[len(body):]...)
	}
	return out, found
}

func isVariableName(s string) bool { return s != "" && nameLen(s) == len(s) }

// nameLen returns the length of the variable name at the start of s, 0 if there is none.
func nameLen[T string | []byte](s T) int {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

// expand replaces the references to variables in the written text. `$$` is a dollar sign; a dollar sign before anything else
// that cannot be a reference stands for itself. Values are inserted as they are, not expanded again, but for a text of several
// lines that is all of a value: that is inserted in quotes. Lines that are only a comment are left alone: a commented-out example
// must not need its variables.
func (s *source) expand(lookup func(string) (string, bool)) error {
	text := s.written
	var out bytes.Buffer
	splices := []splice{{}}
	lineStart := true
	open, inText := 0, -1 // brackets, and the indentation of what has a text whose lines stand as they are written; -1 outside of one
	for i := 0; i < len(text); {
		if lineStart {
			lineStart = false
			line, _, _ := bytes.Cut(text[i:], []byte("\n"))
			if in := indentOf(line); in <= inText && in < len(line) {
				inText = -1
			}
			if inText < 0 && bytes.ContainsAny(line, "|>") {
				if m := textStart.FindSubmatch(line); m != nil {
					inText = len(m[1])
				}
			}
			if rest := bytes.TrimLeft(text[i:], " \t"); len(rest) > 0 && rest[0] == '#' {
				end := bytes.IndexByte(text[i:], '\n')
				if end < 0 {
					end = len(text) - i
				}
				out.Write(text[i : i+end])
				i += end
				continue
			}
		}
		c := text[i]
		if c != '$' {
			lineStart = c == '\n'
			switch c {
			case '{', '[':
				open++
			case '}', ']':
				open--
			}
			out.WriteByte(c)
			i++
			continue
		}
		value, n, err := s.reference(i, lookup)
		if err != nil {
			return err
		}
		name := bytes.Trim(text[i+1:i+n], "{}")
		hide := func() {
			if n > 2 {
				s.hide(string(name[:nameLen(name)]), value)
			}
		}
		hide()
		if strings.Contains(value, "\n") && len(value) <= MaxText && inText < 0 && s.isText(i, n, value, open > 0) {
			value = quoted(value)
			hide()
		}
		if out.Len()+len(value)+len(text)-i-n > MaxText {
			return s.errorAtByte(i, fmt.Sprintf("with its variables the configuration has more than %d bytes", MaxText))
		}
		splices = append(splices, splice{out: out.Len(), in: i, fixed: true})
		out.WriteString(value)
		i += n
		splices = append(splices, splice{out: out.Len(), in: i})
	}
	s.setExpanded(out.Bytes(), splices)
	return nil
}

var (
	// blockPlace matches a line before the value of a key or of a list's entry in block style; what is before that key or dash is captured.
	blockPlace = regexp.MustCompile(`^((?: *- +)* *)(?:\S.*:|-)[ \t]+$`)
	// blockRest matches what may stand in the line after it.
	blockRest = regexp.MustCompile(`^[ \t]*(?:$|[ \t]#)`)
	// flowPlace and flowRest are that of a value in brackets; what is before it is captured.
	flowPlace = regexp.MustCompile(`(:[ \t]|[[{,])[ \t]*$`)
	flowRest  = regexp.MustCompile(`^[ \t]*(?:$|[ \t]#|[\]},])`)
	// textStart matches a line below which a text begins whose lines stand as they are written and are indented further than what is captured.
	textStart = regexp.MustCompile(`^((?: *- +)* *?)(?:- +|\S.*[:-]\s+)(?:[!&]\S*\s+)*[|>][-+0-9]*\s*(?:#.*)?$`)
)

// isText reports whether a value of several lines is a text, such as a ticket that a mail program has folded, where it takes the place of the n
// bytes at byte at of the written text, in brackets or not: those are all of a value, and it is no list, map or text in YAML's own writing.
func (s *source) isText(at, n int, value string, inBrackets bool) bool {
	start := bytes.LastIndexByte(s.written[:at], '\n') + 1
	before := s.written[start:at]
	after, _, _ := bytes.Cut(s.written[at+n:], []byte("\n"))
	if bytes.Contains(before, []byte(" #")) {
		return false
	}
	// Whether it can be read as it is is seen in a place of the same kind and indentation.
	flow, block := flowPlace.FindSubmatch(before), blockPlace.FindSubmatch(before)
	var text string
	switch {
	case inBrackets && flow != nil && flowRest.Match(after) && flow[1][0] == ':':
		text = "{b: " + value + "}"
	case inBrackets && flow != nil && flowRest.Match(after):
		text = "{b: [ " + value + "]}"
	case block != nil && blockRest.Match(after) && len(block[1]) == 0:
		text = "b: " + value
	case block != nil && blockRest.Match(after):
		text = "a:\n" + string(bytes.Repeat([]byte(" "), len(block[1]))) + "b: " + value
	default:
		return false
	}
	like, err := newSource([]byte(text))
	if err != nil {
		return false // what is wrong with it is told of where it stands
	}
	v, err := parse(like)
	if err != nil {
		return true
	}
	if a := v.get("a"); a != nil && text[0] == 'a' {
		v = a
	}
	if v.kind != mapping || len(v.entries) != 1 {
		return !inBrackets // it would bring keys of its own into the map around it
	}
	if v = v.entries[0].value; strings.HasPrefix(text, "{b: [ ") && len(v.items) == 1 {
		v = v.items[0]
	}
	return v.kind == scalar && !strings.ContainsAny(value[:1], "\"'|>!&*\n ")
}

// quoted writes a text in double quotes, on one line.
func quoted(text string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // a text always can be
	return strings.TrimSuffix(b.String(), "\n")
}

// reference returns the value of the reference at byte at, which holds a dollar sign, and the reference's length.
func (s *source) reference(at int, lookup func(string) (string, bool)) (value string, n int, err error) {
	text := s.written[at+1:]
	if len(text) > 0 && text[0] == '$' {
		return "$", 2, nil
	}
	if len(text) == 0 || text[0] != '{' {
		n := nameLen(text)
		if n == 0 {
			return "$", 1, nil
		}
		value, err := s.value(at, string(text[:n]), lookup)
		return value, 1 + n, err
	}
	line := text
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	end := bytes.IndexByte(line, '}')
	if end < 0 {
		return "", 0, s.errorAtByte(at, "${ without } on the same line; write $$ for a dollar sign")
	}
	name, fallback, hasDefault := strings.Cut(string(line[1:end]), ":-")
	if !isVariableName(name) {
		return "", 0, s.errorAtByte(at, fmt.Sprintf("%q is not a variable name; write $$ for a dollar sign", name))
	}
	if hasDefault {
		if value, ok := lookup(name); ok && value != "" {
			return cleanValue(value), end + 2, nil
		}
		return fallback, end + 2, nil
	}
	value, err = s.value(at, name, lookup)
	return value, end + 2, err
}

func (s *source) value(at int, name string, lookup func(string) (string, bool)) (string, error) {
	value, ok := lookup(name)
	switch {
	case !ok:
		return "", s.errorAtByte(at, fmt.Sprintf(
			"variable %s is not defined; set it with --variable %s=VALUE, in the environment or under variables", name, name))
	case value == "":
		return "", s.errorAtByte(at, fmt.Sprintf("variable %s is empty; write ${%s:-} if it may be", name, name))
	}
	return cleanValue(value), nil
}

// cleanValue makes a value fit for the text: one kind of line end, no trailing ones (a ticket read from a file has one).
func cleanValue(value string) string {
	value = strings.ReplaceAll(strings.ReplaceAll(value, "\r\n", "\n"), "\r", "\n")
	return strings.TrimRight(strings.ToValidUTF8(value, "\uFFFD"), "\n")
}
