package config

// Section describes a kind of resource of a configuration, for documentation and schemas.
type Section struct {
	// Keys are the accepted spellings, the usual one first; with underscores they mean the same.
	Keys []string
	// Command is what an entry becomes, such as "tcp-outlet create". Its flags are the entry's keys.
	Command string
	// Named tells that an entry can have a name.
	Named bool
	// Target is the option that is filled in with the node's name.
	Target string
	// NameAs is the flag that takes the name; empty if the name is positional.
	NameAs string
}

// Sections returns the sections of a mode, in the order of execution.
func Sections(m Mode) []Section {
	var list []Section
	for _, s := range m.order() {
		if len(s.keys) > 0 {
			list = append(list, Section{Keys: s.keys, Command: s.line(), Named: !s.noName, Target: s.target, NameAs: s.nameAs})
		}
	}
	return list
}

// NodeKeys returns the keys about the node itself, those of the command line under their long names.
func NodeKeys() []string { return append([]string{}, nodeKeys...) }

// IsObject tells whether the value of a key may be a map, which the command takes as JSON.
func IsObject(key string) bool {
	for _, k := range objects {
		if k == key {
			return true
		}
	}
	return false
}
