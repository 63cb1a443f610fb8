package policy

import (
	"strings"
	"unicode/utf8"
)

// Names that the environment binds (docs/protocol/02 §7.3).
const (
	resourceID           = "resource.id"
	actionID             = "action.id"
	subjectPrefix        = "subject."
	subjectIdentifier    = subjectPrefix + "identifier"
	subjectHasCredential = subjectPrefix + "has_credential"
)

// Env binds names to values. A value may itself contain identifiers; they are looked up when it is read. An Env may be
// read by several goroutines as long as none changes it.
type Env map[string]Value

// NewEnv makes an environment for one resource and action, with no subject yet.
func NewEnv(resource, action string) Env {
	return Env{resourceID: Str(resource), actionID: Str(action)}
}

// SetSubject binds what is known about the peer, replacing any earlier subject.
//
// identifier is the text form of its identifier. hasAuthority tells whether an authority is configured; without one
// nothing but the identifier is bound. hasCredential tells whether the peer presented a valid credential of that
// authority, and attrs are the attributes it attests (nil without a credential).
//
// Attributes that are not UTF-8 are left out, and so are those named identifier and has_credential: they would let
// whoever issues credentials, or writes an enrollment ticket, impersonate any peer (docs/protocol/02 §9). The
// reference instead leaves out those literally named like a built-in name (resource.id, …); so do we.
func (e Env) SetSubject(identifier string, hasAuthority, hasCredential bool, attrs map[string]string) {
	for name := range e {
		if strings.HasPrefix(name, subjectPrefix) {
			delete(e, name)
		}
	}
	if hasAuthority && hasCredential {
		for key, value := range attrs {
			if utf8.ValidString(key) && utf8.ValidString(value) && !reserved(key) {
				e[subjectPrefix+key] = Str(value)
			}
		}
	}
	e[subjectIdentifier] = Str(identifier)
	if hasAuthority {
		e[subjectHasCredential] = Bool(hasCredential)
	}
}

func reserved(key string) bool {
	switch key {
	case resourceID, actionID, subjectIdentifier, subjectHasCredential:
		return true
	}
	name := subjectPrefix + key
	return name == subjectIdentifier || name == subjectHasCredential
}
