//go:build !small

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/node"
	"sallyport/state"
)

// openStore opens the store that an authority has, and says where it is.
func (a *app) openStore(ctx context.Context, o *state.AuthorityOptions) (authority.Store, *node.StoreState, error) {
	where, err := storeURL(o.Store, "--store")
	if err != nil {
		return nil, nil, err
	}
	if where != "" {
		db, err := openPostgres(ctx, where, a.dirOnce.Path())
		if err != nil {
			return nil, nil, err
		}
		return authority.NewStore(db), &node.StoreState{Name: db.Name(), State: db.State}, nil
	}
	if strings.ContainsAny(o.ProjectIdentifier, "/\x00") {
		return nil, nil, usageError("--project-identifier %q must not contain a slash", o.ProjectIdentifier)
	}
	path := a.dirOnce.StorePath(o.ProjectIdentifier)
	store, err := openAuthorityStore(path, o.New)
	if err != nil {
		return nil, nil, err
	}
	opened := time.Now()
	return store, &node.StoreState{Name: path, State: func() (time.Time, error) { return opened, nil }}, nil
}

// madeMarker is the file that tells that there was a store at a path.
func madeMarker(path string) string { return path + ".made" }

// storeThere refuses a store that was there before and has gone, or is empty: it is not made anew without being asked to, since nobody would be a member any more.
func storeThere(path string, anew bool) error {
	info, err := os.Stat(path)
	gone := errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0
	if _, err := os.Stat(madeMarker(path)); err == nil && gone && !anew {
		return fmt.Errorf("the authority's store %s is gone or empty, and with it members and tickets: put a backup in its place, "+
			"or begin with no members: delete %s, or sallyport authority create --new", path, madeMarker(path))
	}
	return nil
}

// openAuthorityStore opens the store of an authority that is there, or was never.
func openAuthorityStore(path string, anew bool) (authority.Store, error) {
	if err := storeThere(path, anew); err != nil {
		return nil, err
	}
	marker := madeMarker(path)
	store, err := authority.OpenStore(path)
	if errors.Is(err, authority.ErrStoreBroken) {
		return nil, fmt.Errorf("%w: put a backup in its place, or move it away and begin with no members: delete %s, or sallyport authority create --new", err, marker)
	}
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

func authorityMigrate(a *app) *cobra.Command {
	var from, to string
	cmd := &cobra.Command{Use: "migrate [flags]", Short: "Move an authority's members to another store, or make a database ready", Example: `  sallyport authority migrate --to @owner.url
  sallyport authority migrate --from ~/.ockam/authority-p1.db --to @store.url`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if to == "" {
				return usageError("the following required arguments were not provided: --to <STORE>")
			}
			target, where, made, err := a.migrationTarget(ctx, to)
			if err != nil {
				return err
			}
			if from == "" {
				err := target.Close()
				if err == nil && !isFile(to) {
					var text string
					if text, err = storeURL(to, "--to"); err == nil {
						err = prepareRegistry(ctx, text)
					}
				}
				if err != nil {
					return err
				}
				a.done("The tables of %s are ready", where)
				return nil
			}
			moved, err := a.migrateFrom(ctx, from, target)
			if err = errors.Join(err, target.Close()); err != nil {
				if made != "" {
					err = errors.Join(err, os.Remove(made))
				}
				return err
			}
			return a.print(result{human: fields("Store", where, "Members", fmt.Sprint(moved.Members), "Tickets", fmt.Sprint(moved.Tickets), "Spent codes", fmt.Sprint(moved.SpentCodes),
				"Revocations", fmt.Sprint(moved.Revocations), "Audit trail", fmt.Sprintf("%d entries, verified", moved.Entries)), machine: where, json: map[string]any{
				"store": where, "members": moved.Members, "tickets": moved.Tickets, "spent_codes": moved.SpentCodes, "revocations": moved.Revocations, "entries": moved.Entries}})
		}}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "the `STORE` to read: a file, a URL, env:VARIABLE or @FILE with a URL")
	f.StringVar(&to, "to", "", "the `STORE` to write, empty, or a file that is not there")
	return cmd
}

// isFile reports whether an argument names an embedded store.
func isFile(store string) bool {
	return !isPostgres(store) && !strings.HasPrefix(store, fromEnvironment) && !strings.HasPrefix(store, fromFile)
}

// migrationTarget opens the store that is written to. made is the file that was made for it, if any.
func (a *app) migrationTarget(ctx context.Context, name string) (store authority.Store, where, made string, err error) {
	if isFile(name) {
		if _, err := os.Lstat(name); err == nil {
			return nil, "", "", fmt.Errorf("--to: %s is there already: %w", name, authority.ErrNotEmpty)
		}
		store, err := authority.OpenStore(name)
		return store, name, name, err
	}
	text, err := storeURL(name, "--to")
	if err != nil {
		return nil, "", "", err
	}
	db, err := openPostgres(ctx, text, os.TempDir())
	if err != nil {
		return nil, "", "", err
	}
	return authority.NewStore(db), db.Name(), "", nil
}

// migrateFrom reads a store. Of a file a copy is read, since opening may bring a file of an earlier version up to date.
func (a *app) migrateFrom(ctx context.Context, name string, target authority.Store) (moved authority.Moved, err error) {
	var source authority.Store
	if isFile(name) {
		if _, err := os.Stat(name); err != nil {
			return moved, fmt.Errorf("--from: %w", err)
		}
		dir, err := os.MkdirTemp(filepath.Dir(name), ".authority-*.tmp")
		if err != nil {
			return moved, err
		}
		defer os.RemoveAll(dir)
		snapshot, err := authority.FileSnapshot(name, dir)
		if errors.Is(err, authority.ErrStoreBusy) {
			return moved, withHint(err, "stop the authority first: what it writes meanwhile would be lost")
		}
		if err != nil {
			return moved, err
		}
		path := filepath.Join(dir, "authority.db")
		if err := errors.Join(snapshot.Save(path), snapshot.Close()); err != nil {
			return moved, err
		}
		if source, err = authority.OpenStore(path); err != nil {
			return moved, err
		}
	} else {
		text, err := storeURL(name, "--from")
		if err != nil {
			return moved, err
		}
		db, err := openPostgres(ctx, text, os.TempDir())
		if err != nil {
			return moved, err
		}
		source = authority.NewStore(db)
	}
	moved, err = authority.Migrate(ctx, source, target)
	return moved, errors.Join(err, source.Close())
}
