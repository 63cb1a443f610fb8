// Package program is what vaults have in common whose work is done by a program of its own: foreign code, or much code that is seldom needed, does not run
// beside channels and their keys. The program is started without a shell, drops its privileges, and is asked on its standard input and
// output, one request at a time.
package program

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// MaxMessage bounds a message between the two programs, in bytes.
const MaxMessage = 64 << 10

// WriteMessage writes a message: four bytes of length, big-endian, and JSON.
func WriteMessage(w io.Writer, m any) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	defer clear(b) // it may hold a PIN
	if len(b) > MaxMessage {
		return fmt.Errorf("program: a message of %d bytes, at most %d", len(b), MaxMessage)
	}
	out := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...)
	defer clear(out)
	_, err = w.Write(out)
	return err
}

// ReadMessage reads one. The error is io.EOF if there is no more.
func ReadMessage(r io.Reader, m any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxMessage {
		return fmt.Errorf("program: a message of %d bytes, at most %d", n, MaxMessage)
	}
	b := make([]byte, n)
	defer clear(b)
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("program: a message that is cut short: %w", err)
	}
	return json.Unmarshal(b, m)
}
