package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
)

// unixPrefix begins an address that is a Unix socket: unix:/run/app.sock, or unix:@name in the abstract name space.
const unixPrefix = "unix:"

// unixPath returns the path of a Unix socket's address.
func unixPath(address string) (path string, ok bool) { return strings.CutPrefix(address, unixPrefix) }

// checkUnix refuses what can be no Unix socket.
func checkUnix(flag, path string) error {
	switch {
	case len(path) > dataplane.MaxUnixPath:
		return fmt.Errorf("%w: %s: the path of a Unix socket has at most %d bytes", admin.ErrInvalid, flag, dataplane.MaxUnixPath)
	case len(path) < 2 || path[0] != '/' && path[0] != '@' || strings.ContainsRune(path, 0):
		return fmt.Errorf("%w: %s: unix:%s must be an absolute path, or @ and a name", admin.ErrInvalid, flag, path)
	}
	return nil
}

// unixSocket returns the Unix socket that an inlet is to listen on, nil for an address.
func unixSocket(r *resource.Inlet) (*dataplane.UnixSocket, error) {
	path, ok := unixPath(r.From)
	if !ok {
		if r.SocketMode != "" || r.SocketOwner != "" {
			return nil, fmt.Errorf("%w: --socket-mode and --socket-owner are for a Unix socket, --from unix:PATH", admin.ErrInvalid)
		}
		return nil, nil
	}
	if err := checkUnix("--from", path); err != nil {
		return nil, err
	}
	u := &dataplane.UnixSocket{Path: path, UID: -1, GID: -1}
	if u.Abstract() && (r.SocketMode != "" || r.SocketOwner != "") {
		return nil, fmt.Errorf("%w: an abstract socket has neither --socket-mode nor --socket-owner", admin.ErrInvalid)
	}
	if r.SocketMode != "" {
		mode, err := strconv.ParseUint(r.SocketMode, 8, 32)
		if err != nil || mode == 0 || mode > 0o777 {
			return nil, fmt.Errorf("%w: --socket-mode %q must be permissions in octal, as 0660", admin.ErrInvalid, r.SocketMode)
		}
		u.Mode = fs.FileMode(mode)
	}
	if r.SocketOwner == "" {
		return u, nil
	}
	name, group, _ := strings.Cut(r.SocketOwner, ":")
	for _, who := range []struct {
		name string
		to   *int
		find func(string) (string, error)
	}{{name, &u.UID, userID}, {group, &u.GID, groupID}} {
		if who.name == "" {
			continue
		}
		text, err := who.find(who.name)
		if err == nil {
			*who.to, err = strconv.Atoi(text)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: --socket-owner %q: %w", admin.ErrInvalid, r.SocketOwner, err)
		}
	}
	return u, nil
}

func userID(name string) (string, error) {
	if _, err := strconv.ParseUint(name, 10, 31); err == nil {
		return name, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func groupID(name string) (string, error) {
	if _, err := strconv.ParseUint(name, 10, 31); err == nil {
		return name, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

// unixDialer returns what opens a target that is a Unix socket; begin makes what goes before all.
func unixDialer(path string, begin greeting) dialer {
	return func(ctx context.Context, from portal.Origin) (portal.Piped, error) {
		fd, err := dataplane.DialUnix(ctx, path)
		if err != nil {
			return portal.Piped{}, err
		}
		if begin != nil {
			head := begin(from, netip.AddrPort{})
			if n, err := unix.Write(fd, head); err != nil || n < len(head) { // a new socket has room for it
				return portal.Piped{}, errors.Join(fmt.Errorf("unix:%s: %d of %d bytes of the PROXY protocol's header written: %w", path, n, len(head), err), unix.Close(fd))
			}
		}
		return portal.Piped{FD: fd, Direct: true}, nil
	}
}
