package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"
)

// trouble matches what the reference logs about a message that it cannot decode
// or deliver, and about a frame that makes it close a connection. An ordinary
// close ("unexpected end of file") and lost peers are no trouble.
var trouble = regexp.MustCompile(`Error encountered during .* (message handling|processing)|dropping stream\. |no such endpoint|[Uu]nknown message`)

var ordinaryClose = regexp.MustCompile(`dropping stream\. (unexpected end of file|failed to fill whole buffer|Connection reset by peer|Broken pipe)`)

// findTrouble gives the lines of a log that show trouble, shortened.
func findTrouble(log string) []string {
	var found []string
	for line := range strings.Lines(colour.ReplaceAllString(log, "")) {
		if !trouble.MatchString(line) || ordinaryClose.MatchString(line) {
			continue
		}
		line, _, _ = strings.Cut(line, "source location")
		found = append(found, strings.TrimSpace(line[:min(len(line), 220)]))
	}
	return found
}

// extensionRows shows that nothing is sent to the reference that it does not
// know. Most of the traffic is encrypted, so the witness is the reference itself:
// its debug log must be free of decoding errors while a story runs with program a
// on one side and program b on the other. A proxy before the relay checks the part
// that travels in clear. At the end a deliberate error shows that the log would tell.
func extensionRows(ctx context.Context, r *rowRun) {
	var tap *wiretap
	defer func() {
		if tap != nil {
			tap.close()
		}
	}()
	o := storyOptions{
		boxEnv:     []string{"OCKAM_LOGGING=true", "OCKAM_LOG_LEVEL=debug", "QUIET=false"},
		xferTarget: r.xfer.address(),
		relayProxy: func(port int) (int, error) {
			var err error
			if tap, err = startWiretap(port); err != nil {
				return 0, err
			}
			return tap.port(), nil
		},
	}
	// Program b has two seats that talk to program a: the relay's and the outlet's or inlet's.
	for _, s := range []seats{
		{authority: r.a, relay: r.b, outlet: r.b, inlet: r.a, admin: r.a},
		{authority: r.b, relay: r.a, outlet: r.a, inlet: r.b, admin: r.b},
	} {
		name := s.String()
		st := r.story(ctx, s, o, func(ctx context.Context, st *story) error { return st.start(ctx) })
		if st == nil {
			continue
		}
		r.check(name+": traffic", func() (string, error) {
			for _, mode := range []byte{modeUpload, modeDownload} {
				if note, err := transfer(ctx, st.xferInlet, mode, 4<<20); err != nil {
					return note, err
				}
			}
			return "", portalWorks(ctx, st.xferInlet, 5*time.Second)
		})
		r.check(name+": frames in clear", func() (string, error) { return tap.verdict() })
		r.check(name+": no decoding errors", func() (string, error) { return st.quietLogs() })
		r.check(name+": the log would tell", func() (string, error) { return "", st.provoke(ctx) })
		st.close(r.keep)
		tap.close()
		tap = nil
	}
}

// referenceBoxes are the boxes whose logs are in the form that findTrouble reads.
func (s *story) referenceBoxes() []*box {
	var all []*box
	for _, b := range []*box{s.relay, s.outlet, s.inlet} {
		if b.program.quirks {
			all = append(all, b)
		}
	}
	return all
}

// quietLogs checks the debug logs of all boxes of the reference.
func (s *story) quietLogs() (string, error) {
	time.Sleep(500 * time.Millisecond) // logs are written in the background
	lines := 0
	for _, b := range s.referenceBoxes() {
		log, err := b.logs()
		if err != nil {
			return "", err
		}
		n := strings.Count(log, " DEBUG ")
		if n == 0 {
			return "", fmt.Errorf("the debug log in %s is empty", b.home)
		}
		lines += n
		if found := findTrouble(log); len(found) > 0 {
			return "", fmt.Errorf("%d lines, first: %s", len(found), found[0])
		}
	}
	return fmt.Sprintf("%d debug lines", lines), nil
}

// provoke sends the reference a frame that it can not use and looks for it in the log.
func (s *story) provoke(ctx context.Context) error {
	for _, b := range s.referenceBoxes() {
		port := s.relayPort
		if b != s.relay {
			node := "blue"
			if b == s.inlet {
				node = "green"
			}
			var err error
			if port, err = b.nodePort(ctx, node); err != nil {
				return err
			}
		}
		c, err := net.Dial("tcp", local(port))
		if err != nil {
			return err
		}
		// Onward [uppercase], return [nobody], payload: a text longer than the rest.
		frame := []byte("\x83\x81\x82\x00\x49uppercase\x81\x82\x00\x46nobody\x43\xff\xff\xff")
		message := append([]byte{1}, binary.BigEndian.AppendUint32(nil, uint32(len(frame)))...)
		_, err = c.Write(append(message, frame...))
		time.Sleep(500 * time.Millisecond)
		c.Close()
		if err != nil {
			return err
		}
		if _, err := eventually(ctx, 5*time.Second, func() error {
			log, err := b.logs()
			if err == nil && len(findTrouble(log)) == 0 {
				err = fmt.Errorf("a malformed message left no trace in the log of %s", b.home)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}
