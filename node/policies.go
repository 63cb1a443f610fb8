package node

import (
	"context"
	"errors"
	"fmt"

	"sallyport/node/admin"
	"sallyport/policy"
	"sallyport/routing"
)

// existsError makes a taken address match admin.ErrExists.
func existsError(err error) error {
	if errors.Is(err, routing.ErrExists) {
		return fmt.Errorf("%w: %w", admin.ErrExists, err)
	}
	return err
}

// SetPolicy sets the policy of a resource by name, or of a type.
func (n *Node) SetPolicy(_ context.Context, r admin.PolicyRequest) error {
	expr, err := policy.Parse(r.Expression)
	if err != nil {
		return fmt.Errorf("%w: policy expression: %w", admin.ErrInvalid, err)
	}
	var resource policy.Resource
	switch {
	case r.Resource != "" && r.ResourceType != "":
		return fmt.Errorf("%w: give a resource or a resource type, not both", admin.ErrInvalid)
	case r.ResourceType != "":
		kind, err := policy.ParseResourceType(r.ResourceType)
		if err != nil {
			return fmt.Errorf("%w: %w", admin.ErrInvalid, err)
		}
		resource = policy.ByType(kind)
	case r.Resource != "":
		resource = policy.ParseResource(r.Resource) // a type's name means the type (docs/protocol/02 §7.5)
	default:
		return fmt.Errorf("%w: a resource or a resource type must be given", admin.ErrInvalid)
	}
	if err := n.policies.Set(resource, expr); err != nil {
		return fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.save()
}

// Policies lists all policies: first those of resources by name, then those of types.
func (n *Node) Policies() []admin.Policy {
	list := []admin.Policy{}
	for _, e := range n.policies.List() {
		list = append(list, admin.Policy{Resource: e.Resource.String(), Action: policy.HandleMessage.String(), Expression: e.Expr.String()})
	}
	return list
}

// Policy returns the policy of a resource or type.
func (n *Node) Policy(resource string) (admin.Policy, error) {
	for _, p := range n.Policies() {
		if p.Resource == resource {
			return p, nil
		}
	}
	return admin.Policy{}, fmt.Errorf("%w: no policy of %q", admin.ErrNotFound, resource)
}

// DeletePolicy removes the policy of a resource or type; a type without one denies, unless it is set again.
func (n *Node) DeletePolicy(_ context.Context, resource string) error {
	if !n.policies.Delete(policy.ParseResource(resource)) {
		return fmt.Errorf("%w: no policy of %q", admin.ErrNotFound, resource)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.save()
}

// policyRequests are the policies to set again at the next start.
func (n *Node) policyRequests() []admin.PolicyRequest {
	var list []admin.PolicyRequest
	for _, e := range n.policies.List() {
		r := admin.PolicyRequest{Expression: e.Expr.String()}
		if name, ok := e.Resource.Name(); ok {
			r.Resource = name
		} else {
			r.ResourceType = e.Resource.String()
		}
		list = append(list, r)
	}
	return list
}
