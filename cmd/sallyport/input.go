package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"
)

// isInput reports whether an argument names something that can be read: a file, a pipe such as <(command) makes, a device such as
// /dev/stdin, or standard input as "-". A directory is none; a node may have the name of one.
func isInput(arg string) bool {
	if isStdin(arg) {
		return true
	}
	info, err := os.Stat(arg)
	return err == nil && !info.IsDir()
}

// isStdin reports whether an argument means standard input. That is read without being opened again, since it may be a socket, which cannot be
// opened: it is one behind sshd.
func isStdin(arg string) bool {
	switch arg {
	case "-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0":
		return true
	}
	return false
}

// readInput returns the text of what an argument names, at most limit bytes. A pipe can be read once.
func readInput(ctx context.Context, path string, limit int64) (string, error) {
	type outcome struct {
		text string
		err  error
	}
	read := make(chan outcome, 1)
	go func() { // to open a pipe waits for who writes it
		f := os.Stdin
		if !isStdin(path) {
			var err error
			if f, err = os.Open(path); err != nil {
				read <- outcome{err: err}
				return
			}
			defer f.Close()
		}
		b, err := io.ReadAll(io.LimitReader(f, limit+1))
		if err == nil && int64(len(b)) > limit {
			err = fmt.Errorf("%s: more than %d bytes", path, limit)
		}
		read <- outcome{decodeText(b), err}
	}()
	select {
	case o := <-read:
		return o.text, o.err
	case <-ctx.Done():
		return "", fmt.Errorf("%s: nothing was written to it: %w", path, ctx.Err())
	}
}

// decodeText turns what editors and shells write into plain text: a byte order mark goes, UTF-16 becomes UTF-8 (what `>` writes in
// PowerShell).
func decodeText(b []byte) string {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(b, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return string(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	}
	units := make([]uint16, 0, len(b)/2)
	for b = b[2:]; len(b) >= 2; b = b[2:] {
		units = append(units, order.Uint16(b))
	}
	return string(utf16.Decode(units))
}

// unfolded drops the white space from hex that comes out of a mail or a terminal.
func unfolded(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == '\ufeff' || r == '\u200b' {
			return -1
		}
		return r
	}, text)
}

// pastedHex decodes hex, folded or not.
func pastedHex(text string) ([]byte, error) { return hex.DecodeString(unfolded(text)) }

// inputName is what an argument that readInput takes is called in messages.
func inputName(path string) string {
	if isStdin(path) {
		return "standard input"
	}
	return path
}
