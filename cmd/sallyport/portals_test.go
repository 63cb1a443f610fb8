package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/portal/influxdb/influxtest"
)

// writeCertificate writes a certificate for localhost, signed by itself, and its key.
func writeCertificate(t *testing.T, certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// memberShell is a shell in which nodes n1, with the relay blue, and n2 belong to a project.
func memberShell(t *testing.T, ticketFlags string) *shell {
	t.Helper()
	s := newShell(t)
	s.must(fmt.Sprintf(`sallyport project create partners --authority-port %s --relay-port %s
		sallyport project ticket --relay '*' %s > ticket
		echo SALLYPORT_HOME=$HOME/member > variables; export SALLYPORT_HOME=$HOME/member
		sallyport project enroll ticket; sallyport node create n1; sallyport node create n2; sallyport relay create blue --to n1`,
		freePort(t), freePort(t), ticketFlags))
	return s
}

// get asks a server and returns its answer.
func get(t *testing.T, client *http.Client, url string, header http.Header) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPortalOptions: what the flags of inlets and outlets promise, between processes, also after the nodes have been restarted.
func TestPortalOptions(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%v %s", r.Header["X-User"], r.Host)
	}))
	t.Cleanup(server.Close)
	target := server.Listener.Addr().String()
	s := memberShell(t, "--tls")
	plain, secure, skipping := freePort(t), freePort(t), freePort(t)
	// The certificate is at n1 and the TLS inlet at n2: it comes over the wire, to a member whose ticket allows it.
	s.must(fmt.Sprintf(`sallyport tcp-outlet create web --to %[1]s --at n1
		sallyport tcp-outlet create skipping --to %[1]s --at n1 --skip-handshake
		sallyport tcp-inlet create --at n2 --from %[2]s --to web --via blue --http-header 'X-User: alice' --http-header 'Host:web.example'
		sallyport service start tls_certificate_provider --certificate fullchain.pem --key privkey.pem --at n1
		sallyport tcp-inlet create --at n2 --from tls://localhost:%[3]s --to web --via blue \
			--tls-certificate-provider /project/partners/service/forward_to_blue/secure/api/service/tls_certificate_provider
		OCKAM_TCP_PORTAL_SKIP_HANDSHAKE=1 sallyport tcp-inlet create --at n2 --from %[4]s --to skipping --via blue`, target, plain, secure, skipping))
	roots := x509.NewCertPool()
	certificate, err := os.ReadFile(filepath.Join(s.dir, "fullchain.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(certificate)
	for _, restart := range []bool{false, true} {
		if restart {
			s.must("sallyport node stop n1; sallyport node stop n2; sallyport node start n1; sallyport node start n2")
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
		for url, want := range map[string]string{
			"http://127.0.0.1:" + plain:    "[alice] web.example",
			"https://localhost:" + secure:  "[mallory] localhost:" + secure,
			"http://127.0.0.1:" + skipping: "[mallory] 127.0.0.1:" + skipping,
		} {
			if got := get(t, client, url, http.Header{"X-User": {"mallory"}}); got != want {
				t.Errorf("%s, restarted %v: %q, want %q", url, restart, got, want)
			}
		}
		client.CloseIdleConnections()
	}
}

// TestCertificateRefused: a member without the attribute does not get the private key.
func TestCertificateRefused(t *testing.T) {
	t.Parallel()
	s := memberShell(t, "")
	s.must("sallyport service start tls_certificate_provider --certificate fullchain.pem --key privkey.pem --at n1")
	for _, route := range []string{"/node/n1/service/", "/node/n1/secure/api/service/", "/project/partners/service/forward_to_blue/secure/api/service/"} {
		if o := s.run("sallyport message send --hex 80 --timeout 1s --to " + route + "tls_certificate_provider"); o.code == 0 {
			t.Errorf("%s answers %s", route, o.stdout)
		}
	}
	for _, flags := range []string{"--certificate fullchain.pem", "--certificate nosuch --key privkey.pem", "--certificate privkey.pem --key privkey.pem --addr b", "--certificate fullchain.pem --key privkey.pem"} {
		if o := s.run("sallyport service start tls_certificate_provider --at n1 " + flags); o.code == 0 {
			t.Errorf("%s was accepted", flags)
		}
	}
}

// TestInfluxDB: clients without a token of their own, with leased tokens and with a shared one.
func TestInfluxDB(t *testing.T) {
	t.Parallel()
	db := influxtest.New(t, "")
	s := memberShell(t, "")
	leased, shared := freePort(t), freePort(t)
	s.must(fmt.Sprintf(`export INFLUXDB_ORG_ID=org INFLUXDB_TOKEN=%[1]s
		sallyport influxdb-outlet create metrics --to %[2]s --at n1 --leased-token-permissions '[{"action":"read"}]' --leased-token-expires-in 1h
		sallyport influxdb-outlet create fixed --to %[2]s --at n1 --fixed-token %[1]s
		sallyport influxdb-inlet create --from %[3]s --to metrics --via blue --at n2
		sallyport influxdb-inlet create --from %[4]s --to fixed --via blue --at n2 --leased-token-strategy shared
		echo LEASES=/project/partners/service/forward_to_blue/secure/api/service/metrics_lease_manager >> variables`,
		influxtest.AdminToken, db.Listener.Addr(), leased, shared))
	member := strings.TrimSpace(s.must("sallyport identity show"))
	for _, restart := range []bool{false, true} {
		if restart {
			s.must("sallyport node stop n1; sallyport node stop n2; sallyport node start n1; sallyport node start n2; sallyport lease list --at $LEASES")
		}
		client := &http.Client{Transport: &http.Transport{}}
		header := http.Header{"Authorization": {"Token guess"}}
		if got := get(t, client, "http://127.0.0.1:"+shared+"/query", header); got != "administrator" {
			t.Errorf("shared, restarted %v: %q", restart, got)
		}
		got := get(t, client, "http://127.0.0.1:"+leased+"/query", header)
		for limit := time.Now().Add(90 * time.Second); restart && strings.Contains(got, "not known yet") && time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
			got = get(t, client, "http://127.0.0.1:"+leased+"/query", header)
		}
		if !strings.HasPrefix(got, "OCKAM:"+member+":") {
			t.Errorf("leased, restarted %v: %q", restart, got)
		}
		client.CloseIdleConnections()
	}
	s.must(`token=$(sallyport lease create --at $LEASES); id=${token#token-}
		test "$(sallyport lease show $id --at $LEASES)" = "$token"
		sallyport lease list --at $LEASES --jq '.[].id' | grep -q "\"$id\""
		test "$(sallyport lease revoke $id --at $LEASES)" = "$id"
		echo ID=$id >> variables`)
	refused := func(line, reason string) {
		t.Helper()
		if o := s.run(line); o.code != 70 || !strings.Contains(o.stderr, reason) {
			t.Errorf("%s: exit code %d, %s%s", line, o.code, o.stdout, o.stderr)
		}
	}
	refused(`sallyport lease show $ID --at $LEASES`, "not found")

	// Who leases tokens is expected to be the same from the first time on, or the one that is named.
	other := strings.TrimSpace(s.must("sallyport identity create other"))
	refused(`sallyport lease list --at $LEASES --expects `+other, "not one of the 1 authorized identifiers")
	s.must("sallyport lease list --at $LEASES --expects " + member)
	pins := filepath.Join(s.dir, "member", "pins.json")
	kept, err := os.ReadFile(pins)
	if err != nil || !strings.Contains(string(kept), member) {
		t.Fatalf("%s, %v", kept, err)
	}
	if err := os.WriteFile(pins, []byte(strings.ReplaceAll(string(kept), member, other)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(`sallyport lease list --at $LEASES`, "give it as --expects")
	s.must("sallyport lease list --at $LEASES --expects " + member + "; sallyport lease list --at $LEASES")
	refused(`sallyport lease list --at /node/n1/service/metrics_lease_manager --timeout 1s`, "no answer") // without a channel nobody is known
	s.must(`sallyport tcp-outlet delete metrics --at n1 --yes`)
	refused(`sallyport lease list --at $LEASES --timeout 1s`, "no answer")
}
