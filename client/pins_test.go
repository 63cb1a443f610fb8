package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sallyport/internal/servers"
)

// behindTLS is the address of a listener for TLS in front of a node's for TCP, as a load balancer has it, and the pin of its key.
func behindTLS(t *testing.T, to string) (port, pin string) {
	t.Helper()
	web := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(web.Close)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	servers.Serve(l, func(c net.Conn) {
		behind, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer behind.Close()
		go func() {
			io.Copy(behind, c)
			behind.Close()
		}()
		io.Copy(c, behind)
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	sum := sha256.Sum256(web.Certificate().RawSubjectPublicKeyInfo)
	return port, "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
}

// TestPins: a server over TLS is believed by its key alone, whoever signed its certificate, and one with another key is not.
func TestPins(t *testing.T) {
	to := opened(t, Options{InMemory: true, NoProject: true, ListenAddress: "127.0.0.1:0"})
	servers.Serve(listen(t, to, "web", ListenOptions{}), servers.Echo)
	port, pin := behindTLS(t, to.ListenAddress())
	other := "sha256/" + base64.StdEncoding.EncodeToString(make([]byte, sha256.Size))
	service := "/ip4/127.0.0.1/tcp/" + port + "/tls/secure/api/service/web"
	right := opened(t, Options{InMemory: true, NoProject: true, Pins: []string{other, pin}})
	dialled(t, right, service)
	wrong := opened(t, Options{InMemory: true, NoProject: true, Pins: []string{other}})
	eventually(t, func() error { // what is known by then is in the error
		short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		c, err := wrong.Dial(short, service)
		if err == nil {
			c.Close()
			t.Fatal("a server whose key is not pinned is believed")
		}
		if !strings.Contains(err.Error(), "not one of those pinned") {
			return err
		}
		return nil
	})
	for _, bad := range []string{"", pin[1:], strings.TrimPrefix(pin, "sha256/"), pin + "AAAA", "sha1/AAAA"} {
		c, err := Open(within(t), Options{InMemory: true, NoProject: true, Pins: []string{pin, bad}})
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("Options.Pins: %q: it must be sha256/", bad)) || errors.Is(err, ErrTicket) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
