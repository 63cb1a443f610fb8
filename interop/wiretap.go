package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// wiretap is a TCP proxy that reads along. It checks what a connection shows in
// the clear: the version byte and, for each frame, the routing message around the
// encrypted payload (docs/protocol/01 §2).
type wiretap struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu      sync.Mutex
	conns   []net.Conn
	client  wireStats // sent by those who connect
	server  wireStats // sent by the node behind
	problem error
}

// wireStats counts what was seen in one direction.
type wireStats struct {
	frames   int
	elements map[int]int    // size of the routing message -> frames
	tracing  map[string]int // fourth element -> frames
}

// maxTapFrame is the largest frame of the protocol, 16 MiB.
const maxTapFrame = 16 << 20

func startWiretap(targetPort int) (*wiretap, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &wiretap{listener: l, target: local(targetPort)}
	t.wg.Go(t.accept)
	return t, nil
}

func (t *wiretap) port() int { return t.listener.Addr().(*net.TCPAddr).Port }

func (t *wiretap) accept() {
	for {
		from, err := t.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", t.target)
		if err != nil {
			from.Close()
			continue
		}
		t.mu.Lock()
		t.conns = append(t.conns, from, to)
		t.mu.Unlock()
		t.wg.Go(func() { t.follow(to, from, &t.client) })
		t.wg.Go(func() { t.follow(from, to, &t.server) })
	}
}

// close ends all connections and waits for their goroutines.
func (t *wiretap) close() {
	t.listener.Close()
	t.mu.Lock()
	for _, c := range t.conns {
		c.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
}

// follow copies one direction and looks at each frame on the way.
func (t *wiretap) follow(to, from net.Conn, stats *wireStats) {
	defer to.Close()
	var version [1]byte
	if _, err := io.ReadFull(from, version[:]); err != nil {
		return // closed without a word
	}
	if version[0] != 1 {
		t.fault(fmt.Errorf("version byte %d, want 1", version[0]))
	}
	if _, err := to.Write(version[:]); err != nil {
		return
	}
	for {
		var head [4]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return
		}
		length := binary.BigEndian.Uint32(head[:])
		if length == 0 || length > maxTapFrame {
			t.fault(fmt.Errorf("frame of %d bytes", length))
			return
		}
		frame := make([]byte, 4+length)
		copy(frame, head[:])
		if _, err := io.ReadFull(from, frame[4:]); err != nil {
			return
		}
		elements, tracing, err := readRoutingMessage(frame[4:])
		t.mu.Lock()
		stats.add(elements, tracing)
		t.mu.Unlock()
		if err != nil {
			t.fault(err)
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}

func (s *wireStats) add(elements int, tracing string) {
	if s.elements == nil {
		s.elements, s.tracing = map[int]int{}, map[string]int{}
	}
	s.frames++
	s.elements[elements]++
	s.tracing[tracing]++
}

func (t *wiretap) fault(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.problem == nil {
		t.problem = err
	}
}

// verdict is the first thing out of order, or what was seen.
func (t *wiretap) verdict() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.problem != nil:
		return "", t.problem
	case t.client.frames == 0 || t.server.frames == 0:
		return "", errors.New("no frames seen")
	}
	return fmt.Sprintf("%d and %d frames", t.client.frames, t.server.frames), nil
}

// wireAddress is an address in a route: [type, bytes].
type wireAddress struct {
	_    struct{} `cbor:",toarray"`
	Kind uint
	Name []byte
}

// readRoutingMessage checks that a frame is exactly a routing message as the
// reference sends it: three or four elements and nothing behind them, every
// address local, the fourth element text.
func readRoutingMessage(frame []byte) (elements int, tracing string, err error) {
	var parts []cbor.RawMessage
	rest, err := cbor.UnmarshalFirst(frame, &parts)
	if err != nil {
		return 0, "", fmt.Errorf("frame is no array: %w", err)
	}
	elements = len(parts)
	if len(rest) > 0 {
		return elements, "", fmt.Errorf("%d bytes behind the routing message", len(rest))
	}
	if elements != 3 && elements != 4 {
		return elements, "", fmt.Errorf("routing message of %d elements", elements)
	}
	for _, part := range parts[:2] {
		var route []wireAddress
		if err := cbor.Unmarshal(part, &route); err != nil {
			return elements, "", fmt.Errorf("route: %w", err)
		}
		for _, a := range route {
			if a.Kind != 0 {
				return elements, "", fmt.Errorf("address of type %d on the wire", a.Kind)
			}
		}
	}
	var payload []byte
	if err := cbor.Unmarshal(parts[2], &payload); err != nil {
		return elements, "", fmt.Errorf("payload: %w", err)
	}
	if elements == 4 {
		if err := cbor.Unmarshal(parts[3], &tracing); err != nil {
			return elements, "", fmt.Errorf("tracing element: %w", err)
		}
	}
	return elements, tracing, nil
}
