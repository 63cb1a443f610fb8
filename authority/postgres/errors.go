package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/authority"
)

// Codes of PostgreSQL (its documentation, appendix A).
const (
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codePermission    = "42501"
	codeNoTable       = "42P01"
)

// errOutcomeUnknown reports a transaction of which cannot be found out whether it was committed.
var errOutcomeUnknown = errors.New("whether the transaction was committed is not known")

// away reports whether the server cannot be asked at present, so that the same may succeed later.
func away(err error) bool {
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

// mayRetry reports whether a transaction that was not committed may succeed when it is run again at once.
func mayRetry(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == codeSerialization || pg.Code == codeDeadlock) {
		return true
	}
	return away(err) && !errors.Is(err, context.DeadlineExceeded)
}

// oneLine is an error in one line: a failure to connect has one for each host.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

func (e oneLine) Unwrap() error { return e.error }

// fault says where something failed. Who is away says so; the error that a caller's function returned stays as it is.
func (d *Database) fault(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case away(err):
		return fmt.Errorf("%w: %s: %w", authority.ErrStoreAway, d.name, oneLine{err})
	case errors.Is(err, errOutcomeUnknown), errors.As(err, &pg), errors.Is(err, pgx.ErrTxClosed):
		return fmt.Errorf("authority: the store %s: %w", d.name, err)
	}
	return err
}
