package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/authority"
	"sallyport/node"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// storeVariable names the database of an authority for which no flag does.
const storeVariable = "SALLYPORT_STORE"

// What goes before the name of a variable, and the path of a file, that has a URL.
const (
	fromEnvironment = "env:"
	fromFile        = "@"
)

// followStore is how often an authority looks what others have written into a store that is not its own alone.
const followStore = time.Second

// remoteDatabase is a database that may be away.
type remoteDatabase interface {
	authority.Database
	// Name says where it is, without secrets.
	Name() string
	// State returns since when it is there, or away and why.
	State() (since time.Time, away error)
}

func storeFlag(f *pflag.FlagSet, store *string) {
	f.StringVar(store, "store", "", "keep members in PostgreSQL: `URL`, env:VARIABLE or @FILE")
}

// checkStore checks and completes what was said of an authority's store, so that it is found again at the next start.
func checkStore(store *string) error {
	if *store == "" && os.Getenv(storeVariable) != "" {
		*store = fromEnvironment + storeVariable
	}
	return completeStore(store, "--store")
}

// completeStore makes a path one that is found from elsewhere too, and checks.
func completeStore(store *string, flag string) error {
	if path, ok := strings.CutPrefix(*store, fromFile); ok {
		path, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		*store = fromFile + path // the next start may be elsewhere
	}
	_, err := storeURL(*store, flag)
	return err
}

func registryFlag(f *pflag.FlagSet, registry *string) {
	f.StringVar(registry, "registry", "", "relays share names there: `URL`, env:VARIABLE or @FILE")
}

// checkRegistry checks and completes what was said of a relay's registry. route leads to the relay's api.
func checkRegistry(o *state.NodeOptions, route string) error {
	if o.Registry == "" {
		return nil
	}
	o.RegistryAddress = strings.TrimSuffix(route, "/service/api")
	return completeStore(&o.Registry, "--registry")
}

// relayRegistry opens the registry of a relay, nil if it has none. It need not be there at the moment.
func (a *app) relayRegistry(o *state.NodeOptions, log *slog.Logger) (*node.RelayRegistry, error) {
	if o.Registry == "" {
		return nil, nil
	}
	where, err := storeURL(o.Registry, "--registry")
	if err != nil {
		return nil, err
	}
	if _, err := multiaddr.Parse(o.RegistryAddress); err != nil || o.RegistryAddress == "" {
		return nil, usageError("--registry needs --registry-address: where the other relays find this one, such as /dnsaddr/relay.example.com/tcp/4000")
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails: it ends the program instead
	self := routing.RelayNode{ID: hex.EncodeToString(id), Address: o.RegistryAddress}
	return openRegistry(where, self, log)
}

// isPostgres reports whether a text is meant as the URL of a database.
func isPostgres(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// storeURL returns the URL of a database, which may have a password in it; empty for the embedded one. flag is what names it on the command line.
func storeURL(store, flag string) (string, error) {
	if store == "" {
		return "", nil
	}
	from, text := flag, store
	if name, ok := strings.CutPrefix(store, fromEnvironment); ok {
		from, text = "the variable "+name, os.Getenv(name)
		if text == "" {
			return "", fmt.Errorf("the authority's store is named by the environment variable %s, which is not set", name)
		}
	} else if path, ok := strings.CutPrefix(store, fromFile); ok {
		b, err := readSecret(path, true)
		if err != nil {
			return "", withHint(fmt.Errorf("%s: %w", flag, err), "the file has the URL in its first line, and only its owner may read it")
		}
		defer clear(b)
		from, text = path, string(b)
	} else if u, err := url.Parse(store); err == nil && isPostgres(store) {
		if _, given := u.User.Password(); given || u.Query().Has("password") || u.Query().Has("sslpassword") {
			return "", usageError("%s: a URL with a password does not belong on a command line, which other users of the machine see: put it into a file (%s @FILE) or a variable (%s env:VARIABLE)", flag, flag, flag)
		}
	}
	if !isPostgres(text) {
		return "", usageError("%s: the URL of a store begins with postgres://", from)
	}
	return text, nil
}

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
