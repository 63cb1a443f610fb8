package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sallyport/internal/freeport"
	"sallyport/portal/influxdb/influxtest"
)

// throughBlue is the way from the inlet box to a service of the outlet box.
const throughBlue = "/project/" + projectName + "/service/forward_to_blue/secure/api/service/"

// optionRows puts inlets of a before outlets of b, with the options of portals.
func optionRows(ctx context.Context, r *rowRun) {
	s := seats{authority: r.b, relay: r.b, outlet: r.b, inlet: r.a, admin: r.b}
	st := r.story(ctx, s, storyOptions{xferTarget: r.xfer.address()}, func(ctx context.Context, st *story) error {
		if err := st.startOperator(ctx, nil); err != nil {
			return err
		}
		if err := st.startOutlet(ctx); err != nil {
			return err
		}
		t, err := st.ticket(ctx, "--attribute", "ockam-tls-certificate=true")
		if err != nil {
			return err
		}
		if _, err := st.inlet.cli(ctx, "project", "enroll", t); err != nil {
			return err
		}
		_, err = st.inlet.cli(ctx, "node", "create", "green")
		return err
	})
	if st == nil {
		return
	}
	defer st.close(r.keep)
	r.check("no handshake", func() (string, error) { return st.withoutHandshake(ctx) })
	r.check("http header", func() (string, error) { return "", st.setHeader(ctx) })
	r.check("tls inlet", func() (string, error) { return st.tlsInlet(ctx) })
	db, err := influxtest.Start("")
	if err != nil {
		r.check("influxdb", func() (string, error) { return "", err })
		return
	}
	defer db.Close()
	r.check("influxdb, one token", func() (string, error) { return "", st.influxShared(ctx, db) })
	r.check("influxdb, leased tokens", func() (string, error) { return "", st.influxLeased(ctx, db) })
	r.check("lease by hand", func() (string, error) { return "", st.leases(ctx, db) })
}

// inletTo makes an inlet of the inlet box and returns its port.
func (s *story) inletTo(ctx context.Context, noun, outlet string, flags ...string) (int, error) {
	port, err := freeport.Get()
	if err != nil {
		return 0, err
	}
	args := []string{noun, "create", "to-" + outlet, "--at", "green", "--from", local(port), "--to", outlet, "--via", "blue"}
	_, err = s.inlet.cli(ctx, append(args, flags...)...)
	return port, err
}

func (s *story) withoutHandshake(ctx context.Context) (string, error) {
	if _, err := s.outlet.cli(ctx, "tcp-outlet", "create", "--at", "blue", "--from", "skip", "--to", s.options.xferTarget, "--skip-handshake"); err != nil {
		return "", err
	}
	port, err := s.inletTo(ctx, "tcp-inlet", "skip", "--skip-handshake")
	if err != nil {
		return "", err
	}
	for _, mode := range []byte{modeUpload, modeDownload} {
		if note, err := transfer(ctx, port, mode, 16<<20); err != nil {
			return note, err
		}
	}
	return "", nil
}

// setHeader sends two requests in awkward pieces and compares what arrives, byte by byte.
func (s *story) setHeader(ctx context.Context) error {
	ln, err := net.Listen("tcp", local(0))
	if err != nil {
		return err
	}
	defer ln.Close()
	if _, err := s.outlet.cli(ctx, "tcp-outlet", "create", "--at", "blue", "--from", "web", "--to", ln.Addr().String()); err != nil {
		return err
	}
	port, err := s.inletTo(ctx, "tcp-inlet", "web", "--http-header", "X-User: alice", "--http-header", "Host:web.example")
	if err != nil {
		return err
	}
	client, err := net.Dial("tcp", local(port))
	if err != nil {
		return err
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(15 * time.Second))
	const sent = "POST /a?b HTTP/1.1\r\nHost: x\r\nx-user:  mallory\r\nA:1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n0\r\n\r\n" +
		"PUT / HTTP/1.0\r\nContent-Length: 5\r\nHost: y\r\n\r\nhello"
	const want = "POST /a?b HTTP/1.1\r\nX-User: alice\r\nHost: web.example\r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n0\r\n\r\n" +
		"PUT / HTTP/1.0\r\nX-User: alice\r\nHost: web.example\r\nContent-Length: 5\r\n\r\nhello"
	for _, piece := range []string{sent[:3], sent[3:40], sent[40:110], sent[110:]} {
		if _, err := io.WriteString(client, piece); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // so that they are read one by one
	}
	server, err := ln.Accept()
	if err != nil {
		return err
	}
	defer server.Close()
	_ = server.SetDeadline(time.Now().Add(15 * time.Second))
	got := make([]byte, len(want))
	n, err := io.ReadFull(server, got)
	if string(got) != want {
		return fmt.Errorf("the server got %q, %v; want %q", got[:n], err, want)
	}
	return nil
}

// tlsInlet has a TLS inlet fetch its certificate from a provider on the outlet box.
func (s *story) tlsInlet(ctx context.Context) (string, error) {
	if s.outlet.program.quirks {
		return "the reference has no provider of certificates", nil
	}
	chain, key := filepath.Join(s.outlet.home, "chain.pem"), filepath.Join(s.outlet.home, "key.pem")
	roots, err := writeCertificate(chain, key)
	if err != nil {
		return "", err
	}
	if _, err := s.outlet.cli(ctx, "service", "start", "tls_certificate_provider", "--at", "blue", "--certificate", chain, "--key", key); err != nil {
		return "", err
	}
	port, err := s.inletTo(ctx, "tcp-inlet", "xfer", "--tls-certificate-provider", throughBlue+"tls_certificate_provider")
	if err != nil {
		return "", err
	}
	d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", local(port))
	if err != nil {
		return "", err
	}
	return "", c.Close()
}

// writeCertificate writes a certificate for localhost and its key, and returns what verifies it.
func writeCertificate(chain, key string) (*x509.CertPool, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return roots, errors.Join(os.WriteFile(chain, text, 0o600), os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// query asks the database behind an inlet who it thinks its client is.
func query(ctx context.Context, port int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(port)+"/query", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Token guess")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func (s *story) influxShared(ctx context.Context, db *influxtest.Server) error {
	if _, err := s.outlet.cli(ctx, "influxdb-outlet", "create", "fixed", "--at", "blue", "--to", db.Listener.Addr().String(), "--fixed-token", influxtest.AdminToken); err != nil {
		return err
	}
	port, err := s.inletTo(ctx, "influxdb-inlet", "fixed", "--leased-token-strategy", "shared")
	if err != nil {
		return err
	}
	if got, err := query(ctx, port); got != "administrator" || err != nil {
		return fmt.Errorf("the database says %q, %w", got, err)
	}
	return nil
}

func (s *story) influxLeased(ctx context.Context, db *influxtest.Server) error {
	if _, err := s.outlet.cli(ctx, "influxdb-outlet", "create", "metrics", "--at", "blue", "--to", db.Listener.Addr().String(),
		"--org-id", "org", "--all-access-token", influxtest.AdminToken, "--leased-token-permissions", `[{"action":"read"}]`, "--leased-token-expires-in", "1h"); err != nil {
		return err
	}
	port, err := s.inletTo(ctx, "influxdb-inlet", "metrics")
	if err != nil {
		return err
	}
	// Before it has a lease the reference sends an empty token.
	_, err = eventually(ctx, 20*time.Second, func() error {
		got, err := query(ctx, port)
		if err == nil && !strings.HasPrefix(got, "OCKAM:I") {
			err = fmt.Errorf("the database says %q", got)
		}
		return err
	})
	return err
}

// lease is the JSON form of a lease.
type lease struct {
	ID, Token, Status string
	IssuedFor         string `json:"issued_for"`
	CreatedAt         int64  `json:"created_at"`
	ExpiresAt         int64  `json:"expires_at"`
}

// leases has the inlet box lease a token, look at it, and end it.
func (s *story) leases(ctx context.Context, db *influxtest.Server) error {
	ask := func(out any, args ...string) error {
		text, err := s.inlet.cli(ctx, append(append([]string{"lease"}, args...), "--at", throughBlue+"metrics_lease_manager", "--output", "json")...)
		if err == nil {
			err = json.Unmarshal([]byte(text), out)
		}
		return err
	}
	var l, shown lease
	if err := ask(&l, "create"); err != nil {
		return err
	}
	if !db.Has(l.ID) || l.Token == "" || l.Status != "Active" || l.ExpiresAt-l.CreatedAt < 3590 {
		return fmt.Errorf("leased %+v", l)
	}
	if err := ask(&shown, "show", l.ID); err != nil || shown != l {
		return fmt.Errorf("shown %+v, %w", shown, err)
	}
	var list []lease
	if err := ask(&list, "list"); err != nil || !strings.Contains(fmt.Sprint(list), l.Token) {
		return fmt.Errorf("listed %+v, %w", list, err)
	}
	var revoked struct{ ID string }
	if err := ask(&revoked, "revoke", l.ID); err != nil || revoked.ID != l.ID || db.Has(l.ID) {
		return fmt.Errorf("revoked %+v, %w", revoked, err)
	}
	return nil
}
