package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/routing"
)

// Who may use a resource is said, in this order, by a policy of its own name, by what the resource itself asks for (--allow), and by
// the policy of its type. All that is in effect is in n.policies, a policy.Set. A policy that there should be and that could not be
// opened keeps closed what it guards: see portalGuard.

func addPolicies(n *Node) {
	n.policyTable = table.Add(n.set, table.Kind[resource.Policy, policy.Resource]{
		Name: resource.KindPolicy, Noun: "policy",
		Key:   policyName,
		Check: func(_ context.Context, r *resource.Policy, _ func(string) bool) error { return checkPolicy(r) },
		Open: func(_ context.Context, o *table.Opening[resource.Policy]) (policy.Resource, error) {
			return n.enact(&o.Request)
		},
		InPlace: []string{"allow"},
		Update: func(_ context.Context, _ policy.Resource, _, to *resource.Policy) error {
			_, err := n.enact(to)
			return err
		},
		Close:    func(_ context.Context, p policy.Resource) error { n.repeal(p); return nil },
		Replaces: true,
	})
}

// policyName returns what a policy is of: a resource by name, or a type.
func policyName(r *resource.Policy) *string {
	if r.ResourceType != "" {
		return &r.ResourceType
	}
	return &r.Resource
}

// checkPolicy refuses what is no policy. A type's name means the type (docs/protocol/02 §7.5).
func checkPolicy(r *resource.Policy) error {
	if _, err := policy.Parse(r.Expression); err != nil {
		return fmt.Errorf("%w: policy expression: %w", admin.ErrInvalid, err)
	}
	switch {
	case r.Resource != "" && r.ResourceType != "":
		return fmt.Errorf("%w: give a resource or a resource type, not both", admin.ErrInvalid)
	case r.Resource == "" && r.ResourceType == "":
		return fmt.Errorf("%w: a resource or a resource type must be given", admin.ErrInvalid)
	case r.ResourceType != "":
		if _, err := policy.ParseResourceType(r.ResourceType); err != nil {
			return fmt.Errorf("%w: %w", admin.ErrInvalid, err)
		}
	default:
		if _, byName := policy.ParseResource(r.Resource).Name(); !byName {
			r.Resource, r.ResourceType = "", r.Resource
		}
	}
	return nil
}

// enact makes a policy the one in effect.
func (n *Node) enact(r *resource.Policy) (policy.Resource, error) {
	p := policy.ParseResource(*policyName(r))
	expr, err := policy.Parse(r.Expression)
	if err != nil {
		return p, fmt.Errorf("%w: policy expression: %w", admin.ErrInvalid, err)
	}
	if err := n.policies.Set(p, expr); err != nil {
		return p, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	return p, nil
}

// repeal ends a policy: what a resource asks for itself decides again, or the default of a type.
func (n *Node) repeal(p policy.Resource) {
	if t, byType := p.Type(); !byType || t.Base() != t {
		n.policies.Delete(p)
	} else {
		_ = n.policies.Set(p, policy.DefaultExpr()) // never refused
	}
}

// asking is a kind of resource whose requests can ask for a policy themselves.
type asking struct {
	kind string
	// has reports whether there is a resource that a policy's name belongs to.
	has func(name string) bool
	// forget makes the resource that a policy's name belongs to ask for nothing.
	forget func(ctx context.Context, name string) error
}

// policed makes an asking of a table. field returns where a request has the policy of a name, nil if the name is not its.
func policed[R, V any](kind string, t *table.Table[R, V], field func(r *R, name string) *string) asking {
	find := func(name string) (R, *string) {
		for _, i := range t.List() {
			if p := field(&i.Request, name); p != nil {
				return i.Request, p
			}
		}
		var none R
		return none, nil
	}
	return asking{
		kind: kind,
		has: func(name string) bool {
			_, p := find(name)
			return p != nil
		},
		forget: func(ctx context.Context, name string) error {
			r, p := find(name)
			if p == nil || *p == "" {
				return nil
			}
			return t.Note(ctx, t.Name(&r), func(r *R) { *field(r, name) = "" })
		},
	}
}

// checkAllow refuses a portal's own policy that cannot be read. The empty one is none.
func checkAllow(text string) error {
	if text == "" {
		return nil
	}
	if _, err := policy.Parse(text); err != nil {
		return fmt.Errorf("%w: --allow: %w", admin.ErrInvalid, err)
	}
	return nil
}

// setPolicyOf puts into effect what a resource asks for itself; the empty text is nothing.
func (n *Node) setPolicyOf(own policy.Resource, allow string) {
	if expr, err := policy.Parse(allow); err == nil {
		_ = n.policies.Set(own, expr)
		return
	}
	n.policies.Delete(own)
}

// dropPolicyOf ends what setPolicyOf began, for a resource that is closed.
func (n *Node) dropPolicyOf(own policy.Resource) { n.policies.Delete(own) }

// overrulePolicy lets what a command asks for with --allow take the place of a policy of the same name, as in the reference. Where that policy also
// decides about a resource of another kind it stays, and the command is refused: it would open what it does not name.
func (n *Node) overrulePolicy(ctx context.Context, kind, name, allow string) error {
	if allow == "" {
		return nil
	}
	if i, there := n.policyTable.Get(name); !there || i.Request.ResourceType != "" { // a type's name may be a resource's too
		return nil
	}
	for _, a := range n.policed {
		if a.kind != kind && a.has(name) {
			return fmt.Errorf("%w: --allow would take the place of the policy of the name %q, which also decides about the %s of that name: choose another name, or delete the policy first",
				admin.ErrInvalid, name, a.kind)
		}
	}
	if err := n.policyTable.Delete(ctx, name); !errors.Is(err, admin.ErrNotFound) {
		return err
	}
	return nil
}

// errNoPolicy reports that a policy that there should be is not in effect.
var errNoPolicy = errors.New("it stays closed: its policy is not in effect")

// policyReady fails while a policy that is to decide about a resource could not be opened.
func (n *Node) policyReady(own policy.Resource, kind policy.ResourceType, allow string) error {
	name, _ := own.Name()
	of := name
	i, there := n.policyTable.Get(of)
	if !there && allow == "" {
		of = kind.String()
		if i, there = n.policyTable.Get(of); !there {
			of = kind.Base().String()
			i, there = n.policyTable.Get(of)
		}
	}
	if there && !i.IsOpen {
		return fmt.Errorf("%w: policy %s: %s", errNoPolicy, of, i.Status.Reason)
	}
	return checkAllow(allow)
}

// portalGuard puts a portal's own policy into effect and returns the portal's guard.
func (n *Node) portalGuard(own policy.Resource, kind policy.ResourceType, authority *identity.Identifier, allow string) (*guard, error) {
	if err := n.policyReady(own, kind, allow); err != nil {
		return nil, err
	}
	n.setPolicyOf(own, allow)
	g := n.access.portalGuard(own, kind, authority)
	if g.isOpen() {
		n.log.Warn("portal is open to every peer that can reach it: the node has no authority and no policy was given", "portal", g.name)
	}
	return g, nil
}

// SetPolicy sets the policy of a resource by name, or of a type.
func (n *Node) SetPolicy(ctx context.Context, r resource.Policy) error {
	_, err := n.policyTable.Create(ctx, r)
	return err
}

// Policies lists all policies in effect: first those of resources by name, then those of types.
func (n *Node) Policies() []admin.Policy {
	return each(n.policies.List(), func(e policy.Entry) admin.Policy {
		return admin.Policy{Resource: e.Resource.String(), Action: policy.HandleMessage.String(), Expression: e.Expr.String()}
	})
}

// DeletePolicy removes the policy of a resource or type, also what the resource asked for itself. A type without a policy denies
// until the next start, which sets its default.
func (n *Node) DeletePolicy(ctx context.Context, name string) error {
	p := policy.ParseResource(name)
	_, byName := p.Name()
	var list []policy.Resource // of the name: a policy, and what resources of any kind ask for
	for _, e := range n.policies.List() {
		if of, named := e.Resource.Name(); e.Resource == p || byName && named && of == name {
			list = append(list, e.Resource)
		}
	}
	if len(list) == 0 {
		return fmt.Errorf("%w: no policy of %q", admin.ErrNotFound, name)
	}
	err := n.policyTable.Delete(ctx, name)
	if errors.Is(err, admin.ErrNotFound) {
		err = nil
	}
	if byName {
		for _, a := range n.policed {
			err = errors.Join(err, a.forget(ctx, name))
		}
	}
	for _, r := range list {
		n.policies.Delete(r)
	}
	return err
}

// mountPolicies adds the routes of policies: they show what is in effect, not only what was asked for.
func (n *Node) mountPolicies(mux *http.ServeMux) {
	mux.HandleFunc("POST "+admin.PathPolicies, admin.Handle(func(ctx context.Context, r resource.Policy) (struct{}, error) {
		return struct{}{}, n.SetPolicy(ctx, r)
	}))
	mux.HandleFunc("GET "+admin.PathPolicies, func(w http.ResponseWriter, _ *http.Request) { admin.Write(w, n.Policies()) })
	mux.HandleFunc("GET "+admin.PathPolicies+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		for _, p := range n.Policies() {
			if p.Resource == name {
				admin.Write(w, p)
				return
			}
		}
		admin.WriteError(w, fmt.Errorf("%w: no policy of %q", admin.ErrNotFound, name))
	})
	mux.HandleFunc("DELETE "+admin.PathPolicies+"/{name}", remove(n.DeletePolicy))
}

// existsError makes a taken address match admin.ErrExists.
func existsError(err error) error {
	if errors.Is(err, routing.ErrExists) {
		return fmt.Errorf("%w: %w", admin.ErrExists, err)
	}
	return err
}
