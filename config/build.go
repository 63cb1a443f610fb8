package config

import (
	"fmt"
	"slices"
	"strings"
)

// builder makes a plan from a parsed configuration.
type builder struct {
	mode Mode
	src  *source
	plan *Plan
	root map[string]entry // top-level entries by hyphenated key
}

func (b *builder) build(root *value, opt Options) error {
	known := b.mode.knownKeys()
	b.root = make(map[string]entry, len(root.entries))
	for _, e := range root.entries {
		key := hyphens(e.key)
		if !slices.Contains(known, key) {
			b.warn(e.pos, "%s", b.mode.unknownKey(e.key))
			continue
		}
		if first, twice := b.root[key]; twice {
			return b.src.errorf(e.pos, "key %q again, first on line %d as %q", e.key, b.src.line(first.pos), first.key)
		}
		b.root[key] = e
	}
	if v, ok := b.root["version"]; ok && v.value.text != "1" {
		b.warn(v.pos, "this version is not known; the file is read as version 1")
	}
	if err := b.ticket(); err != nil {
		return err
	}
	if b.mode == NodeCreate {
		if err := b.node(opt); err != nil {
			return err
		}
	}
	for _, s := range b.mode.order() {
		if s.command == enrol.command {
			b.enrol()
			continue
		}
		if err := b.section(s); err != nil {
			return err
		}
	}
	return nil
}

// maxWarnings bounds the work on a text that is not a configuration at all.
const maxWarnings = 50

func (b *builder) warn(p position, format string, args ...any) {
	if len(b.plan.Warnings) >= maxWarnings {
		return
	}
	b.plan.Warnings = append(b.plan.Warnings, fmt.Sprintf("line %d: ", b.src.line(p))+b.src.scrub(fmt.Sprintf(format, args...)))
}

func (b *builder) ticket() error {
	e, ok := b.root["ticket"]
	if !ok || e.value.kind == null {
		return nil
	}
	if e.value.kind != scalar {
		return b.src.errorf(e.value.pos, "ticket must be a text")
	}
	b.plan.Ticket = strings.TrimSpace(e.value.text)
	if strings.HasPrefix(b.plan.Ticket, "-") || strings.ContainsRune(b.plan.Ticket, 0) {
		return b.src.errorf(e.value.pos, "this is not a ticket")
	}
	return nil
}

// enrol adds the enrolment of a `run` configuration.
func (b *builder) enrol() {
	if b.plan.Ticket == "" {
		return
	}
	b.plan.Invocations = append(b.plan.Invocations, Invocation{
		Args: []string{"project", "enroll", b.plan.Ticket}, Line: b.src.line(b.root["ticket"].pos), What: "enrolment with the ticket",
	})
}

// node sets the arguments of the node itself.
func (b *builder) node(opt Options) error {
	p := b.plan
	p.NodeName = opt.NodeName
	for _, key := range nodeKeys {
		e, ok := b.root[key]
		if !ok || e.value.kind == null {
			continue
		}
		p.flagLines[key] = b.src.line(e.pos)
		if key == "name" {
			name, err := b.name(e.value, "the node")
			if err != nil {
				return err
			}
			if !opt.NameGiven {
				p.NodeName = name
			}
			continue
		}
		if e.value.kind == sequence || e.value.kind == mapping && key != "services" {
			return b.src.errorf(e.value.pos, "%s must be a single value", key)
		}
		args, err := b.option(entry{key, e.value, e.pos})
		if err != nil {
			return err
		}
		p.Node = append(p.Node, args...)
	}
	if p.NodeName != "" {
		p.Node = append([]string{p.NodeName}, p.Node...)
	}
	return nil
}

// section adds the commands of one resource section.
func (b *builder) section(s section) error {
	for _, key := range s.keys {
		// Both spellings may be present: a file with `relay` and `relays` plainly wants both.
		e, ok := b.root[key]
		if !ok {
			continue
		}
		if err := b.resources(s, e.value, e.pos, true); err != nil {
			return err
		}
	}
	return nil
}

// resources adds the commands for a value of a section: a name, the options of one resource without a name, a map of names and
// options, or (when list is set) a list of those.
func (b *builder) resources(s section, v *value, p position, list bool) error {
	switch {
	case v.kind == null && list:
		return nil // `relays:` with everything below commented out
	case v.kind == scalar || v.kind == boolean:
		if s.noName {
			return b.src.errorf(v.pos, "%s: give a map of options, or a list of them", s.keys[0])
		}
		name, err := b.name(v, "a "+s.command)
		if err != nil {
			return err
		}
		return b.resource(s, name, nil, v.pos)
	case v.kind == sequence && list:
		for _, item := range v.items {
			if err := b.resources(s, item, item.pos, false); err != nil {
				return err
			}
		}
		return nil
	case v.kind == mapping:
		if !isNamed(v) {
			return b.unnamed(s, v)
		}
		// As in the reference they are made in the order of their names: the first node, for one, becomes the default.
		for _, e := range slices.SortedStableFunc(slices.Values(v.entries), func(a, b entry) int { return strings.Compare(a.key, b.key) }) {
			if s.noName {
				return b.src.errorf(e.pos, "%s have no names: give the options of one, or a list of them", s.keys[0])
			}
			if err := b.checkName(e.key, e.pos, "a "+s.command); err != nil {
				return err
			}
			if err := b.resource(s, e.key, e.value, e.pos); err != nil {
				return err
			}
		}
		return nil
	}
	return b.src.errorf(p, "an entry of %s must be a name or a map", s.keys[0])
}

// isNamed tells a map of names to options from a map of options: every value of the former is a map, or nothing (a resource
// without options). A map without entries is one resource without options.
func isNamed(v *value) bool {
	for _, e := range v.entries {
		if e.value.kind != mapping && e.value.kind != null {
			return false
		}
	}
	return len(v.entries) > 0
}

// unnamed adds the command of an entry that is just options. A `name` among them is the positional name: the commands have no
// option of that name.
func (b *builder) unnamed(s section, v *value) error {
	named, rest := "", v
	if n := v.get("name"); n != nil && !s.noName {
		var err error
		if named, err = b.name(n, "a "+s.command); err != nil {
			return err
		}
		rest = &value{kind: mapping, pos: v.pos}
		for _, e := range v.entries {
			if e.key != "name" {
				rest.entries = append(rest.entries, e)
			}
		}
	}
	return b.resource(s, named, rest, v.pos)
}

// resource adds one command. options is a map, or nil or null for none.
func (b *builder) resource(s section, name string, options *value, p position) error {
	inv := Invocation{Args: []string{s.command, "create"}, Line: b.src.line(p), What: s.command}
	if name != "" {
		inv.Args = append(inv.Args, name)
		inv.What = fmt.Sprintf("%s %q", s.command, name)
	}
	seen := map[string]position{}
	if options != nil {
		for _, e := range options.entries {
			args, err := b.option(e)
			if err != nil {
				return err
			}
			key := flagName(e.key)
			if first, twice := seen[key]; twice {
				return b.src.errorf(e.pos, "option %q again, first on line %d", key, b.src.line(first))
			}
			seen[key] = e.pos
			inv.Args = append(inv.Args, args...)
		}
	}
	if _, given := seen[s.target]; !given && b.mode == NodeCreate && s.target != "" && b.plan.NodeName != "" {
		inv.Args = append(inv.Args, "--"+s.target, b.plan.NodeName)
	}
	b.plan.Invocations = append(b.plan.Invocations, inv)
	return nil
}

// flagName returns the flag of a key: hyphenated, `expression` under the name the commands share.
func flagName(key string) string {
	if key = hyphens(key); key == "expression" {
		return "allow"
	}
	return key
}

// option returns the arguments of one option.
func (b *builder) option(e entry) ([]string, error) {
	name := flagName(e.key)
	if !isFlagName(name) {
		return nil, b.src.errorf(e.pos, "%q is not the name of an option", e.key)
	}
	flag := "--" + name
	if len(name) == 1 {
		flag = "-" + name
	}
	switch v := e.value; {
	case v.kind == sequence:
		var args []string
		for _, item := range v.items {
			if !item.isScalar() {
				return nil, b.src.errorf(item.pos, "the list of option %q must hold single values; quote a value with a colon", e.key)
			}
			more, err := b.option(entry{e.key, item, item.pos})
			if err != nil {
				return nil, err
			}
			args = append(args, more...)
		}
		return args, nil
	case v.kind == mapping && (name == "services" || name == "launch-config"):
		return []string{flag, string(v.appendJSON(nil))}, nil
	case v.kind == mapping:
		return nil, b.src.errorf(e.pos, "option %q must be a value or a list of values, not a map", e.key)
	case v.kind == null:
		return nil, b.src.errorf(e.pos, "option %q has no value", e.key)
	case v.kind == boolean && v.text == "true":
		return []string{flag}, nil
	case v.kind == boolean:
		return nil, nil
	case strings.ContainsRune(v.text, 0):
		return nil, b.src.errorf(v.pos, "option %q contains a zero byte", e.key)
	default:
		return []string{flag, v.text}, nil
	}
}

func isFlagName(s string) bool {
	for i, c := range s {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (c != '-' || i == 0) {
			return false
		}
	}
	return s != ""
}

// name returns the name a value gives to what.
func (b *builder) name(v *value, what string) (string, error) {
	if v.kind != scalar && v.kind != boolean {
		return "", b.src.errorf(v.pos, "the name of %s must be a text", what)
	}
	return v.text, b.checkName(v.text, v.pos, what)
}

// checkName refuses what the command line would not take for a name: it would read `-x` as an option.
func (b *builder) checkName(name string, p position, what string) error {
	if name == "" || name[0] == '-' || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return b.src.errorf(p, "%q cannot be the name of %s", name, what)
	}
	return nil
}
