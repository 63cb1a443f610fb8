//go:build !small

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/backup"
	"sallyport/crypto/vault"
	"sallyport/internal/wholefile"
	"sallyport/node/admin"
	"sallyport/state"
)

func init() { nouns = append(nouns, backupCommand, restoreCommand) }

// backupSecret are the flags that say what a backup is encrypted with.
type backupSecret struct{ passphraseFile, keyFile string }

func (b *backupSecret) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.passphraseFile, "passphrase-file", "", "a `FILE` with the passphrase; without it and --key-file it is asked for")
	cmd.Flags().StringVar(&b.keyFile, "key-file", "", "a `FILE` of 32 random bytes or more instead")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "key-file")
}

// read returns the secret, which the caller wipes. ask asks a person.
func (b *backupSecret) read(a *app, ask func() ([]byte, error)) (s vault.Secret, err error) {
	switch {
	case b.keyFile != "":
		if s.Bytes, err = readSecret(b.keyFile, false); err != nil {
			return s, fmt.Errorf("--key-file: %w", err)
		}
		s.Random = true
		return s, nil
	case b.passphraseFile != "":
		if s.Bytes, err = readSecret(b.passphraseFile, true); err != nil {
			return s, fmt.Errorf("--passphrase-file: %w", err)
		}
		return s, nil
	case !a.canAsk():
		return s, withHint(errors.New("a backup is encrypted, and there is no terminal to ask for its passphrase"), "give --passphrase-file or --key-file")
	}
	s.Bytes, err = ask()
	return s, err
}

func backupCommand(a *app) *cobra.Command {
	var secret backupSecret
	var node string
	var force bool
	cmd := &cobra.Command{Use: "backup FILE [flags]", Short: "Write all state, or a node's, into an encrypted file", GroupID: groupOther, Example: `  sallyport backup box.backup --passphrase-file passphrase
  sallyport backup n1.backup --node n1 --key-file backup.key`, Args: cobra.ExactArgs(1),
		Long: `Write identities with their keys, nodes with their portals, projects, and authorities with their
members into an encrypted file, as all of it is at one moment. Nodes go on meanwhile. FILE may be
- for standard output.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if a.isInMemory {
				return errors.New("what is in memory cannot be backed up")
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			path := args[0]
			if _, err := os.Lstat(path); err == nil && path != "-" && !force {
				return withHint(fmt.Errorf("%s: %w", path, fs.ErrExist), "choose another name, or replace it: --force")
			}
			if path == "-" && a.stdoutTTY {
				return withHint(errors.New("a backup is not for a terminal"), "send it somewhere: sallyport backup - > FILE")
			}
			s, err := secret.read(a, func() ([]byte, error) { return a.newPassphrase(ctx, "passphrase of the backup: ") })
			defer clear(s.Bytes)
			if err != nil {
				return err
			}
			made := time.Now()
			stores, c, err := a.takeCopy(ctx, d, node)
			if err != nil {
				return err
			}
			defer c.Wipe()
			defer closeAll(stores)
			m := backup.Manifest{Program: version(), Made: made, Node: node, From: d.Path(), Elsewhere: c.Elsewhere}
			var size int64
			if path == "-" {
				size, err = writeBackup(a.stdout, s, m, c, stores)
			} else {
				size, err = writeBackupFile(path, s, m, c, stores)
			}
			if err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			a.tellElsewhere(c.Elsewhere)
			if path == "-" {
				return nil
			}
			return a.print(result{human: fields("Backup", path, "Size", fmt.Sprintf("%d bytes", size), "Identities", fmt.Sprint(len(c.Identities)), "Nodes", fmt.Sprint(len(c.Nodes)),
				"Authorities", fmt.Sprint(len(stores))), machine: path, json: map[string]any{"file": path, "bytes": size, "made": made.UTC().Format(time.RFC3339),
				"identities": len(c.Identities), "nodes": len(c.Nodes), "authorities": len(stores), "elsewhere": listOf(c.Elsewhere)}})
		}}
	secret.flags(cmd)
	cmd.Flags().StringVar(&node, "node", "", "only the `NODE` of this name, with its identity: an authority is one")
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE")
	return cmd
}

// listOf is a list for JSON, empty where there is none.
func listOf[T any](list []T) []T { return append([]T{}, list...) }

// tellElsewhere says what a backup does not hold.
func (a *app) tellElsewhere(list []state.Elsewhere) {
	for _, e := range list {
		a.note("not in the backup: %s (%s)", e.What, e.At)
	}
}

// takeCopy reads the state, and the stores of the authorities, which are there even if their nodes run.
func (a *app) takeCopy(ctx context.Context, d *state.Dir, node string) (stores map[string]*os.File, c *state.Copy, err error) {
	if c, err = d.Copy(ctx, node); err != nil {
		return nil, nil, err
	}
	stores = map[string]*os.File{}
	for _, name := range c.Stores {
		s, err := takeStore(ctx, d, name)
		if err != nil {
			closeAll(stores)
			c.Wipe()
			return nil, nil, err
		}
		stores[name] = s
	}
	return stores, c, nil
}

func closeAll(stores map[string]*os.File) {
	for _, f := range stores {
		_ = f.Close()
	}
}

// storeBusy is how long a store may be neither free nor its node there: it starts or stops.
const storeBusy = 10 * time.Second

// takeStore copies an authority's store: its node does if it runs.
func takeStore(ctx context.Context, d *state.Dir, name string) (*os.File, error) {
	for began := time.Now(); ; {
		nodes, err := d.Nodes()
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(nodes, func(n state.Node) bool {
			return n.Options.Authority != nil && filepath.Base(d.StorePath(n.Options.Authority.ProjectIdentifier)) == name && n.Status() == state.Running
		})
		if i >= 0 {
			f, err := fetchStore(ctx, d, admin.NewClient(nodes[i].AdminSocket))
			if err == nil || !errors.Is(err, admin.ErrNotRunning) || time.Since(began) > storeBusy {
				return f, err
			}
		} else {
			s, err := authority.FileSnapshot(filepath.Join(d.Path(), name), d.Path())
			if err == nil {
				return s.File, nil
			}
			if !errors.Is(err, authority.ErrStoreBusy) || time.Since(began) > storeBusy {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// fetchStore has the authority's node copy its store.
func fetchStore(ctx context.Context, d *state.Dir, c *admin.Client) (*os.File, error) {
	body, size, err := c.Fetch(ctx, admin.PathStore)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	f, err := os.CreateTemp(d.Path(), ".authority-*.tmp")
	if err == nil {
		err = os.Remove(f.Name())
	}
	if err != nil {
		return nil, err
	}
	if _, err = io.CopyN(f, body, size); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the authority's store: %w", err), f.Close())
	}
	return f, nil
}

// writeBackupFile writes a file that is there as a whole or not at all.
func writeBackupFile(path string, s vault.Secret, m backup.Manifest, c *state.Copy, stores map[string]*os.File) (size int64, err error) {
	err = wholefile.Write(path, "."+filepath.Base(path)+".*", 0o600, func(w io.Writer) error {
		size, err = writeBackup(w, s, m, c, stores)
		return err
	})
	if err != nil {
		return 0, err
	}
	return size, nil
}

func writeBackup(w io.Writer, s vault.Secret, m backup.Manifest, c *state.Copy, stores map[string]*os.File) (int64, error) {
	out := &counter{w: w}
	b, err := backup.NewWriter(out, s, m)
	if err != nil {
		return 0, err
	}
	for _, f := range c.Files {
		if err := b.Add(f.Name, int64(len(f.Data)), bytes.NewReader(f.Data)); err != nil {
			return 0, err
		}
	}
	for name, f := range stores {
		info, err := f.Stat()
		if err == nil {
			err = b.Add(name, info.Size(), f)
		}
		if err != nil {
			return 0, err
		}
	}
	err = b.Close()
	return out.n, err
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func restoreCommand(a *app) *cobra.Command {
	var secret backupSecret
	var force, check, keepTickets bool
	cmd := &cobra.Command{Use: "restore FILE [flags]", Short: "Put back what backup wrote", GroupID: groupOther, Example: `  sallyport restore box.backup --passphrase-file passphrase --check
  sallyport restore box.backup --passphrase-file passphrase`, Args: cobra.ExactArgs(1),
		Long: `Put the state of a backup in place, all of it or nothing, after all of it was checked. Nodes are
not started. Where there is state already, --force moves that aside.

An authority does not know what happened since its backup: whom it let in is no member, whom it
deleted is one again, and its tickets, which may have been used since, are revoked.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() {
				return withHint(fmt.Errorf("%s is not a file", args[0]), "a backup is read twice: write it to a file first")
			}
			if _, err := backup.Kind(f, info.Size()); err != nil {
				return restoreFault(args[0], err)
			}
			s, err := secret.read(a, func() ([]byte, error) { return a.readPassword(ctx, "passphrase of the backup: ") })
			defer clear(s.Bytes)
			if err != nil {
				return err
			}
			r, err := backup.Open(f, info.Size(), s)
			if err != nil {
				return restoreFault(args[0], err)
			}
			var files, bytes int64
			if err := r.Each(func(_ string, size int64, _ io.Reader) error { files, bytes = files+1, bytes+size; return nil }); err != nil {
				return restoreFault(args[0], err)
			}
			at := r.Manifest.Made.UTC().Format(time.RFC3339)
			what := map[string]any{"file": args[0], "made": at, "from": r.Manifest.From, "node": r.Manifest.Node, "files": files, "bytes": bytes, "elsewhere": listOf(r.Manifest.Elsewhere)}
			rows := []string{"Backup of", r.Manifest.From, "Made", at, "Files", fmt.Sprint(files), "Bytes", fmt.Sprint(bytes)}
			if check {
				a.tellElsewhere(r.Manifest.Elsewhere)
				return a.print(result{human: fields(rows...), machine: at, json: what})
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			replaced, revoked, err := putBack(ctx, d, r, force, keepTickets)
			if err != nil {
				return restoreFault(args[0], err)
			}
			a.tellElsewhere(r.Manifest.Elsewhere)
			if replaced != "" {
				a.note("what was there before is in %s", replaced)
			}
			for _, name := range sortedNames(revoked) {
				a.note("%s does not know what happened since %s: delete again whom you deleted since then; %s revoked", strings.TrimSuffix(name, ".db"), at,
					plural(revoked[name], "ticket"))
			}
			what["directory"], what["replaced"], what["tickets_revoked"] = d.Path(), replaced, revoked
			nodes, err := d.Nodes()
			if err != nil {
				return err
			}
			names := []string{}
			for _, n := range nodes {
				names = append(names, n.Name)
			}
			what["nodes"] = names
			a.hint("start what is to run here, and nowhere else: sallyport node start %s", strings.Join(names, " "))
			return a.print(result{human: fields(append(rows, "Restored to", d.Path(), "Nodes", strings.Join(names, ", "))...), machine: d.Path(), json: what})
		}}
	secret.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&force, "force", false, "move state that is there aside")
	f.BoolVar(&check, "check", false, "only check the backup, and say what it is")
	f.BoolVar(&keepTickets, "keep-tickets", false, "tickets stay good: the authority has not run since its backup")
	cmd.MarkFlagsMutuallyExclusive("check", "force")
	cmd.MarkFlagsMutuallyExclusive("check", "keep-tickets")
	return cmd
}

// putBack restores a backup that was checked, and returns where what was there is now, and how many tickets were revoked of each authority.
func putBack(ctx context.Context, d *state.Dir, r *backup.Reader, force, keepTickets bool) (replaced string, revoked map[string]int, err error) {
	if running := d.FindRunning(); len(running) > 0 {
		return "", nil, withHint(&state.InUseError{Kind: "state directory", Name: d.Path(), By: []string{fmt.Sprintf("running node %q", running[0].Name)}},
			"stop it first: sallyport node stop %s", running[0].Name)
	}
	revoked = map[string]int{}
	replaced, err = d.Restore(ctx, force, func(s *state.Staging) error {
		if err := r.Each(func(name string, _ int64, content io.Reader) error {
			f, err := s.Create(name)
			if err != nil {
				return err
			}
			_, err = io.Copy(f, content)
			return errors.Join(err, f.Close())
		}); err != nil {
			return err
		}
		stores, err := s.Stores()
		if err != nil {
			return err
		}
		for _, path := range stores {
			if revoked[filepath.Base(path)], err = authority.Restored(ctx, path, r.Manifest.Made, keepTickets); err != nil {
				return err
			}
		}
		return nil
	})
	return replaced, revoked, err
}

// restoreFault says in one line why a backup is not restored, and what to do.
func restoreFault(path string, err error) error {
	switch {
	case errors.Is(err, backup.ErrSecret):
		return withHint(fmt.Errorf("%s: %w", path, err), "nothing was restored; if the passphrase is right the file was changed: take another backup")
	case errors.Is(err, backup.ErrDamaged), errors.Is(err, backup.ErrFormat):
		return withHint(fmt.Errorf("%s: %w", path, err), "nothing was restored; take another backup")
	case errors.Is(err, backup.ErrVersion):
		return withHint(fmt.Errorf("%s: %w", path, err), "restore it with the version that made it, or a later one")
	case errors.Is(err, state.ErrNotEmpty):
		return withHint(err, "to move it aside: --force; to restore elsewhere: SALLYPORT_HOME=DIRECTORY sallyport restore")
	}
	return err
}
