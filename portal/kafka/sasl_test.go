package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/portal/interceptor"
)

// handshake is a request to log in, and its answer.
func handshake(version int16, mechanism string, code int16) (ask, answer []byte) {
	m := kmsg.NewPtrSASLHandshakeRequest()
	m.SetVersion(version)
	m.Mechanism = mechanism
	r := kmsg.NewPtrSASLHandshakeResponse()
	r.SetVersion(version)
	r.ErrorCode = code
	r.SupportedMechanisms = []string{mechanism}
	return asRequest(m, version), asResponse(r)
}

func token(s string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
}

// TestOldLogIn: clients from before Kafka 1.0 send their tokens without a header; they pass at both ends, and requests are looked at again
// behind them.
func TestOldLogIn(t *testing.T) {
	in, _ := newTestInlet(&mask{})
	out := &Outlet{Found: func(context.Context, int32, Place) error { return nil }}
	for name, filters := range map[string]func(interceptor.Conn) (interceptor.Filter, interceptor.Filter){"inlet": in.Filters, "outlet": out.Filters} {
		for mechanism, rounds := range map[string]int{"PLAIN": 1, "OAUTHBEARER": 1, "SCRAM-SHA-256": 2, "SCRAM-SHA-512": 2} {
			for _, piece := range []int{1, 5, 1000} {
				up, down := filters(interceptor.Conn{})
				through := func(f interceptor.Filter, b []byte) {
					t.Helper()
					if got, err := run(f, b, piece); err != nil || !bytes.Equal(got, b) {
						t.Fatalf("%s, %s: %q became %q, %v", name, mechanism, b, got, err)
					}
				}
				ask, answer := handshake(0, mechanism, 33) // not supported, so no tokens follow
				through(up, ask)
				through(down, answer)
				ask, answer = handshake(0, mechanism, 0)
				through(up, ask)
				through(down, answer)
				for range rounds {
					through(up, token("\x00ann\x00secret"))
					through(down, token(""))
				}
				through(up, asRequest(kmsg.NewPtrHeartbeatRequest(), 0))
				if _, err := run(up, token("short"), 1000); err == nil {
					t.Errorf("%s, %s: one more token", name, mechanism)
				}
				if _, err := run(down, token(""), 1000); err == nil {
					t.Errorf("%s, %s: one more token of the broker", name, mechanism)
				}
			}
		}
		up, down := filters(interceptor.Conn{})
		ask, answer := handshake(1, "PLAIN", 0) // whose tokens have headers
		if got, err := run(up, ask, 1000); err != nil || !bytes.Equal(got, ask) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got, err := run(down, answer, 1000); err != nil || !bytes.Equal(got, answer) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := run(up, token("short"), 1000); err == nil {
			t.Errorf("%s: a token without a header", name)
		}
		up, _ = filters(interceptor.Conn{})
		if ask, _ = handshake(0, "GSSAPI", 0); len(ask) > 0 {
			if got, err := run(up, ask, 1000); err == nil || len(got) > 0 {
				t.Errorf("%s: a log-in of unknown length passed", name)
			}
		}
	}
}
