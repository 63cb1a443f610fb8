// Package receipts verifies what nodes say of connections (records.Receipts), and compares what both ends say. Nobody has to be believed for it but
// one's own copy of the two identifiers.
package receipts

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/records"
)

// ErrFile reports a file that is not what its node wrote.
var ErrFile = errors.New("receipts")

// maxLine bounds a line, in bytes.
const maxLine = 1 << 20

// Record is what one end says of one connection.
type Record struct {
	ID       string    `json:"id"`
	End      string    `json:"end"`
	Node     string    `json:"node"`
	Portal   string    `json:"portal"`
	Peer     string    `json:"peer"`
	Began    time.Time `json:"began"`
	Time     time.Time `json:"time"`
	ToTarget uint64    `json:"bytes_to_target"`
	ToClient uint64    `json:"bytes_to_client"`
	Setup    *float64  `json:"setup_seconds"`
	Outcome  string    `json:"outcome"`
	Seq      uint64    `json:"seq"`
	// Signed tells that a signature stands for it.
	Signed bool `json:"-"`
}

// File is what a file of receipts says.
type File struct {
	// Identity signed all of it; empty if nobody did.
	Identity string
	Records  []Record
	// Unsigned is how many records no signature stands for: the node was killed before, or it makes no receipts.
	Unsigned int
	// First and Last are the times of the first and the last record.
	First, Last time.Time
}

// line is any line of a file.
type line struct {
	Receipts int             `json:"receipts"`
	Identity string          `json:"identity"`
	History  string          `json:"history"`
	Seq      uint64          `json:"seq"`
	Chain    string          `json:"chain"`
	Receipt  json.RawMessage `json:"receipt"`
}

type signature struct {
	Identity  string `json:"identity"`
	Seq       uint64 `json:"seq"`
	Chain     string `json:"chain"`
	Time      string `json:"time"`
	Statement string `json:"statement"`
}

// reader reads one file.
type reader struct {
	file    *File
	manager *identity.Manager
	now     time.Time // of the signature that is verified: its key need not last longer
	seq     uint64
	hash    [32]byte
	begun   bool
	signed  int // records that a signature stands for
}

// Read reads a file and verifies its chain and its signatures. An error matches ErrFile and names the line.
func Read(ctx context.Context, r io.Reader) (*File, error) {
	v := &reader{file: &File{}}
	v.manager = identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore(), Now: func() time.Time { return v.now }})
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	number := 0
	for in.Scan() {
		number++
		b := bytes.TrimSpace(in.Bytes())
		if len(b) == 0 {
			continue
		}
		if err := v.line(ctx, b); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrFile, number, err)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("%w: line %d: %w", ErrFile, number+1, err)
	}
	f := v.file
	f.Unsigned = len(f.Records) - v.signed
	for i := range v.signed {
		f.Records[i].Signed = true
	}
	return f, nil
}

func (v *reader) line(ctx context.Context, b []byte) error {
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	switch {
	case l.Receipts != 0:
		return v.head(ctx, &l)
	case l.Receipt != nil:
		return v.signature(ctx, l.Receipt)
	}
	return v.record(b)
}

// head takes the line that a file, or a program that goes on with it, begins with.
func (v *reader) head(ctx context.Context, l *line) error {
	if l.Receipts != 1 {
		return fmt.Errorf("version %d of receipts is not known", l.Receipts)
	}
	if v.file.Identity != "" && v.file.Identity != l.Identity {
		return fmt.Errorf("another identity, %s, goes on with the file of %s", l.Identity, v.file.Identity)
	}
	id, err := identity.ParseIdentifier(l.Identity)
	if err != nil {
		return err
	}
	history, err := hex.DecodeString(l.History)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	hash, err := hex.DecodeString(l.Chain)
	if err != nil || len(hash) != len(v.hash) {
		return errors.New("chain is not a hash")
	}
	if _, err := v.manager.ImportIgnoreOlder(ctx, history); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if _, err := v.manager.Identity(ctx, id); err != nil {
		return fmt.Errorf("the history is not that of %s", l.Identity)
	}
	v.file.Identity = l.Identity
	// The same number and hash: a key was rotated. Otherwise a program was started anew, and what it had not signed stays unsigned.
	v.seq, v.begun = l.Seq, true
	copy(v.hash[:], hash)
	return nil
}

func (v *reader) record(b []byte) error {
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	if v.begun {
		text, hash, ok := records.Unchained(b)
		switch {
		case !ok:
			return errors.New("a record without its place in the chain")
		case r.Seq != v.seq+1:
			return fmt.Errorf("record %d follows record %d", r.Seq, v.seq)
		case records.Chain(v.hash, text) != hash:
			return fmt.Errorf("record %d, or one before it, was changed", r.Seq)
		}
		v.seq, v.hash = r.Seq, hash
	}
	f := v.file
	f.Records = append(f.Records, r)
	if f.First.IsZero() || r.Time.Before(f.First) {
		f.First = r.Time
	}
	if r.Time.After(f.Last) {
		f.Last = r.Time
	}
	return nil
}

func (v *reader) signature(ctx context.Context, raw json.RawMessage) error {
	var s signature
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	id, err := identity.ParseIdentifier(s.Identity)
	if err != nil {
		return err
	}
	switch {
	case !v.begun || s.Identity != v.file.Identity:
		return fmt.Errorf("a signature of %s, whose history was not given before", s.Identity)
	case s.Seq != v.seq || s.Chain != hex.EncodeToString(v.hash[:]):
		return fmt.Errorf("the signature is for record %d, and the record before it is %d", s.Seq, v.seq)
	}
	if v.now, err = time.Parse(time.RFC3339, s.Time); err != nil {
		return err
	}
	statement, err := base64.StdEncoding.DecodeString(s.Statement)
	if err != nil {
		return err
	}
	text, err := v.manager.VerifyStatement(ctx, statement, []identity.Identifier{id})
	if err != nil {
		return fmt.Errorf("the signature is not good: %w", err)
	}
	if !bytes.Equal(text, records.Text(s.Identity, s.Seq, v.hash, s.Time)) {
		return errors.New("the signature is for something else")
	}
	v.signed = len(v.file.Records)
	return nil
}
