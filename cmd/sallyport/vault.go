package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sallyport/state"
)

func vaultNoun(a *app) *cobra.Command {
	return noun(groupObjects, "vault", "Vaults: where secret keys are kept", nil, vaultCreate(a), vaultMove(a), vaultShow(a), vaultList(a), vaultDelete(a))
}

// vaultJSON has the reference's shape.
func vaultJSON(v state.Vault) map[string]any {
	kms := "No"
	if v.KMS {
		kms = "Yes"
	}
	kind := map[string]any{"LocalFileVault": map[string]string{"path": v.Path, "use_aws_kms": kms}}
	if v.Name == state.DefaultName {
		kind = map[string]any{"DatabaseVault": map[string]string{"use_aws_kms": kms}}
	}
	return map[string]any{"vault": map[string]any{"is_default": v.IsDefault, "name": v.Name, "vault_type": kind}}
}

func vaultCreate(a *app) *cobra.Command {
	var path string
	var kms bool
	cmd := &cobra.Command{Use: "create [NAME] [flags]", Short: "Create a vault", Example: `  sallyport vault create
  sallyport vault create v2`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			if kms {
				return withHint(fmt.Errorf("vaults in a key management service are not supported"), "leave --aws-kms out: keys are then files that only you can read")
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			v, err := d.CreateVault(cmd.Context(), name, path, false)
			if err != nil {
				return err
			}
			if v.IsDefault {
				a.note("Created the vault %s, the default from now on", v.Name)
			} else {
				a.done("Created the vault %s", v.Name)
			}
			return a.print(result{human: v.Name, machine: v.Name, json: map[string]string{"name": v.Name}})
		}}
	cmd.Flags().StringVar(&path, "path", "", "the `DIRECTORY` for its keys")
	cmd.Flags().BoolVar(&kms, "aws-kms", false, "")
	hide(cmd, "aws-kms")
	return cmd
}

func vaultMove(a *app) *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "move NAME --path DIRECTORY", Short: "Move a vault's keys to another directory", Example: `  sallyport vault move v2 --path "$HOME/keys"`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if path == "" {
				return usageError("the following required arguments were not provided: --path <DIRECTORY>")
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			v, err := d.Vault(args[0])
			if err != nil {
				return fmt.Errorf("the vault %s was not found", args[0])
			}
			if v.IsDefault { // as in the reference, where it has no path of its own
				return fmt.Errorf("the vault %s cannot be moved to %s because this is the default vault", v.Name, path)
			}
			if err := d.MoveVault(cmd.Context(), args[0], path); err != nil {
				return err
			}
			a.note("%s Moved the vault %s to %s", a.color(green, "✔"), args[0], path)
			return nil
		}}
	cmd.Flags().StringVar(&path, "path", "", "the new `DIRECTORY`")
	return cmd
}

func vaultShow(a *app) *cobra.Command {
	return &cobra.Command{Use: "show [NAME]", Short: "Show a vault", Example: `  sallyport vault show v2
  sallyport vault show default --jq .vault.name`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			list, err := d.Vaults()
			if err != nil {
				return err
			}
			if len(list) > 1 && name == "" { // as in the reference, which then lets a person choose
				return errNoName("vault")
			}
			v, err := d.Vault(name)
			if err != nil && name == "" {
				return withHint(errors.New("there is no default vault"), "one is made with the first identity: sallyport identity create")
			}
			if err != nil {
				return fmt.Errorf("the vault %s was not found", name)
			}
			return a.print(result{human: fields("Vault", v.Name, "Directory", v.Path), machine: v.Name, json: vaultJSON(v)})
		}}
}

func vaultList(a *app) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List this user's vaults", Example: `  sallyport vault list
  sallyport vault list --jq '.[].vault.name'`, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			d, err := a.dir()
			if err != nil {
				return err
			}
			list, err := d.Vaults()
			out, rows := []any{}, [][]string{}
			for _, v := range list {
				out = append(out, vaultJSON(v))
				rows = append(rows, []string{v.Name, v.Path})
			}
			if err != nil {
				return err
			}
			return a.print(result{human: tableOr("no vaults; one is made with the first identity", []string{"VAULT", "DIRECTORY"}, rows), json: out})
		}}
}

func vaultDelete(a *app) *cobra.Command {
	var all, yes bool
	cmd := &cobra.Command{Use: "delete [NAME] [flags]", Short: "Delete a vault with its keys", Example: `  sallyport vault delete v2 --yes
  sallyport vault delete --all --yes`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.dir()
			if err != nil {
				return err
			}
			names := args
			if all {
				names = nil
				list, err := d.Vaults()
				if err != nil {
					return err
				}
				for _, v := range list {
					names = append(names, v.Name)
				}
			} else if len(args) == 0 {
				list, err := d.Vaults()
				if err != nil {
					return err
				}
				return a.nothingChosen(len(list))
			}
			for _, name := range names {
				if _, err := d.Vault(name); err != nil {
					return fmt.Errorf("the vault %s was not found", name)
				}
				if err := a.confirm(yes, "Delete the vault "+name+" with all its keys"); err != nil {
					return err
				}
				left, err := d.DeleteVault(cmd.Context(), name)
				if err != nil {
					return err
				}
				if left != "" {
					a.note("its directory stays: %s", left)
				}
				if err := a.print(result{human: "deleted the vault " + name, machine: name, json: map[string]string{"name": name}}); err != nil {
					return err
				}
			}
			return nil
		}}
	cmd.Flags().BoolVar(&all, "all", false, "all vaults")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
