package project

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/routing/multiaddr"
)

// Code is the secret of a ticket. The authority exchanges it for membership. Package fmt and JSON logs show a placeholder.
type Code [32]byte

// Format hides the code, whatever the verb.
func (Code) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[one-time code]") }

// MarshalText hides the code from loggers and from JSON of structures that contain it by accident.
func (Code) MarshalText() ([]byte, error) { return []byte("[one-time code]"), nil }

// Reveal returns the code as lower-case hex, the form of the wire.
func (c Code) Reveal() string { return hex.EncodeToString(c[:]) }

// ParseCode reads 64 hex digits. The error does not contain them.
func ParseCode(s string) (c Code, err error) {
	if len(s) != 2*len(c) {
		return Code{}, &Error{Input: "ticket", Field: "one_time_code", Reason: ErrInvalid, Problem: fmt.Sprintf("%d characters, it must be 64 hex digits", len(s))}
	}
	if _, err := hex.Decode(c[:], []byte(s)); err != nil {
		return Code{}, &Error{Input: "ticket", Field: "one_time_code", Reason: ErrInvalid, Problem: "must be 64 hex digits"}
	}
	return c, nil
}

// Ticket is an invitation to a project: the code and the project it is for (docs/protocol/02 §6.1, §6.2).
//
// The project's id is where our tickets differ from the reference's. The plain form has no field for it, and readers take the first
// /service/ part of the project route, so every self-hosted project whose route ends in /service/api has the id "api" there, as with
// the reference. The JSON forms have a field, which the reference fills with that same derived value; ours say the true id of the
// project, so that two self-hosted projects on one machine do not replace each other and credentials keep their scope. Both programs
// read both.
//
// A ticket may name the nodes whose outlets its member is to use (Project.Expects). The plain form has them behind the fields of the reference,
// which ignores what is there as it ignores a JSON field that it does not know. So has it the routes to further nodes and authorities
// (Project.AccessRoutes, Project.AuthorityAccessRoutes).
type Ticket struct {
	// Code is the secret.
	Code Code

	project *Project
}

// NewTicket makes the ticket for a project, which must be Ready and have its ChangeHistory. It keeps a copy of p. Errors are of type
// *Error.
func NewTicket(p *Project, code Code) (*Ticket, error) {
	c := *p
	if err := c.verify("ticket"); err != nil {
		return nil, err
	}
	missing := c.Missing()
	if c.ChangeHistory == "" {
		missing = append(missing, "project_change_history")
	}
	if len(missing) > 0 {
		return nil, &Error{Input: "ticket", Field: missing[0], Reason: ErrMissing, Problem: "the project has no such field; a ticket needs both routes and both change histories"}
	}
	return newTicket(&c, code)
}

// newTicket makes a ticket that can be read in each form that it is written in.
func newTicket(p *Project, code Code) (*Ticket, error) {
	t := &Ticket{Code: code, project: p}
	n := len(t.LegacyJSON())
	if text, err := t.Text(); err == nil {
		n = max(n, len(text))
	}
	if n = hex.EncodedLen(n); n > MaxSize {
		return nil, tooLarge("ticket, as hex", n)
	}
	return t, nil
}

// ProjectFromTicket returns the project of a ticket, verified and ready. The caller owns it.
func ProjectFromTicket(t *Ticket) *Project {
	p := *t.project
	return &p
}

// ParseTicket reads a ticket in any form: comma text, JSON, legacy JSON, and each of them in hex. It may have been folded on its way: line
// ends are ignored anywhere, the marks of a quotation and those around it, a byte order mark, and white space and what nobody sees in hex and in
// all of the comma text but the name.
// Both change histories are verified. Errors are of type *Error.
//
// An identifier in the ticket that does not belong to its history is an error; the reference ignores it.
func ParseTicket(text string) (*Ticket, error) {
	if len(text) > MaxSize {
		return nil, tooLarge("ticket", len(text))
	}
	text = unfold(text)
	if text == "" {
		return nil, &Error{Input: "ticket", Reason: ErrMissing, Problem: "empty"}
	}
	if digits := withoutInvisible(text); isHex(digits) {
		b, err := hex.DecodeString(digits)
		if err != nil {
			return nil, &Error{Input: "ticket", Reason: ErrInvalid, Problem: "an odd number of hex digits; is it cut off?"}
		}
		text = unfold(string(b))
	}
	if !utf8.ValidString(text) {
		return nil, &Error{Input: "ticket", Reason: ErrInvalid, Problem: "not UTF-8 text"}
	}
	if strings.HasPrefix(text, "{") {
		return parseJSONTicket([]byte(text))
	}
	return parsePlainTicket(text)
}

// folds are the line ends that mail programs and terminals put into a long line: with white space after them, and, in quoted-printable, an
// equals sign before.
var folds = regexp.MustCompile(`=?\r?\n[ \t]*|\r[ \t]*`)

// quotedLine is the beginning of a line that a mail program has quoted, perhaps more than once.
var quotedLine = regexp.MustCompile(`(?m)^[ \t]*>[> \t]*`)

// marks are put around a text that is to be copied, in chats and in mails. No form of a ticket begins or ends with one.
const marks = "`\"'<>\u2018\u2019\u201c\u201d\u00ab\u00bb"

// unfold takes a text as it was written. No form of a ticket needs a line end, a byte order mark or a space of no width.
func unfold(text string) string {
	text = strings.TrimSpace(strings.NewReplacer("\ufeff", "", "\u200b", "", "\v", "", "\f", "", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n").Replace(text))
	if quoted(text) {
		text = quotedLine.ReplaceAllString(text, "")
	}
	text = folds.ReplaceAllString(text, "")
	return strings.TrimFunc(text, func(r rune) bool { return invisible(r) || strings.ContainsRune(marks, r) })
}

// quoted says whether every line of text that is not empty is a quotation.
func quoted(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '>' {
			return false
		}
	}
	return true
}

// invisible says whether r is white space, or one of those that only say how text is shown: a soft hyphen, a word joiner, a mark of direction.
func invisible(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }

// withoutInvisible is s without all that nobody sees.
func withoutInvisible(s string) string {
	return strings.Map(func(r rune) rune {
		if invisible(r) {
			return -1
		}
		return r
	}, s)
}

func isHex(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f') && (r < 'A' || r > 'F')
	}) < 0
}

// plainFields are the fields of the comma text, in order.
var plainFields = [...]string{"project_route", "project_identifier", "project_name", "one_time_code", "project_change_history", "authority_change_history", "authority_route"}

// These begin a field of the plain form behind those of the reference: an identifier that the member is to expect, a route to a further node of the project,
// and one to a further authority.
const (
	expectsField   = "expects="
	relayField     = "relay="
	authorityField = "authority="
)

func parsePlainTicket(text string) (*Ticket, error) {
	parts := strings.Split(text, ",")
	for i := range parts {
		if i < len(plainFields) && plainFields[i] == "project_name" {
			parts[i] = strings.TrimSpace(parts[i]) // People choose it, and may mean what is in it.
			continue
		}
		parts[i] = withoutInvisible(parts[i])
	}
	if len(parts) < len(plainFields) {
		return nil, &Error{Input: "ticket", Field: plainFields[len(parts)], Reason: ErrMissing, Problem: fmt.Sprintf(
			"missing, there are %d of %d fields between commas; is the ticket cut off, or the name of a file?", len(parts), len(plainFields))}
	}
	w := wireTicket{Code: parts[3], Identifier: parts[1], Name: parts[2], History: parts[4], AuthorityHistory: parts[5], AuthorityRoute: parts[6]}
	w.Route.Route = parts[0]
	for _, part := range parts[len(plainFields):] {
		if id, ok := strings.CutPrefix(part, expectsField); ok {
			w.Expects = append(w.Expects, id)
		}
		if route, ok := strings.CutPrefix(part, relayField); ok {
			w.Routes = append(w.Routes, route)
		}
		if route, ok := strings.CutPrefix(part, authorityField); ok {
			w.Authorities = append(w.Authorities, route)
		}
	}
	addr, err := multiaddr.Parse(parts[0])
	if err != nil {
		return nil, &Error{Input: "ticket", Field: "project_route", Reason: ErrInvalid, Problem: routeProblem, Err: err}
	}
	id, ok := ProjectID(addr)
	if !ok {
		return nil, &Error{Input: "ticket", Field: "project_route", Reason: ErrInvalid, Problem: "no project id in it, it must have a /service/ part"}
	}
	w.Route.ID = id
	return w.ticket()
}

// ProjectID returns the project id of a route in a plain ticket, the first named /service/ part (docs/protocol/02 §6.1).
func ProjectID(route multiaddr.Addr) (id string, ok bool) {
	for _, v := range route {
		if v.Protocol == multiaddr.Service {
			return v.Text, v.Text != ""
		}
	}
	return "", false
}

// wireTicket is the JSON form; encoding/json writes it, fields reads it.
type wireTicket struct {
	Code  string `json:"one_time_code"`
	Route struct {
		ID    string `json:"id"`
		Route string `json:"route"`
	} `json:"project_route"`
	Identifier       string   `json:"project_identifier"`
	Name             string   `json:"project_name"`
	History          string   `json:"project_change_history"`
	AuthorityHistory string   `json:"authority_change_history"`
	AuthorityRoute   string   `json:"authority_route"`
	Expects          []string `json:"expects,omitempty"`
	Routes           []string `json:"access_routes,omitempty"`
	Authorities      []string `json:"authority_access_routes,omitempty"`
}

type legacyTicket struct {
	Code    string   `json:"one_time_code"`
	Project *Project `json:"project"`
}

func parseJSONTicket(data []byte) (*Ticket, error) {
	f, err := parseObject("ticket", "", data)
	if err != nil {
		return nil, err
	}
	if _, legacy := f.raw["project"]; legacy {
		return parseLegacyTicket(f)
	}
	w := wireTicket{
		Code:             f.text("one_time_code", true),
		Identifier:       f.text("project_identifier", true),
		Name:             f.text("project_name", true),
		History:          f.text("project_change_history", true),
		AuthorityHistory: f.text("authority_change_history", true),
		AuthorityRoute:   f.text("authority_route", true),
	}
	f.value("expects", "an array of identifiers", false, &w.Expects)
	f.value("access_routes", "an array of routes", false, &w.Routes)
	f.value("authority_access_routes", "an array of routes", false, &w.Authorities)
	if raw, ok := f.get("project_route", "an object with id and route", true); ok {
		route, err := parseObject("ticket", "project_route.", raw)
		if err != nil {
			return nil, err
		}
		w.Route.ID, w.Route.Route = route.text("id", true), route.text("route", true)
		if f.err == nil {
			f.err = route.err
		}
	}
	if f.err != nil {
		return nil, f.err
	}
	return w.ticket()
}

func parseLegacyTicket(f *fields) (*Ticket, error) {
	raw, _ := f.get("project", "an object", true)
	code := f.text("one_time_code", true)
	if f.err != nil {
		return nil, f.err
	}
	c, err := ParseCode(code)
	if err != nil {
		return nil, err
	}
	p, err := ParseProject(raw)
	if err != nil {
		return nil, fmt.Errorf("ticket: %w", err)
	}
	return NewTicket(p, c)
}

// ticket checks every field under the name that it has in a ticket.
func (w *wireTicket) ticket() (*Ticket, error) {
	bad := func(field, problem string, reason, err error) (*Ticket, error) {
		return nil, &Error{Input: "ticket", Field: field, Problem: problem, Reason: reason, Err: err}
	}
	code, err := ParseCode(w.Code)
	if err != nil {
		return nil, err
	}
	p := &Project{ID: w.Route.ID, Name: w.Name}
	if p.ID == "" {
		return bad("project_route.id", "empty, it must be the id of the project", ErrMissing, nil)
	}
	if p.Name == "" {
		return bad("project_name", "empty", ErrMissing, nil)
	}
	if p.AccessRoute, err = canonicalRoute(w.Route.Route); err != nil || p.AccessRoute == "" {
		return bad("project_route", routeProblem, ErrInvalid, err)
	}
	if p.AuthorityAccessRoute, err = canonicalRoute(w.AuthorityRoute); err != nil || p.AuthorityAccessRoute == "" {
		return bad("authority_route", routeProblem, ErrInvalid, err)
	}
	identifier, err := parseIdentifier(w.Identifier)
	if err != nil {
		return bad("project_identifier", identifierProblem, ErrInvalid, err)
	}
	if p.Identity, p.ChangeHistory, err = verifyHistory(w.History); err != nil {
		return bad("project_change_history", historyProblem, ErrInvalid, err)
	}
	if p.Identity != identifier {
		return bad("project_identifier", "must be the identifier of project_change_history, which is "+p.Identity, ErrMismatch, nil)
	}
	if p.authority, p.AuthorityChangeHistory, err = verifyHistory(w.AuthorityHistory); err != nil {
		return bad("authority_change_history", historyProblem, ErrInvalid, err)
	}
	p.Expects, p.AccessRoutes, p.AuthorityAccessRoutes = w.Expects, w.Routes, w.Authorities
	if err := p.verify("ticket"); err != nil {
		return nil, err
	}
	return newTicket(p, code)
}

// Text returns the comma text, byte for byte what the reference writes as long as nobody is expected and there is one relay and one authority. It fails if the project's name contains a comma or its route
// no /service/ part, as nobody could read that back; the JSON forms can carry both. The result contains the secret.
func (t *Ticket) Text() (string, error) {
	p := t.project
	if strings.Contains(p.Name, ",") {
		return "", &Error{Input: "ticket", Field: "project_name", Reason: ErrInvalid, Problem: "contains a comma, which the plain form cannot carry; use JSON"}
	}
	route, err := multiaddr.Parse(p.AccessRoute)
	if err == nil {
		if _, ok := ProjectID(route); ok {
			fields := []string{p.AccessRoute, p.Identity, p.Name, t.Code.Reveal(), p.ChangeHistory, p.AuthorityChangeHistory, p.AuthorityAccessRoute}
			for _, id := range p.Expects {
				fields = append(fields, expectsField+id)
			}
			for _, more := range []struct {
				field  string
				routes []string
			}{{relayField, p.AccessRoutes}, {authorityField, p.AuthorityAccessRoutes}} {
				for _, route := range more.routes {
					if !strings.Contains(route, ",") { // else members hear of it from the project's node
						fields = append(fields, more.field+route)
					}
				}
			}
			return strings.Join(fields, ","), nil
		}
	}
	return "", &Error{Input: "ticket", Field: "project_route", Reason: ErrInvalid, Problem: "has no /service/ part, which the plain form needs; use JSON", Err: err}
}

// Hex returns Text as lower-case hex. It fails as Text does. The result contains the secret.
func (t *Ticket) Hex() (string, error) {
	s, err := t.Text()
	return hex.EncodeToString([]byte(s)), err
}

// JSON returns the JSON form, with the project's true id (see Ticket). The result contains the secret.
func (t *Ticket) JSON() []byte {
	p := t.project
	w := wireTicket{Code: t.Code.Reveal(), Identifier: p.Identity, Name: p.Name, History: p.ChangeHistory, AuthorityHistory: p.AuthorityChangeHistory, AuthorityRoute: p.AuthorityAccessRoute,
		Expects: p.Expects, Routes: p.AccessRoutes, Authorities: p.AuthorityAccessRoutes}
	w.Route.ID, w.Route.Route = p.ID, p.AccessRoute
	return marshal(w)
}

// LegacyJSON returns the older JSON form, which contains the whole project. The result contains the secret.
func (t *Ticket) LegacyJSON() []byte {
	return marshal(legacyTicket{Code: t.Code.Reveal(), Project: t.project})
}

// LegacyHex returns LegacyJSON as lower-case hex, the usual form of a legacy ticket. The result contains the secret.
func (t *Ticket) LegacyHex() string { return hex.EncodeToString(t.LegacyJSON()) }

// marshal cannot fail: the types hold only text, numbers and JSON that was parsed before.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("project: " + err.Error())
	}
	return b
}

func join(values []string) string { return strings.Join(values, ", ") }
