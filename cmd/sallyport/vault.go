package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/crypto/vault"
	"sallyport/crypto/vault/pkcs11"
	"sallyport/crypto/vault/tpm"
	"sallyport/state"
)

func vaultNoun(a *app) *cobra.Command {
	return noun(groupObjects, "vault", "Vaults: where secret keys are kept", nil, vaultCreate(a), vaultEncrypt(a), vaultMove(a), vaultShow(a), vaultList(a), vaultDelete(a))
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
	out := map[string]any{"is_default": v.IsDefault, "name": v.Name, "vault_type": kind}
	if v.Locked || v.Kind == state.VaultPKCS11 {
		out["opened_by"] = opens(v)
	}
	if v.Kind != "" && v.Kind != state.VaultAWSKMS {
		out["kind"] = v.Kind
	}
	for name, value := range map[string]string{"uri": v.URI, "device": v.Device, "pcrs": v.PCRs} {
		if value != "" {
			out[name] = value
		}
	}
	return map[string]any{"vault": out}
}

// vaultFlags are the flags that say where a vault's keys are and what opens it.
type vaultFlags struct {
	passphrase, kms bool
	pkcs11, pinFile string
	tpm             bool
	home            state.VaultHome
}

// homeFlags adds those that put keys elsewhere than into files.
func (f *vaultFlags) homeFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.pkcs11, "pkcs11", "", "keep the keys in the PKCS#11 token that a `URI` names (RFC 7512)")
	flags.StringVar(&f.pinFile, "pin-file", "", "with --pkcs11: a `FILE` with the PIN; without it the PIN is asked for")
	flags.BoolVar(&f.tpm, "tpm", false, "keep the keys in this machine's TPM 2.0")
	flags.StringVar(&f.home.Device, "tpm-device", "", "with --tpm: the TPM's `DEVICE` (default "+tpm.DefaultDevice+")")
	flags.StringVar(&f.home.PCRs, "pcrs", "", "with --tpm: bind the keys to PCRs, a `LIST` such as 0,2,7")
	flags.BoolVar(&f.kms, "aws-kms", false, "keep the keys in AWS KMS")
	cmd.MarkFlagsMutuallyExclusive("pkcs11", "aws-kms", "tpm")
	cmd.MarkFlagsMutuallyExclusive("tpm", "credential")
	for _, flag := range []string{"passphrase", "passphrase-file", "key-file"} {
		cmd.MarkFlagsMutuallyExclusive("tpm", flag)
		cmd.MarkFlagsMutuallyExclusive("pkcs11", flag)
		cmd.MarkFlagsMutuallyExclusive("aws-kms", flag)
	}
	cmd.MarkFlagsMutuallyExclusive("aws-kms", "credential")
	cmd.MarkFlagsMutuallyExclusive("pin-file", "credential")
}

// prepare returns what makes a vault of a directory, after it has completed the home.
func (f *vaultFlags) prepare(ctx context.Context, a *app) (func(state.Vault) error, error) {
	switch {
	case f.kms:
		f.home.Kind = state.VaultAWSKMS // it is asked when a key is made, as in the reference
		return nil, nil
	case !f.tpm && (f.home.Device != "" || f.home.PCRs != ""):
		return nil, usageError("the arguments '--tpm-device' and '--pcrs' need '--tpm'")
	case f.tpm:
		if f.home.Device == "" {
			f.home.Device = tpm.DefaultDevice
		}
		pcrs, err := tpm.ParsePCRs(f.home.PCRs)
		if err != nil {
			return nil, usageError("invalid value '%s' for '--pcrs': %v", f.home.PCRs, err)
		}
		if f.home.Device, err = filepath.Abs(f.home.Device); err != nil {
			return nil, err
		}
		f.home.Kind = state.VaultTPM
		return func(v state.Vault) error { // it must be there, and let this user make and use keys
			t, err := tpm.Open(v.Path, v.Device, pcrs)
			if err != nil {
				return err
			}
			h, _, err := t.GenerateSigningKey(ctx, vault.P256)
			if err == nil {
				_, err = t.Sign(ctx, h, []byte("a trial"))
				err = errors.Join(err, t.DeleteSigningKey(ctx, h))
			}
			if err != nil {
				return fmt.Errorf("vault %s: %w", v.Name, err)
			}
			return nil
		}, nil
	case f.pinFile != "" && f.pkcs11 == "":
		return nil, usageError("the argument '--pin-file' needs '--pkcs11'")
	case f.pkcs11 != "":
		return f.token(ctx, a)
	}
	secret, err := f.lock(ctx, a)
	if err != nil || secret == nil {
		return nil, err
	}
	return func(v state.Vault) error {
		defer clear(secret.Bytes)
		return vault.Lock(v.Path, nil, *secret)
	}, nil
}

// token prepares a vault in a PKCS#11 token: it must be there, and the PIN right.
func (f *vaultFlags) token(ctx context.Context, a *app) (func(state.Vault) error, error) {
	u, err := pkcs11.ParseURI(f.pkcs11)
	if err != nil {
		return nil, usageError("invalid value '%s' for '--pkcs11': %v", f.pkcs11, err)
	}
	from := f.pinFile
	if from == "" {
		from = u.PINSource
	}
	if from != "" {
		path, b, err := fixedSecret(from, true)
		if err != nil {
			return nil, fmt.Errorf("the PIN: %w", err)
		}
		clear(b)
		f.home.PassphraseFile = path
	}
	u.PINSource = ""
	f.home.Kind, f.home.URI = state.VaultPKCS11, u.String()
	return func(v state.Vault) error {
		t, err := a.openToken(v)
		if err != nil {
			return err
		}
		if err := t.Check(ctx); err != nil {
			return fmt.Errorf("vault %s: %w", v.Name, err)
		}
		return nil
	}, nil
}

// secretFlags adds those that say what opens a vault.
func (f *vaultFlags) secretFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.passphrase, "passphrase", false, "encrypt the keys; the passphrase is asked for")
	flags.StringVar(&f.home.PassphraseFile, "passphrase-file", "", "encrypt the keys with the passphrase in a `FILE`, read at every use")
	flags.StringVar(&f.home.KeyFile, "key-file", "", "encrypt the keys with a `FILE` of 32 random bytes or more")
	flags.StringVar(&f.home.Credential, "credential", "", "encrypt the keys with the passphrase in systemd's credential `NAME`")
	cmd.MarkFlagsMutuallyExclusive("passphrase", "passphrase-file", "key-file", "credential")
}

// lock returns what the keys are to be encrypted with, nil if they are not. The caller wipes it.
func (f *vaultFlags) lock(ctx context.Context, a *app) (*vault.Secret, error) {
	h := &f.home
	switch {
	case h.KeyFile != "":
		path, b, err := fixedSecret(h.KeyFile, false)
		if err != nil {
			return nil, fmt.Errorf("--key-file: %w", err)
		}
		h.KeyFile, h.Locked = path, true
		return &vault.Secret{Bytes: b, Random: true}, nil
	case h.PassphraseFile != "":
		path, b, err := fixedSecret(h.PassphraseFile, true)
		if err != nil {
			return nil, fmt.Errorf("--passphrase-file: %w", err)
		}
		h.PassphraseFile, h.Locked = path, true
		return &vault.Secret{Bytes: b}, nil
	case h.Credential != "":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, withHint(errors.New("--credential: there are no credentials here"), "run the command with systemd-run --pipe -p LoadCredential=%s:/path/to/file", h.Credential)
		}
		if err := state.CheckName("credential", h.Credential); err != nil {
			return nil, err
		}
		b, err := readSecret(filepath.Join(dir, h.Credential), true)
		if err != nil {
			return nil, fmt.Errorf("--credential: %w", err)
		}
		h.Locked = true
		return &vault.Secret{Bytes: b}, nil
	case f.passphrase:
		if !a.canAsk() {
			return nil, withHint(errors.New("--passphrase: there is no terminal to ask for it"), "--passphrase-file, --key-file or --credential need none")
		}
		first, err := a.newPassphrase(ctx, "new passphrase: ")
		if err != nil {
			return nil, err
		}
		h.Locked = true
		return &vault.Secret{Bytes: first}, nil
	}
	return nil, nil
}

// newPassphrase asks a person twice for a passphrase. The caller wipes it.
func (a *app) newPassphrase(ctx context.Context, prompt string) ([]byte, error) {
	first, err := a.readPassword(ctx, prompt)
	if err != nil {
		return nil, err
	}
	again, err := a.readPassword(ctx, "once more: ")
	if err != nil {
		return nil, err
	}
	defer clear(again)
	if !bytes.Equal(first, again) {
		clear(first)
		return nil, errors.New("the passphrases differ")
	}
	return first, nil
}

// fixedSecret reads a file with a secret. Its path is kept if it can be read again; what comes out of a pipe is asked for the next time.
func fixedSecret(path string, line bool) (kept string, b []byte, err error) {
	b, err = readSecret(path, line)
	if err != nil {
		return "", nil, err
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return "", b, nil
	}
	kept, err = filepath.Abs(path)
	return kept, b, err
}

func vaultCreate(a *app) *cobra.Command {
	var path string
	var flags vaultFlags
	cmd := &cobra.Command{Use: "create [NAME] [flags]", Short: "Create a vault", Example: `  sallyport vault create
  sallyport vault create v2
  sallyport vault create locked --key-file vault.key`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			prepare, err := flags.prepare(cmd.Context(), a)
			if err != nil {
				return err
			}
			v, err := d.CreateVault(cmd.Context(), name, path, flags.home, prepare)
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
	flags.secretFlags(cmd)
	flags.homeFlags(cmd)
	return cmd
}

func vaultEncrypt(a *app) *cobra.Command {
	var flags vaultFlags
	cmd := &cobra.Command{Use: "encrypt NAME [flags]", Short: "Encrypt a vault's keys, or change what opens it", Example: `  sallyport vault encrypt default --key-file vault.key
  sallyport vault encrypt default --passphrase-file passphrase`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			d, err := a.dir()
			if err != nil {
				return err
			}
			v, err := d.Vault(args[0])
			if err != nil {
				return ifNotFound(err, fmt.Errorf("the vault %s was not found", args[0]))
			}
			if v.Kind != "" {
				return fmt.Errorf("the keys of vault %s are not files: they are in %s", v.Name, homeOf(v))
			}
			locked, err := vault.IsLocked(v.Path)
			if err != nil {
				return err
			}
			var old *vault.Secret
			if locked {
				err := a.withSecret(ctx, v, func(s vault.Secret) error {
					old = &vault.Secret{Bytes: bytes.Clone(s.Bytes), Random: s.Random}
					_, err := vault.OpenLocked(v.Path, s)
					return err
				})
				if err != nil {
					return err
				}
				defer clear(old.Bytes)
			}
			secret, err := flags.lock(ctx, a)
			if err != nil {
				return err
			}
			if secret == nil {
				return usageError("the following required arguments were not provided: --passphrase, --passphrase-file, --key-file or --credential")
			}
			defer clear(secret.Bytes)
			if err := d.SetVaultHome(ctx, v.Name, flags.home, func() error { return vault.Lock(v.Path, old, *secret) }); err != nil {
				return err
			}
			a.done("Encrypted the vault %s; nodes that run go on and need what opens it at their next start", v.Name)
			return a.print(result{human: v.Name, machine: v.Name, json: map[string]string{"name": v.Name}})
		}}
	flags.secretFlags(cmd)
	return cmd
}

// vaultHome tells people where a vault's keys are and what opens it.
func vaultHome(v state.Vault) []string {
	switch v.Kind {
	case state.VaultPKCS11:
		return []string{"Keys", "in the PKCS#11 token " + v.URI, "Opened by", opens(v)}
	case state.VaultAWSKMS:
		return []string{"Keys", "in AWS KMS"}
	case state.VaultTPM:
		text := "in the TPM " + v.Device
		if v.PCRs != "" {
			text += ", bound to PCRs " + v.PCRs
		}
		return []string{"Keys", text}
	}
	return []string{"Opened by", opens(v)}
}

// opens tells what opens a vault.
func opens(v state.Vault) string {
	what := "passphrase"
	if v.Kind == state.VaultPKCS11 {
		what = "PIN"
	}
	switch {
	case v.KeyFile != "":
		return "key file " + v.KeyFile
	case v.PassphraseFile != "":
		return what + " in " + v.PassphraseFile
	case v.Credential != "":
		return "systemd credential " + v.Credential
	case v.Locked, v.Kind == state.VaultPKCS11:
		return what + ", which is asked for"
	}
	return "nothing: its files are not encrypted"
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
				return ifNotFound(err, fmt.Errorf("the vault %s was not found", args[0]))
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
			if len(list) == 0 { // as in the reference: not an error
				return a.print(result{human: "no vaults; one is made with the first identity", machine: "[]", json: []any{}})
			}
			if len(list) > 1 && name == "" { // as in the reference, which then lets a person choose
				return errNoName("vault")
			}
			v, err := d.Vault(name)
			if err != nil && name == "" {
				return ifNotFound(err, withHint(errors.New("there is no default vault"), "one is made with the first identity: sallyport identity create"))
			}
			if err != nil {
				return ifNotFound(err, fmt.Errorf("the vault %s was not found", name))
			}
			return a.print(result{human: fields(append([]string{"Vault", v.Name, "Directory", v.Path}, vaultHome(v)...)...), machine: v.Name, json: vaultJSON(v)})
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
			list, err := d.Vaults()
			if err != nil {
				return err
			}
			which := deletion{kind: "vault", with: " with all its keys", all: all, yes: yes,
				known: func(name string) error {
					_, err := d.Vault(name)
					return err
				},
				remove: func(name string) error {
					left, err := d.DeleteVault(cmd.Context(), name)
					if left != "" && err == nil {
						a.note("its directory stays: %s", left)
					}
					return err
				}}
			for _, v := range list {
				which.have = append(which.have, v.Name)
			}
			return a.delete(which, args)
		}}
	cmd.Flags().BoolVar(&all, "all", false, "all vaults")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
