package node

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"sallyport/node/admin"
)

// targetProbe asks a target to which c is a connection whether it serves; c has a deadline.
type targetProbe func(c net.Conn, host string) error

// targetProbeOf reads a --check; nil is none.
func targetProbeOf(text string) (targetProbe, error) {
	path, isHTTP := strings.CutPrefix(text, "http:")
	switch {
	case text == "" || text == "none":
		return nil, nil
	case text == "tcp":
		return func(net.Conn, string) error { return nil }, nil
	case text == "pg":
		return func(c net.Conn, _ string) error { return probePostgreSQL(c) }, nil
	case text == "http":
		path = "/"
	case !isHTTP || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " \r\n"):
		return nil, fmt.Errorf("%w: --check %q must be tcp, pg, http, http:/PATH or none", admin.ErrInvalid, text)
	}
	return func(c net.Conn, host string) error { return probeHTTP(c, host, path) }, nil
}

// errStarting is what a PostgreSQL server says that starts, stops or recovers: cannot_connect_now.
var errStarting = errors.New("the database system is starting up or shutting down")

// probePostgreSQL begins a session as pg_isready does: any answer but SQLSTATE 57P03 shows that the server takes sessions.
func probePostgreSQL(c net.Conn) error {
	startup := []byte("\x00\x00\x00\x00\x00\x03\x00\x00user\x00sallyport\x00database\x00postgres\x00application_name\x00sallyport\x00\x00")
	binary.BigEndian.PutUint32(startup, uint32(len(startup)))
	if _, err := c.Write(startup); err != nil {
		return err
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(c, head); err != nil {
		return fmt.Errorf("no answer of a PostgreSQL server: %w", err)
	}
	switch size := binary.BigEndian.Uint32(head[1:]); {
	case head[0] == 'R':
		return nil
	case head[0] != 'E' || size < 4 || size > 8192:
		return fmt.Errorf("%w: not the answer of a PostgreSQL server", errors.ErrUnsupported)
	default:
		fields := make([]byte, size-4)
		if _, err := io.ReadFull(c, fields); err != nil {
			return err
		}
		for _, field := range strings.Split(string(fields), "\x00") {
			if field == "C57P03" {
				return errStarting
			}
		}
		return nil
	}
}

// probeHTTP asks for a path; an answer with a status of 500 and more is an error. The answer's body is left: closing it would read it, and the connection is closed.
func probeHTTP(c net.Conn, host, path string) error {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sallyport\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return err
	}
	r, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, 64<<10)), nil)
	if err != nil {
		return fmt.Errorf("no answer of an HTTP server: %w", err)
	}
	if r.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("the server answers %s", r.Status)
	}
	return nil
}
