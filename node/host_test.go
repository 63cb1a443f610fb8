package node

import (
	"io"
	"net/http"
	"testing"
)

// TestStatusIsForOwnHost: a page whose name was made to lead to this machine reads nothing.
func TestStatusIsForOwnHost(t *testing.T) {
	m := newMember(t)
	at, err := m.ServeStatus(within(t), "127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		at: 200, "localhost": 200, "localhost:23345": 200, "127.0.0.1": 200, "[::1]:23345": 200, "10.1.2.3:80": 200,
		"evil.example": 421, "evil.example:23345": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421,
	} {
		for _, path := range []string{"/show", "/metrics"} {
			req, err := http.NewRequestWithContext(within(t), http.MethodGet, "http://"+at+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s of %s: %d, want %d", path, host, resp.StatusCode, want)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
