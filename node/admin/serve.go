package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxBody bounds a request to the administration interface, in bytes.
const maxBody = 20 << 20

// Write answers a request with a value as JSON.
func Write(w http.ResponseWriter, v any) { write(w, http.StatusOK, v) }

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who asked may be gone
}

// WriteError answers a request with an error; its status says which of ErrInvalid, ErrNotFound and ErrExists it matches.
func WriteError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, ErrExists):
		status = http.StatusConflict
	}
	write(w, status, Error{Message: err.Error()})
}

// Answer answers a request with a value or an error.
func Answer[T any](w http.ResponseWriter, v T, err error) {
	if err != nil {
		WriteError(w, err)
		return
	}
	Write(w, v)
}

// Handle handles requests with a JSON body.
func Handle[In, Out any](f func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err == nil && len(b) > 0 {
			err = json.Unmarshal(b, &in)
		}
		if err != nil {
			WriteError(w, fmt.Errorf("%w: request body: %w", ErrInvalid, err))
			return
		}
		out, err := f(r.Context(), in)
		Answer(w, out, err)
	}
}
