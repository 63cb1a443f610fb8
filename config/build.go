package config

import (
	"fmt"
	"slices"
	"strings"
)

// builder makes a plan from a parsed configuration. It goes on after a mistake, so that all are told.
type builder struct {
	mode   Mode
	src    *source
	opt    Options
	plan   *Plan
	root   map[string]entry // top-level entries by hyphenated key
	faults []*Error
}

// maxFaults bounds the work on a text that is not a configuration at all.
const maxFaults = 50

// fault notes a mistake.
func (b *builder) fault(p position, format string, args ...any) {
	if len(b.faults) < maxFaults {
		b.faults = append(b.faults, b.src.errorf(p, format, args...))
	}
}

// failed returns what was noted, nil for nothing.
func (b *builder) failed() error { return Joined(b.faults) }

func (b *builder) build(root *value) {
	known := b.mode.knownKeys()
	b.root = make(map[string]entry, len(root.entries))
	for _, e := range root.entries {
		key := hyphens(e.key)
		switch first, twice := b.root[key]; {
		case strings.HasPrefix(key, extension):
		case !slices.Contains(known, key):
			b.fault(e.pos, "%s", b.mode.unknownKey(e.key))
		case twice:
			b.fault(e.pos, "key %q again, first on line %d as %q", e.key, b.src.line(first.pos), first.key)
		default:
			b.root[key] = e
		}
	}
	if v, ok := b.root["version"]; ok && v.value.text != "1" {
		b.warn(v.pos, "this version is not known; the file is read as version 1")
	}
	b.ticket()
	if b.mode == NodeCreate {
		b.node()
	}
	for _, s := range b.mode.order() {
		if s.command == enrol.command {
			b.enrol()
			continue
		}
		b.section(s)
	}
}

// maxWarnings bounds the work on a text that is not a configuration at all.
const maxWarnings = 50

func (b *builder) warn(p position, format string, args ...any) {
	if len(b.plan.Warnings) >= maxWarnings {
		return
	}
	b.plan.Warnings = append(b.plan.Warnings, fmt.Sprintf("line %d: ", b.src.line(p))+b.src.scrub(fmt.Sprintf(format, args...)))
}

func (b *builder) ticket() {
	e, ok := b.root["ticket"]
	if !ok || e.value.kind == null {
		return
	}
	if e.value.kind != scalar {
		b.fault(e.value.pos, "ticket must be a text")
		return
	}
	b.plan.Ticket = strings.TrimSpace(e.value.text)
	if b.plan.Ticket == "" { // no ticket at all is meant by leaving it out
		b.fault(e.value.pos, "the ticket is empty")
	}
	if strings.HasPrefix(b.plan.Ticket, "-") || strings.ContainsRune(b.plan.Ticket, 0) {
		b.fault(e.value.pos, "this is not a ticket")
	}
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
func (b *builder) node() {
	p := b.plan
	p.NodeName = b.opt.NodeName
	for _, key := range nodeKeys {
		e, ok := b.root[key]
		if !ok || e.value.kind == null {
			continue
		}
		p.nodeFlags[key] = e.value.pos
		if key == "name" {
			if name, ok := b.name(e.value, "the node"); ok && !b.opt.NameGiven {
				p.NodeName = name
			}
			continue
		}
		if e.value.kind == sequence && !slices.Contains(lists, key) || e.value.kind == mapping && !slices.Contains(objects, key) {
			b.fault(e.value.pos, "%s must be a single value", key)
			continue
		}
		if key == "ticket-file" {
			p.TicketFile = e.value.text
			continue
		}
		p.Node = append(p.Node, b.option(entry{key, e.value, e.pos})...)
	}
	if p.NodeName != "" {
		p.Node = append([]string{p.NodeName}, p.Node...)
	}
}

// section adds the commands of one resource section.
func (b *builder) section(s section) {
	for _, key := range s.keys {
		// Both spellings may be present: a file with `relay` and `relays` plainly wants both.
		if e, ok := b.root[key]; ok {
			b.resources(s, e.value, e.pos, true)
		}
	}
}

// resources adds the commands for a value of a section: a name, the options of one resource without a name, a map of names and
// options, or (when list is set) a list of those.
func (b *builder) resources(s section, v *value, p position, list bool) {
	switch {
	case v.kind == null && list: // `relays:` with everything below commented out
	case v.kind == scalar || v.kind == boolean:
		if s.noName {
			b.fault(v.pos, "%s: give a map of options, or a list of them", s.keys[0])
		} else if name, ok := b.name(v, "a "+s.noun()); ok {
			b.resource(s, name, nil, v.pos)
		}
	case v.kind == sequence && list:
		for _, item := range v.items {
			b.resources(s, item, item.pos, false)
		}
	case v.kind == mapping && !isNamed(v):
		b.unnamed(s, v)
	case v.kind == mapping:
		// As in the reference they are made in the order of their names: the first node, for one, becomes the default.
		for _, e := range slices.SortedStableFunc(slices.Values(v.entries), func(a, b entry) int { return strings.Compare(a.key, b.key) }) {
			if s.noName {
				b.fault(e.pos, "%s have no names: give the options of one, or a list of them", s.keys[0])
			} else if b.checkName(e.key, e.pos, "a "+s.noun()) {
				b.resource(s, e.key, e.value, e.pos)
			}
		}
	default:
		b.fault(p, "an entry of %s must be a name or a map", s.keys[0])
	}
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
func (b *builder) unnamed(s section, v *value) {
	named, rest := "", v
	if n := v.get("name"); n != nil && !s.noName {
		var ok bool
		if named, ok = b.name(n, "a "+s.noun()); !ok {
			return
		}
		rest = &value{kind: mapping, pos: v.pos}
		for _, e := range v.entries {
			if e.key != "name" {
				rest.entries = append(rest.entries, e)
			}
		}
	}
	b.resource(s, named, rest, v.pos)
}

// resource adds one command. options is a map, or nil or null for none.
func (b *builder) resource(s section, name string, options *value, p position) {
	inv := Invocation{
		Args: strings.Fields(s.line()), Line: b.src.line(p), What: s.noun(), Name: name, entry: p, values: map[string]position{},
	}
	if name != "" {
		if s.nameAs != "" {
			inv.Args = append(inv.Args, "--"+s.nameAs)
		}
		inv.Args = append(inv.Args, name)
		inv.What = fmt.Sprintf("%s %q", s.noun(), name)
	}
	var known []string
	if b.opt.Flags != nil {
		known = b.opt.Flags(s.line())
	}
	seen := map[string]position{}
	if options != nil {
		for _, e := range options.entries {
			key := flagName(e.key)
			if first, twice := seen[key]; twice {
				b.fault(e.pos, "option %q again, first on line %d", key, b.src.line(first))
				continue
			}
			if known != nil && isFlagName(key) && key != s.first && !slices.Contains(known, key) {
				b.fault(e.pos, "%s: unknown key %s", inv.What, suggestion(e.key, known))
				continue
			}
			seen[key], inv.values[key] = e.pos, e.value.pos
			if key == s.first {
				inv.Args = append(inv.Args, b.argument(e)...)
				continue
			}
			inv.Args = append(inv.Args, b.option(e)...)
		}
	}
	if _, given := seen[s.target]; !given && b.mode == NodeCreate && s.target != "" && b.plan.NodeName != "" {
		inv.Args = append(inv.Args, "--"+s.target, b.plan.NodeName)
	}
	b.plan.Invocations = append(b.plan.Invocations, inv)
}

// argument returns the positional argument that an option stands for; none if it has a mistake.
func (b *builder) argument(e entry) []string {
	text := strings.TrimSpace(e.value.text)
	if e.value.kind != scalar || text == "" || text[0] == '-' || strings.ContainsRune(text, 0) {
		b.fault(e.value.pos, "this is not a %s", e.key)
		return nil
	}
	return []string{text}
}

// flagName returns the flag of a key: hyphenated, `expression` under the name the commands share.
func flagName(key string) string {
	if key = hyphens(key); key == "expression" {
		return "allow"
	}
	return key
}

// option returns the arguments of one option; none if it has a mistake.
func (b *builder) option(e entry) []string {
	name := flagName(e.key)
	if !isFlagName(name) {
		b.fault(e.pos, "%q is not the name of an option", e.key)
		return nil
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
				b.fault(item.pos, "the list of option %q must hold single values; quote a value with a colon", e.key)
				return nil
			}
			args = append(args, b.option(entry{e.key, item, item.pos})...)
		}
		return args
	case v.kind == mapping && slices.Contains(objects, name):
		return []string{flag, string(v.appendJSON(nil))}
	case v.kind == mapping:
		b.fault(e.pos, "option %q must be a value or a list of values, not a map", e.key)
	case v.kind == null:
		b.fault(e.pos, "option %q has no value", e.key)
	case v.kind == boolean && v.text == "true":
		return []string{flag}
	case v.kind == boolean:
	case strings.ContainsRune(v.text, 0):
		b.fault(v.pos, "option %q contains a zero byte", e.key)
	default:
		return []string{flag, v.text}
	}
	return nil
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

// name returns the name that a value gives to what.
func (b *builder) name(v *value, what string) (string, bool) {
	if v.kind != scalar && v.kind != boolean {
		b.fault(v.pos, "the name of %s must be a text", what)
		return "", false
	}
	return v.text, b.checkName(v.text, v.pos, what)
}

// checkName refuses what the command line would not take for a name: it would read `-x` as an option.
func (b *builder) checkName(name string, p position, what string) bool {
	if name == "" || name[0] == '-' || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		b.fault(p, "%q cannot be the name of %s", name, what)
		return false
	}
	return true
}
