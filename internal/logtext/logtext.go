// Package logtext is what tests look into a log with while it is written to.
package logtext

import (
	"bytes"
	"strings"
	"sync"
)

// Text is an io.Writer that keeps all that is written. The zero value is ready; it is for any goroutine.
type Text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer; it never fails.
func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

// String returns all that was written so far.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// Contains reports whether a part was written.
func (t *Text) Contains(part string) bool { return strings.Contains(t.String(), part) }

// Reset forgets what was written.
func (t *Text) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Reset()
}
