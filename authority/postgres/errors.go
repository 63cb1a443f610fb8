package postgres

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/authority"
	"sallyport/internal/database"
)

// errOutcomeUnknown reports a transaction of which cannot be found out whether it was committed.
var errOutcomeUnknown = errors.New("whether the transaction was committed is not known")

// fault says where something failed. Who is away says so; the error that a caller's function returned stays as it is.
func (d *Database) fault(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case database.Away(err):
		return fmt.Errorf("%w: %s: %w", authority.ErrStoreAway, d.Name(), database.OneLine(err))
	case errors.Is(err, errOutcomeUnknown), errors.Is(err, database.ErrVersion), errors.As(err, &pg), errors.Is(err, pgx.ErrTxClosed):
		return fmt.Errorf("authority: the store %s: %w", d.Name(), err)
	}
	return err
}
