package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/policy"
)

func policyCommand(a *app) *cobra.Command {
	return noun(groupStory, "policy", "Policies: who may use what", nil, policyCreate(a), policyList(a), policyShow(a), policyDelete(a))
}

func policyCreate(a *app) *cobra.Command {
	var at string
	var r admin.PolicyRequest
	cmd := &cobra.Command{Use: "create --resource NAME --allow EXPRESSION [flags]", Short: "Set the policy of a resource or of a type", Example: `  sallyport policy create --resource db --allow 'company=acme and not suspended'
  sallyport policy create --resource-type tcp-outlet --allow '(= subject.company "acme")'`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.Expression == "" && !cmd.Flags().Changed("allow") {
				return usageError("the following required arguments were not provided: --allow <EXPRESSION>")
			}
			if err := checkAllow(cmd, r.Expression); err != nil {
				return err
			}
			if r.Resource != "" && r.ResourceType != "" {
				return usageError("the argument '--resource-type' cannot be used with '--resource'")
			}
			if r.Resource == "" && r.ResourceType == "" {
				return errors.New("resource or resource type must be provided")
			}
			if r.ResourceType != "" {
				if _, err := policy.ParseResourceType(r.ResourceType); err != nil {
					return usageError("invalid value '%s' for '--resource-type': %v", r.ResourceType, err)
				}
			}
			if a.collect != nil {
				name := r.Resource + r.ResourceType
				return a.collect(resource.KindPolicy, &name, &r)
			}
			c, node, err := a.firstClient(cmd.Context(), at)
			if err != nil {
				return err
			}
			if _, err := admin.Post[struct{}](cmd.Context(), c, admin.PathPolicies, r); err != nil {
				return err
			}
			return a.print(result{human: "  ✔ Policy created at node " + node})
		}}
	f := cmd.Flags()
	f.StringVar(&r.Resource, "resource", "", "the `NAME` of an outlet, an inlet or a service")
	f.StringVar(&r.ResourceType, "resource-type", "", "all resources of a `TYPE`, such as tcp-outlet or tcp-inlet")
	f.StringVar(&r.Expression, "allow", "", "the `EXPRESSION`")
	f.StringVar(&at, "at", "", "`NODE` (default: the default node)")
	flagAliases(cmd, "expression", "allow")
	return cmd
}

func policyList(a *app) *cobra.Command {
	var resource, at string
	cmd := &cobra.Command{Use: "list [RESOURCE] [flags]", Short: "List a node's policies", Example: `  sallyport policy list
  sallyport policy list tcp-outlet --jq '.[].expression'`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				resource = args[0]
			}
			c, node, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			list, err := admin.Get[[]admin.Policy](cmd.Context(), c, admin.PathPolicies)
			if err != nil {
				return err
			}
			out, rows := []admin.Policy{}, [][]string{}
			for _, p := range list {
				if resource != "" && p.Resource != resource {
					continue
				}
				out = append(out, p)
				rows = append(rows, []string{p.Resource, p.Expression})
			}
			if len(out) == 0 {
				return a.print(result{human: "  > No policies on Node " + node}) // as in the reference: no JSON either
			}
			return a.print(result{human: table([]string{"RESOURCE", "EXPRESSION"}, rows), json: out})
		}}
	cmd.Flags().StringVar(&at, "at", "", "`NODE` to ask (default: the default node)")
	cmd.Flags().StringVar(&resource, "resource", "", "only that `RESOURCE`")
	cmd.Flags().StringVar(&resource, "resource-type", "", "only that `TYPE`")
	return cmd
}

func policyShow(a *app) *cobra.Command {
	cmd := showCommand(a, "Show a policy", `  sallyport policy show tcp-outlet
  sallyport policy show db --at n1 --jq .expression`, "policy", func(ctx context.Context, c *admin.Client, _, name string) (result, error) {
		p, err := admin.Get[admin.Policy](ctx, c, admin.Item(admin.PathPolicies, name))
		if notFound(err) {
			return result{human: "no policy of " + name, machine: "[]", json: []any{}}, nil // as in the reference: not an error
		}
		return result{human: fields("Resource", p.Resource, "Expression", p.Expression), json: p}, err
	})
	return cmd
}

func policyDelete(a *app) *cobra.Command {
	return deleteCommand(a, "Delete a policy: the one of the type applies then, or nobody may", `  sallyport policy delete db --yes
  sallyport policy delete --all --at n1 --yes`, "policy", admin.PathPolicies,
		func(ctx context.Context, c *admin.Client) ([]string, error) {
			list, err := admin.Get[[]admin.Policy](ctx, c, admin.PathPolicies)
			var names []string
			for _, p := range list {
				names = append(names, p.Resource)
			}
			return names, err
		},
		func(_, name string) result {
			return result{human: "  ✔ Policy for resource " + name + " has been deleted"}
		})
}
