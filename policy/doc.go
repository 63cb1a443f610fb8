// Package policy is the attribute-based access control language of a node: it parses, prints, encodes and evaluates
// policy expressions, and keeps the policies of a node by resource name and by resource type.
//
// A policy answers one question: may this peer use this resource? Its expression reads an environment ([Env]) made of
// the resource, the action and what is known about the peer. Access is granted only if the result is the boolean
// true; false, any other value and every error deny ([Expr.Allows]).
//
// There are two notations (docs/protocol/02 §7):
//
//	(and (= subject.component "db") (not (= subject.suspended "true")))    full language
//	component=db and not suspended                                        boolean variant
//
// [Parse] tries the boolean variant first. Both become an [Expr], whose printed form is canonical text of the full
// language, the form in which policies are stored.
//
// # Where this package is stricter than the reference
//
// Every difference refuses at parse or decode time; no accepted expression has another meaning here.
//
//   - A text is at most [MaxText] bytes, also once it is expanded and printed, and at most [MaxDepth] levels deep.
//   - Unbalanced closing brackets are refused; the reference lets a stray ")" close the implicit outer list.
//   - An identifier written "@name" is refused, "$name" means name as there, but only if name is an identifier itself.
//   - CBOR must not carry what the text form cannot say: invalid identifiers, sequences of mixed types.
//   - Peer attributes cannot replace subject.identifier or subject.has_credential (docs/protocol/02 §9).
//   - A cycle in the environment is an error instead of an endless loop.
package policy
