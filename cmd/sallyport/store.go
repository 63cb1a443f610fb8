package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

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

// registryURL returns the URL of a relay's registry, empty if it has none.
func registryURL(o *state.NodeOptions) (string, error) {
	if o.Registry == "" {
		return "", nil
	}
	where, err := storeURL(o.Registry, "--registry")
	if err != nil {
		return "", err
	}
	if _, err := multiaddr.Parse(o.RegistryAddress); err != nil || o.RegistryAddress == "" {
		return "", usageError("--registry needs --registry-address: where the other relays find this one, such as /dnsaddr/relay.example.com/tcp/4000")
	}
	return where, checkRegistryURL(where)
}

// relayRegistry opens the registry of a relay, nil if it has none. It need not be there at the moment.
func (a *app) relayRegistry(o *state.NodeOptions, log *slog.Logger) (*node.RelayRegistry, error) {
	where, err := registryURL(o)
	if where == "" || err != nil {
		return nil, err
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
