package records

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
)

// signEvery is how many records or how much time one signature is for. A signature takes as long as a few hundred records; the chain makes it good for
// all before it.
const (
	signRecords = 4096
	signEvery   = time.Second
)

// Receipts makes receipts of records: each record carries its number and the hash of itself and all before it, and from time to time the node signs
// the last hash. Who has the node's change history can check that it said all this, and nothing was changed or left out in between.
type Receipts struct {
	// Identity is the node's identifier, History returns its change history.
	Identity string
	History  func() []byte
	// Sign signs a text in the name of the identity.
	Sign func(ctx context.Context, text []byte) ([]byte, error)

	seq     uint64
	hash    [32]byte
	pending uint64    // records since the last signature
	since   time.Time // when the first of them came
	told    []byte    // the history that the file has
}

// Head makes the first line of a file: who signs, and from where on.
func (rs *Receipts) Head() []byte {
	rs.told = rs.History()
	return fmt.Appendf(nil, `{"receipts":1,"identity":%q,"history":"%x","seq":%d,"chain":"%x"}`+"\n", rs.Identity, rs.told, rs.seq, rs.hash)
}

// Chain returns the hash that stands for a record and all before it: that of the hash before and the record's line up to its chain.
func Chain(before [32]byte, record []byte) [32]byte {
	h := sha256.New()
	h.Write(before[:])
	h.Write(record)
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

// Text is what a signature is for.
func Text(identity string, seq uint64, hash [32]byte, at string) []byte {
	return fmt.Appendf(nil, "sallyport receipts 1\n%s\n%d\n%x\n%s\n", identity, seq, hash, at)
}

// chain completes the record in b[start:], whose last byte is its brace.
func (rs *Receipts) chain(b []byte, start int) []byte {
	if rs.pending == 0 {
		rs.since = time.Now()
	}
	rs.seq++
	rs.pending++
	b = append(b[:len(b)-1], `,"seq":`...)
	b = strconv.AppendUint(b, rs.seq, 10)
	rs.hash = Chain(rs.hash, b[start:])
	b = append(b, `,"chain":"`...)
	return append(hex.AppendEncode(b, rs.hash[:]), `"}`...)
}

// unsigned reports whether records wait for a signature.
func (rs *Receipts) unsigned() bool { return rs.pending > 0 }

// sign appends a signature when it is time, or now.
func (rs *Receipts) sign(ctx context.Context, b []byte, now bool) ([]byte, error) {
	if rs.pending == 0 || !now && rs.pending < signRecords && time.Since(rs.since) < signEvery {
		return b, nil
	}
	at := time.Now().UTC().Format(time.RFC3339)
	statement, err := rs.Sign(ctx, Text(rs.Identity, rs.seq, rs.hash, at))
	if err != nil {
		rs.since = time.Now() // tried again after a while: the key may be away
		return b, err
	}
	if !bytes.Equal(rs.told, rs.History()) { // the primary key was rotated
		b = append(b, rs.Head()...)
	}
	rs.pending = 0
	b = fmt.Appendf(b, `{"receipt":{"identity":%q,"seq":%d,"chain":"%x","time":%q,"statement":"`, rs.Identity, rs.seq, rs.hash, at)
	b = base64.StdEncoding.AppendEncode(b, statement)
	return append(b, `"}}`+"\n"...), nil
}

// Unchained returns a record's line up to its chain, which its hash is of, and the hash that it says. ok is false for a line without one.
func Unchained(line []byte) (record []byte, hash [32]byte, ok bool) {
	const mark = `,"chain":"`
	i := bytes.LastIndex(line, []byte(mark))
	if i < 0 {
		return nil, hash, false
	}
	text := line[i+len(mark):]
	if len(text) != 2*len(hash)+2 || string(text[2*len(hash):]) != `"}` {
		return nil, hash, false
	}
	if _, err := hex.Decode(hash[:], text[:2*len(hash)]); err != nil {
		return nil, hash, false
	}
	return line[:i], hash, true
}
