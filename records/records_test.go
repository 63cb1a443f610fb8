package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func record(i int) *Record {
	now := time.Date(2026, 11, 29, 12, 0, i, 0, time.UTC)
	return &Record{ID: [16]byte{1, byte(i >> 8), byte(i)}, Began: now, Ended: now.Add(1500 * time.Millisecond), End: "outlet", Portal: "db", Client: "10.0.0.1:5000",
		Peer: [32]byte{9}, HasPeer: true, Attributes: map[string]string{"company": "analysis", "a\"\n": "\xff" + strings.Repeat("x", 1000)},
		Target: "db.example:5432", Address: "10.0.0.2:5432", ToTarget: uint64(i), ToClient: 1 << 40, Setup: 1234 * time.Microsecond, FirstByte: -1,
		Outcome: "closed", By: "client", Resumed: 2}
}

// TestJSON: a record is JSON whatever the texts are, and has what it should.
func TestJSON(t *testing.T) {
	var got map[string]any
	if err := json.Unmarshal(record(7).AppendJSON(nil, "bank\x00\u2028"), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"time": "2026-11-29T12:00:08.500000Z", "began": "2026-11-29T12:00:07.000000Z", "node": "bank\x00\u2028", "end": "outlet",
		"portal": "db", "id": "01000700000000000000000000000000", "client": "10.0.0.1:5000", "target": "db.example:5432", "address": "10.0.0.2:5432",
		"bytes_to_target": 7.0, "bytes_to_client": float64(1 << 40), "setup_seconds": 0.001234, "duration_seconds": 1.5, "outcome": "closed", "ended_by": "client", "resumed": 2.0} {
		if got[key] != want {
			t.Errorf("%s: %v, not %v", key, got[key], want)
		}
	}
	if _, there := got["first_byte_seconds"]; there {
		t.Error("a first byte that never came")
	}
	attributes := got["attributes"].(map[string]any)
	if attributes["company"] != "analysis" || !strings.HasPrefix(attributes["a\"\n"].(string), "\ufffdxx") || len(attributes["a\"\n"].(string)) > 2*maxText {
		t.Errorf("%v", attributes)
	}
}

// memory is a Sink that a test may hold up.
type memory struct {
	mu    sync.Mutex
	lines []string
	hold  chan struct{}
	held  chan struct{} // gets one for each Write that is held up
	err   error
}

func (m *memory) Write(_ []*Record, lines []byte) error {
	if m.hold != nil {
		m.held <- struct{}{}
		<-m.hold
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.lines = append(m.lines, strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n")...)
	}
	return m.err
}

func (m *memory) Close() error { return nil }

// TestNobodyWaits: a sink that takes nothing holds nobody up; what finds no room is counted, and memory is bounded.
func TestNobodyWaits(t *testing.T) {
	sink := &memory{hold: make(chan struct{}), held: make(chan struct{}, 100)}
	l := New(Options{Node: "n", Sink: sink})
	l.Record(record(0))
	<-sink.held
	for i := range 2 * maxWaiting {
		l.Record(record(i))
	}
	if c := l.Counts(); c.Dropped != maxWaiting {
		t.Errorf("%+v", c)
	}
	close(sink.hold)
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) { // Close gives up after two seconds, which a busy machine may need
		if c := l.Counts(); c.Written+c.Dropped == 2*maxWaiting+1 || time.Now().After(end) {
			break
		}
	}
	l.Close()
	l.Record(record(1))
	if c := l.Counts(); c.Written+c.Dropped != 2*maxWaiting+2 || int(c.Written) != len(sink.lines) {
		t.Errorf("%+v, %d lines", c, len(sink.lines))
	}
}

// TestHurry: when much waits it is written before its time.
func TestHurry(t *testing.T) {
	sink := &memory{hold: make(chan struct{}), held: make(chan struct{}, 100)}
	close(sink.hold)
	l := newLog(Options{Node: "n", Sink: sink}, time.Hour)
	for i := range hurry {
		l.Record(record(i))
	}
	select {
	case <-sink.held:
	case <-time.After(60 * time.Second):
		t.Error("nothing is written")
	}
	l.Close()
}

// TestRefusals: who is turned away again and again does not fill the file.
func TestRefusals(t *testing.T) {
	sink := &memory{}
	l := New(Options{Node: "n", Sink: sink})
	l.Record(record(1))
	for range 10_000 {
		r := record(2)
		r.Refused = true
		l.Record(r)
	}
	l.Record(record(3))
	l.Close()
	if c := l.Counts(); c.Written != refusedBurst+2 || c.LeftOut != 10_000-refusedBurst {
		t.Errorf("%+v", c)
	}
}

// TestFailingSink: what is not written is counted.
func TestFailingSink(t *testing.T) {
	l := New(Options{Node: "n", Sink: &memory{err: errors.New("no space left on device")}})
	l.Record(record(1))
	l.Close()
	if c := l.Counts(); c.Dropped != 1 || c.Written != 0 {
		t.Errorf("%+v", c)
	}
}

// TestFile: a file makes way for a new one, the oldest goes, nobody else may read any, each begins with its head, and a line that was cut short by
// a kill does not take the next with it.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.jsonl")
	if err := os.WriteFile(path, []byte(`{"cut`), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(FileOptions{Path: path, Size: 2000, Files: 3, Head: func() []byte { return []byte("head\n") }})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := f.Write(nil, fmt.Appendf(nil, "%0100d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	list, _ := filepath.Glob(path + "*")
	if len(list) != 3 {
		t.Errorf("%v", list)
	}
	for _, p := range list {
		b, _ := os.ReadFile(p)
		info, _ := os.Stat(p)
		if !bytes.HasPrefix(b, []byte("head\n")) || len(b) > 2000 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %d bytes, %v: %.20s", p, len(b), info.Mode(), b)
		}
	}
	last, _ := os.ReadFile(path)
	if !strings.HasSuffix(string(last), "99\n") {
		t.Errorf("%s", last)
	}
	f, _ = OpenFile(FileOptions{Path: path})
	f.Close()
	again, _ := os.ReadFile(path)
	if !bytes.Equal(again, last) {
		t.Error("what was there has gone")
	}
	cut := filepath.Join(t.TempDir(), "cut")
	os.WriteFile(cut, []byte(`{"cut`), 0o600)
	f, _ = OpenFile(FileOptions{Path: cut})
	f.Write(nil, []byte("{}\n"))
	f.Close()
	if b, _ := os.ReadFile(cut); string(b) != "{\"cut\n{}\n" {
		t.Errorf("%s", b)
	}
}

// TestJournal: journald gets the record and fields of its own; no text makes a field.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	server, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	j, err := OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	r := record(1)
	r.Portal = "db\nPRIORITY=0"
	if err := j.Write([]*Record{r}, append(r.AppendJSON(nil, "n"), '\n')); err != nil {
		t.Fatal(err)
	}
	j.Close()
	b := make([]byte, 10_000)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	got := string(b[:n])
	if !strings.Contains(got, `MESSAGE={"time":`) || !strings.Contains(got, "\nSALLYPORT_PORTAL=db_PRIORITY=0\n") || !strings.Contains(got, "\nSALLYPORT_ID=010001") {
		t.Error(got)
	}
}

func BenchmarkRecord(b *testing.B) {
	r := record(1)
	r.Attributes = map[string]string{"company": "analysis"}
	buf := make([]byte, 0, 1000)
	for b.Loop() {
		buf = r.AppendJSON(buf[:0], "bank")
	}
}
