package database

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Codes of PostgreSQL (its documentation, appendix A).
const (
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codePermission    = "42501"
)

// Away reports whether the server cannot be asked at present, so that the same may succeed later.
func Away(err error) bool {
	if err == nil {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch class := pg.Code[:min(2, len(pg.Code))]; class {
		case "08", "53", "57": // connection, resources such as connections and disk, shut down, cancelled and timed out
			return true
		}
		return pg.Code == "25P03" || pg.Code == "25006" // idle for too long in a transaction; read only: a standby
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || pgconn.SafeToRetry(err) || strings.Contains(err.Error(), "conn closed")
}

// MayRetry reports whether a transaction that was not committed may succeed when it is run again at once.
func MayRetry(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == codeSerialization || pg.Code == codeDeadlock) {
		return true
	}
	return Away(err) && !errors.Is(err, context.DeadlineExceeded)
}

// userPattern is how texts of failures name a role.
var userPattern = regexp.MustCompile(" to `user=[^`]*`| for user \"[^\"]*\"")

// OneLine returns the error with a text of one line, without the role's name: a failure to connect has one for each host.
func OneLine(err error) error { return oneLine{err} }

type oneLine struct{ error }

func (e oneLine) Error() string {
	return userPattern.ReplaceAllString(strings.Join(strings.Fields(e.error.Error()), " "), "")
}

func (e oneLine) Unwrap() error { return e.error }
