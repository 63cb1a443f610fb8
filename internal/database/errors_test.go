package database

import (
	"errors"
	"testing"
)

// TestOneLine: texts of failures are one line, and name no role.
func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"failed to connect to `user=owner database=members`:\n\t127.0.0.1:5432 (db): dial error\n\t127.0.0.1:5433 (db): dial error": "failed to connect: 127.0.0.1:5432 (db): dial error 127.0.0.1:5433 (db): dial error",
		`FATAL: password authentication failed for user "owner" (SQLSTATE 28P01)`:                                                   "FATAL: password authentication failed (SQLSTATE 28P01)",
		"unexpected EOF": "unexpected EOF",
	} {
		cause := errors.New(text)
		if err := OneLine(cause); err.Error() != want || !errors.Is(err, cause) {
			t.Errorf("%q, want %q", err, want)
		}
	}
}
