package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/term"

	"sallyport/crypto/vault"
	"sallyport/state"
)

// What opens a vault, a passphrase, a key or a PIN, comes from a file, from a credential of systemd, or from a person at a terminal. A node in the
// background has no terminal: the command that starts it asks, and hands the answer over on a pipe.

// maxSecret bounds files with passphrases, keys and PINs, in bytes.
const maxSecret = 64 << 10

// secretsVariable names the descriptor with what a parent asked for.
const secretsVariable = "SALLYPORT_SECRETS_FD"

// maxTries is how often a person is asked.
const maxTries = 3

// withSecret calls open with what opens an encrypted vault. A person may try again while open returns vault.ErrUnlock.
func (a *app) withSecret(ctx context.Context, v state.Vault, open func(vault.Secret) error) error {
	if v.KeyFile != "" {
		b, err := readSecret(v.KeyFile, false)
		if err != nil {
			return withHint(fmt.Errorf("vault %s: its key file: %w", v.Name, err), "put the file back, or restore a backup")
		}
		defer clear(b)
		return secretFault(open(vault.Secret{Bytes: b, Random: true}), v, "key", v.KeyFile)
	}
	for try := 1; ; try++ {
		b, from, err := a.storedSecret(v, "passphrase")
		if err != nil {
			return err
		}
		asked := b == nil
		if asked {
			if b, err = a.askSecret(ctx, v, "passphrase"); err != nil {
				return err
			}
		}
		err = open(vault.Secret{Bytes: b})
		if err == nil && asked {
			a.giveSecret(v.Name, b)
		} else {
			clear(b)
		}
		if !asked || try == maxTries || !errors.Is(err, vault.ErrUnlock) {
			return secretFault(err, v, "passphrase", from)
		}
		a.warn("the passphrase is wrong; try again")
	}
}

// pin returns the PIN of a vault in a token, which the caller wipes. A person is asked once: a token counts wrong ones.
func (a *app) pin(ctx context.Context, v state.Vault) ([]byte, error) {
	b, _, err := a.storedSecret(v, "PIN")
	if b != nil || err != nil {
		return b, err
	}
	if b, err = a.askSecret(ctx, v, "PIN"); err != nil {
		return nil, err
	}
	a.giveSecret(v.Name, bytes.Clone(b))
	return b, nil
}

// storedSecret returns a passphrase or PIN that nobody has to be asked for, and where it is from; nil if somebody has. The caller wipes it.
func (a *app) storedSecret(v state.Vault, what string) (secret []byte, from string, err error) {
	a.takeSecrets()
	if b := a.givenSecret(v.Name); b != nil {
		return b, "", nil
	}
	path := v.PassphraseFile
	if v.Credential != "" {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir != "" {
			path = filepath.Join(dir, v.Credential)
		} else if !a.canAsk() {
			return nil, "", withHint(fmt.Errorf("vault %s: its %s is the systemd credential %q, and there is none here", v.Name, what, v.Credential),
				"in the unit: LoadCredential=%s:/path/to/file, or LoadCredentialEncrypted=", v.Credential)
		}
	}
	if path == "" {
		return nil, "", nil
	}
	b, err := readSecret(path, true)
	if err != nil {
		return nil, "", withHint(fmt.Errorf("vault %s: its %s: %w", v.Name, what, err), "the file has the %s in its first line, and only its owner may read it", what)
	}
	return b, path, nil
}

// secretFault says in one line that a secret is wrong.
func secretFault(err error, v state.Vault, what, path string) error {
	if !errors.Is(err, vault.ErrUnlock) {
		return err
	}
	where := ""
	if path != "" {
		where = " in " + path
	}
	return withHint(fmt.Errorf("the %s of vault %s%s is wrong: %w", what, v.Name, where, err), "sallyport vault show %s tells where the %s is read from", v.Name, what)
}

// canAsk reports whether there is a person to ask.
func (a *app) canAsk() bool { return !a.noInput && isTerminal(a.stdin) && a.stderrTTY }

// askSecret asks a person.
func (a *app) askSecret(ctx context.Context, v state.Vault, what string) ([]byte, error) {
	if !a.canAsk() {
		hint := "keep it in a file or a systemd credential: sallyport vault encrypt --help"
		if what == "PIN" {
			hint = "keep it in a file: sallyport vault create --pin-file"
		}
		return nil, withHint(fmt.Errorf("vault %s needs its %s, and there is no terminal to ask for it", v.Name, what), "%s", hint)
	}
	return a.readPassword(ctx, fmt.Sprintf("%s of vault %s: ", what, v.Name))
}

// readPassword reads a line that is not shown.
func (a *app) readPassword(ctx context.Context, prompt string) ([]byte, error) {
	f, ok := a.stdin.(*os.File)
	if !ok {
		return nil, errors.New("no terminal")
	}
	before, err := term.GetState(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	fmt.Fprint(a.stderr, prompt)
	type outcome struct {
		b   []byte
		err error
	}
	read := make(chan outcome, 1)
	go func() {
		b, err := term.ReadPassword(int(f.Fd()))
		read <- outcome{b, err}
	}()
	select {
	case o := <-read:
		fmt.Fprintln(a.stderr)
		return o.b, o.err
	case <-ctx.Done():
		_ = term.Restore(int(f.Fd()), before)
		fmt.Fprintln(a.stderr)
		return nil, ctx.Err()
	}
}

// readSecret reads a file that only its owner can read, or a pipe. Of a passphrase the end of its line is dropped.
func readSecret(path string, line bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o (chmod 600 %s)", vault.ErrUnsafe, path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(b) > maxSecret {
		err = fmt.Errorf("%s: more than %d bytes", path, maxSecret)
	}
	if err != nil {
		clear(b)
		return nil, err
	}
	if line {
		for n := len(b); n > 0 && (b[n-1] == '\n' || b[n-1] == '\r'); n-- {
			b = b[:n-1]
		}
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return b, nil
}

// givenSecret returns a copy of what a person typed, nil if nobody did.
func (a *app) givenSecret(vaultName string) []byte {
	a.vaults.mu.Lock()
	defer a.vaults.mu.Unlock()
	return bytes.Clone(a.vaults.given[vaultName])
}

// giveSecret keeps what a person typed, for the next use and for a node that this command starts.
func (a *app) giveSecret(vaultName string, b []byte) {
	a.vaults.mu.Lock()
	defer a.vaults.mu.Unlock()
	if a.vaults.given == nil {
		a.vaults.given = map[string][]byte{}
	}
	a.vaults.given[vaultName] = b
}

// takeSecrets reads what the parent of this process asked for, once.
func (a *app) takeSecrets() {
	fd, err := strconv.Atoi(os.Getenv(secretsVariable))
	if err != nil {
		return
	}
	_ = os.Unsetenv(secretsVariable)
	f := os.NewFile(uintptr(fd), "secrets")
	if f == nil {
		return
	}
	defer f.Close()
	var given map[string][]byte
	if json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&given) != nil {
		return
	}
	for name, b := range given {
		a.giveSecret(name, b)
	}
}

// secretsFor opens the vault of an identity that a node in the background will have, so that a person is asked now, and returns a pipe with the
// answers for the node; nil if nobody was asked.
func (a *app) secretsFor(ctx context.Context, identityName string) (*os.File, error) {
	a.takeSecrets()
	if named, err := a.dirOnce.NamedIdentity(identityName); err == nil && a.canAsk() {
		v, err := a.dirOnce.Vault(named.Vault)
		if err != nil {
			return nil, err
		}
		opened, err := a.openVault(v).get(ctx)
		if with, ok := opened.(interface{ Check(context.Context) error }); ok && err == nil {
			err = with.Check(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	a.vaults.mu.Lock()
	defer a.vaults.mu.Unlock()
	if len(a.vaults.given) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(a.vaults.given)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if len(b) > 32<<10 { // what a pipe takes without a reader
		return nil, errors.Join(errors.New("too many passphrases"), r.Close())
	}
	if _, err := w.Write(b); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}
