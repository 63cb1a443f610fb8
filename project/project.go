package project

import (
	"encoding/json"
	"fmt"
	"slices"

	"sallyport/routing/multiaddr"
)

// MaxSize is the largest project or ticket that is read, in bytes, and the largest that is written: a text that becomes longer by its
// escapes or as hex is refused where it is read first. A usual ticket has 1-2 KB, and 4 KB in hex.
const MaxSize = 256 << 10

// maxRoutes is how many further routes a project can name, to its nodes and to its authorities.
const maxRoutes = 64

// maxExpected is how many nodes a project can name whose outlets its members may use.
const maxExpected = 64

// Project describes a project (docs/protocol/02 §6.3). Routes are multi-part addresses as text, histories are hex. An optional
// field that is absent is empty text or nil.
//
// ParseProject and UnmarshalJSON return it verified; one that was put together by hand becomes so with Verify.
type Project struct {
	// ID is unique; credential scopes are derived from it.
	ID string
	// Name is how routes call it: /project/NAME.
	Name string
	// SpaceName and SpaceID mean nothing in a self-hosted project, but have to be there.
	SpaceName, SpaceID string
	// AccessRoute leads to the project node, usually a relay. It may be empty.
	AccessRoute string
	// Users are e-mail addresses.
	Users []string
	// Identity is the identifier of the project node, optional.
	Identity string
	// ChangeHistory is the history of the project node as hex, optional. If it is there, Identity is its identifier.
	ChangeHistory string
	// AuthorityAccessRoute leads to the authority, optional.
	AuthorityAccessRoute string
	// AuthorityChangeHistory is the history of the authority as hex, optional. In JSON it is called authority_identity.
	AuthorityChangeHistory string
	// OktaConfig and KafkaConfig are carried along as they came, or nil.
	OktaConfig, KafkaConfig json.RawMessage
	// Version, Running and OperationID are what the reference's controller says of projects that it runs, optional.
	Version     string
	Running     *bool
	OperationID string
	// UserRoles are the roles of the users.
	UserRoles []UserRole
	// Expects are the identifiers of the nodes that inlets of a member may send to through the project, as its ticket said; empty for
	// whoever is there first. Not of the reference, which ignores the field.
	Expects []string
	// AccessRoutes lead to further nodes that act as the project's node, AuthorityAccessRoutes to further authorities, beside the routes above. Not of the
	// reference, which ignores the fields.
	AccessRoutes, AuthorityAccessRoutes []string

	authority string // identifier of the authority, from AuthorityChangeHistory
}

// UserRole is the role of a user in a project.
type UserRole struct {
	Email string `json:"email"`
	ID    uint64 `json:"id"`
	// Role is Admin, Guest or Service.
	Role string `json:"role"`
	// Scope is Project, Service or Space.
	Scope string `json:"scope"`
}

// ParseProject reads a project in JSON and verifies it. Unknown fields are ignored. Errors are of type *Error.
func ParseProject(data []byte) (*Project, error) {
	if len(data) > MaxSize {
		return nil, tooLarge("project", len(data))
	}
	p := new(Project)
	if err := p.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	return p, nil
}

// UnmarshalJSON does what ParseProject does, for a project in a larger text, which may have indented it. Who reads that text bounds it.
func (p *Project) UnmarshalJSON(data []byte) error {
	f, err := parseObject("project", "", data)
	if err != nil {
		return err
	}
	n := Project{
		ID:                     f.text("id", true),
		Name:                   f.text("name", true),
		SpaceName:              f.text("space_name", true),
		AccessRoute:            f.route("access_route", true),
		SpaceID:                f.text("space_id", true),
		Identity:               f.text("identity", false),
		AuthorityAccessRoute:   f.route("authority_access_route", false),
		AuthorityChangeHistory: f.text("authority_identity", false),
		Version:                f.text("version", false),
		OperationID:            f.text("operation_id", false),
		ChangeHistory:          f.text("project_change_history", false),
	}
	f.value("users", "an array of e-mail addresses", true, &n.Users)
	f.value("running", "true, false or null", false, &n.Running)
	f.value("expects", "an array of identifiers", false, &n.Expects)
	f.value("access_routes", "an array of routes", false, &n.AccessRoutes)
	f.value("authority_access_routes", "an array of routes", false, &n.AuthorityAccessRoutes)
	n.OktaConfig = f.optionalObject("okta_config")
	n.KafkaConfig = f.optionalObject("kafka_config")
	f.objects("user_roles", func(o *fields) {
		r := UserRole{
			Email: o.text("email", true),
			Role:  o.oneOf("role", "Admin", "Guest", "Service"),
			Scope: o.oneOf("scope", "Project", "Service", "Space"),
		}
		o.value("id", "a number", true, &r.ID)
		n.UserRoles = append(n.UserRoles, r)
	})
	if f.err != nil {
		return f.err
	}
	if err := n.Verify(); err != nil {
		return err
	}
	*p = n
	return nil
}

func (f *fields) optionalObject(name string) json.RawMessage {
	raw, ok := f.get(name, "an object", false)
	if !ok {
		return nil
	}
	if raw[0] != '{' {
		f.fail(name, "must be an object", ErrInvalid, nil)
	}
	return slices.Clone(raw)
}

func (f *fields) oneOf(name string, values ...string) string {
	s := f.text(name, true)
	if f.err == nil && !slices.Contains(values, s) {
		f.fail(name, "must be one of "+join(values), ErrInvalid, nil)
	}
	return s
}

// MarshalJSON writes every field of docs/protocol/02 §6.3 in the reference's order. Absent ones are null, except okta_config and
// kafka_config, which are left out.
func (p Project) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID             string          `json:"id"`
		Name           string          `json:"name"`
		SpaceName      string          `json:"space_name"`
		AccessRoute    string          `json:"access_route"`
		Users          []string        `json:"users"`
		SpaceID        string          `json:"space_id"`
		Identity       *string         `json:"identity"`
		AuthorityRoute *string         `json:"authority_access_route"`
		Authority      *string         `json:"authority_identity"`
		Okta           json.RawMessage `json:"okta_config,omitempty"`
		Kafka          json.RawMessage `json:"kafka_config,omitempty"`
		Version        *string         `json:"version"`
		Running        *bool           `json:"running"`
		OperationID    *string         `json:"operation_id"`
		UserRoles      []UserRole      `json:"user_roles"`
		ChangeHistory  *string         `json:"project_change_history"`
		Expects        []string        `json:"expects,omitempty"`
		Routes         []string        `json:"access_routes,omitempty"`
		Authorities    []string        `json:"authority_access_routes,omitempty"`
	}{
		p.ID, p.Name, p.SpaceName, p.AccessRoute, append([]string{}, p.Users...), p.SpaceID, optional(p.Identity),
		optional(p.AuthorityAccessRoute), optional(p.AuthorityChangeHistory), p.OktaConfig, p.KafkaConfig, optional(p.Version),
		p.Running, optional(p.OperationID), append([]UserRole{}, p.UserRoles...), optional(p.ChangeHistory),
		p.Expects, p.AccessRoutes, p.AuthorityAccessRoutes,
	})
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Verify checks the routes and both histories, fills in Identity from ChangeHistory if it is empty, and brings routes, identifiers
// and hex into their one form. An id and a name are required. Errors are of type *Error.
func (p *Project) Verify() error { return p.verify("project") }

func (p *Project) verify(input string) error {
	bad := func(field, problem string, reason, err error) error {
		return &Error{Input: input, Field: field, Problem: problem, Reason: reason, Err: err}
	}
	if p.ID == "" {
		return bad("id", "empty, it must be text", ErrMissing, nil)
	}
	if p.Name == "" {
		return bad("name", "empty, it must be text", ErrMissing, nil)
	}
	for _, r := range []struct {
		field string
		route *string
	}{{"access_route", &p.AccessRoute}, {"authority_access_route", &p.AuthorityAccessRoute}} {
		s, err := canonicalRoute(*r.route)
		if err != nil {
			return bad(r.field, routeProblem, ErrInvalid, err)
		}
		*r.route = s
	}
	for _, r := range []struct {
		field, first string
		list         *[]string
	}{{"access_routes", p.AccessRoute, &p.AccessRoutes}, {"authority_access_routes", p.AuthorityAccessRoute, &p.AuthorityAccessRoutes}} {
		if len(*r.list) > maxRoutes {
			return bad(r.field, fmt.Sprintf("%d routes, at most %d are possible", len(*r.list), maxRoutes), ErrInvalid, nil)
		}
		var routes []string
		for _, text := range *r.list {
			s, err := canonicalRoute(text)
			if err != nil {
				return bad(r.field, routeProblem, ErrInvalid, err)
			}
			if s != "" && s != r.first && !slices.Contains(routes, s) {
				routes = append(routes, s)
			}
		}
		*r.list = routes
	}
	for _, c := range []struct {
		field string
		raw   json.RawMessage
	}{{"okta_config", p.OktaConfig}, {"kafka_config", p.KafkaConfig}} {
		if len(c.raw) > 0 && (c.raw[0] != '{' || !json.Valid(c.raw)) {
			return bad(c.field, "must be an object", ErrInvalid, nil)
		}
	}
	if p.Identity != "" {
		id, err := parseIdentifier(p.Identity)
		if err != nil {
			return bad("identity", identifierProblem, ErrInvalid, err)
		}
		p.Identity = id
	}
	if p.ChangeHistory != "" {
		id, history, err := verifyHistory(p.ChangeHistory)
		if err != nil {
			return bad("project_change_history", historyProblem, ErrInvalid, err)
		}
		if p.Identity != "" && p.Identity != id {
			return bad("identity", "must be the identifier of project_change_history, which is "+id, ErrMismatch, nil)
		}
		p.Identity, p.ChangeHistory = id, history
	}
	if len(p.Expects) > maxExpected {
		return bad("expects", fmt.Sprintf("%d identifiers, at most %d are possible", len(p.Expects), maxExpected), ErrInvalid, nil)
	}
	expects := make([]string, 0, len(p.Expects))
	for _, text := range p.Expects {
		id, err := parseIdentifier(text)
		if err != nil {
			return bad("expects", identifierProblem, ErrInvalid, err)
		}
		expects = append(expects, id)
	}
	p.Expects = slices.Compact(slices.Sorted(slices.Values(expects)))
	p.authority = ""
	if p.AuthorityChangeHistory != "" {
		id, history, err := verifyHistory(p.AuthorityChangeHistory)
		if err != nil {
			return bad("authority_identity", historyProblem, ErrInvalid, err)
		}
		p.authority, p.AuthorityChangeHistory = id, history
	}
	if n := len(marshal(p)); n > MaxSize {
		return tooLarge(input, n)
	}
	return nil
}

// AuthorityIdentifier returns the identifier of the authority, or empty text if the project has none.
func (p *Project) AuthorityIdentifier() string { return p.authority }

// CredentialScope returns the scope under which a member keeps its credential (docs/protocol/02 §4.5).
func (p *Project) CredentialScope() string { return "project-member-" + p.ID }

// Missing returns the JSON names of the fields that are still needed before a member can use the project without asking a
// controller (docs/protocol/02 §5.7): both routes and both identities.
func (p *Project) Missing() []string {
	var names []string
	for _, f := range []struct{ name, value string }{
		{"access_route", p.AccessRoute}, {"identity", p.Identity},
		{"authority_access_route", p.AuthorityAccessRoute}, {"authority_identity", p.AuthorityChangeHistory},
	} {
		if f.value == "" {
			names = append(names, f.name)
		}
	}
	return names
}

// Ready reports whether nothing is Missing.
func (p *Project) Ready() bool { return len(p.Missing()) == 0 }

// AccessAddress returns host:port of the project node, or empty text if the route names none.
func (p *Project) AccessAddress() string { return hostPort(p.AccessRoute) }

// AuthorityAccessAddress returns host:port of the authority, or empty text if the route names none.
func (p *Project) AuthorityAccessAddress() string { return hostPort(p.AuthorityAccessRoute) }

func hostPort(route string) string {
	a, err := multiaddr.Parse(route)
	if err != nil {
		return ""
	}
	_, address, _, _ := a.HostPort()
	return address
}
