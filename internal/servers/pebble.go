package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sallyport/internal/freeport"
)

// names starts a DNS server for which every name is this machine, and returns its address.
func names(t *testing.T) string {
	t.Helper()
	return Listen(t, func(c net.Conn) {
		for answer(c) == nil {
		}
	})
}

// answer answers one question over TCP (RFC 1035 section 4.2.2).
func answer(c net.Conn) error {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(buf); err != nil || len(m.Questions) != 1 {
		return errors.New("not a question")
	}
	q := m.Questions[0]
	m.Header.Response, m.Header.Authoritative, m.Additionals = true, true, nil
	if q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	}
	b, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// Pebble starts Let's Encrypt's ACME server for tests, which looks for names at a port and gives certificates for so many seconds. It returns its directory, the file of
// its own certificate, and the root of what it issues.
func Pebble(t *testing.T, tlsPort string, life int) (directory, ca string, roots *x509.CertPool) {
	t.Helper()
	home, _ := os.UserHomeDir()
	t.Setenv("PATH", os.Getenv("PATH")+":"+filepath.Join(home, ".cache/sallyport-tools/bin")) // where make reach-tools installs it
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(dir, "ca.pem")
	ownKey := filepath.Join(dir, "key.pem")
	if err := errors.Join(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(ownKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	management := freeport.For(t)
	s := Start(t, "pebble", `{"pebble": {"listenAddress": "127.0.0.1:{{.Port}}", "managementListenAddress": "127.0.0.1:`+management+`", "certificate": "`+ca+`", "privateKey": "`+ownKey+`",
		"httpPort": 1, "tlsPort": `+tlsPort+`, "retryAfter": {"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": {"default": {"description": "short", "validityPeriod": `+fmt.Sprint(life)+`}}}}`, nil, "-config", "{{.Config}}", "-dnsserver", names(t))
	own, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(own)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, DisableKeepAlives: true}}
	roots = x509.NewCertPool()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, err := client.Get("https://127.0.0.1:" + management + "/roots/0")
		if err == nil {
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err == nil && roots.AppendCertsFromPEM(b) {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no root: %v", err)
		}
	}
	return "https://" + s.Address + "/dir", ca, roots
}
