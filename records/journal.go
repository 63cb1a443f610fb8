package records

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
)

// journalSocket is where journald takes entries (systemd: "Native Journal Protocol").
const journalSocket = "/run/systemd/journal/socket"

// Journal is a Sink that hands each record to journald as an entry with fields of its own: SALLYPORT_PORTAL, SALLYPORT_ID and so on. The message is the
// record's JSON.
type Journal struct{ conn *net.UnixConn }

// OpenJournal connects with journald at a socket; the empty path is the usual one.
func OpenJournal(path string) (*Journal, error) {
	if path == "" {
		path = journalSocket
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &Journal{conn}, nil
}

// Write implements Sink.
func (j *Journal) Write(batch []*Record, lines []byte) error {
	var failed error
	i := 0
	for line := range bytes.Lines(lines) {
		var b []byte
		b = fmt.Appendf(b, "MESSAGE=%s\nPRIORITY=6\nSYSLOG_IDENTIFIER=sallyport\n", bytes.TrimSuffix(line, []byte{'\n'}))
		if i < len(batch) {
			r := batch[i]
			b = fmt.Appendf(b, "SALLYPORT_END=%s\nSALLYPORT_PORTAL=%s\nSALLYPORT_OUTCOME=%s\n", r.End, word(r.Portal), r.Outcome)
			if r.ID != ([16]byte{}) {
				b = append(b, "SALLYPORT_ID="+hex.EncodeToString(r.ID[:])+"\n"...)
			}
			if r.HasPeer {
				b = append(b, "SALLYPORT_PEER=I"+hex.EncodeToString(r.Peer[:])+"\n"...)
			}
		}
		i++
		if _, err := j.conn.Write(b); err != nil {
			failed = err
		}
	}
	return failed
}

// word is a name without ends of lines, which would begin another field.
func word(s string) string {
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' {
			return '_'
		}
		return r
	}, []byte(s)))
}

// Close implements Sink.
func (j *Journal) Close() error { return j.conn.Close() }
