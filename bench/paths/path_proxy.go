package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"runtime"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/freeport"
)

// haproxyHead is common to all haproxy configurations here. Idle connections
// must outlive a run.
func haproxyHead(extra string) string {
	return fmt.Sprintf(`global
  nbthread %d
  maxconn %d
%s
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
`, min(2, runtime.NumCPU()), (fileLimit()-200)/2, extra)
}

// startPlain puts three haproxy in a row, without encryption.
func startPlain(ctx context.Context, i *instance) error {
	target := i.back
	for _, role := range []string{roleOutlet, roleRelay, roleInlet} {
		listen := i.front
		if role != roleInlet {
			var err error
			if listen, err = serviceMap(); err != nil {
				return err
			}
		}
		var b strings.Builder
		b.WriteString(haproxyHead(""))
		for _, s := range services {
			fmt.Fprintf(&b, "listen %s\n  bind %s\n  server s %s\n", s, loopback(listen[s]), loopback(target[s]))
		}
		conf, err := i.file(role+".cfg", b.String())
		if err != nil {
			return err
		}
		if err := i.spawn(role, "haproxy", "-db", "-q", "-f", conf); err != nil {
			return err
		}
		target = listen
	}
	return nil
}

// startTLS is what one would build from stock parts: stunnel at both ends and a
// haproxy in the middle that ends the TLS of one side and begins that of the
// other, so that the middle (unlike a relay of the story) sees the data.
func startTLS(ctx context.Context, i *instance) error {
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	pemFile, err := i.file("cert.pem", cert)
	if err != nil {
		return err
	}
	atOutlet, err := serviceMap()
	if err != nil {
		return err
	}
	atRelay, err := serviceMap()
	if err != nil {
		return err
	}
	const suite = "TLS_AES_256_GCM_SHA384"
	stunnel := func(role string, client bool, listen, target map[string]int) error {
		var b strings.Builder
		fmt.Fprintf(&b, "foreground = yes\npid =\ndebug = 3\nsslVersion = TLSv1.3\nciphersuites = %s\n"+
			"socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n", suite)
		if client {
			fmt.Fprintf(&b, "client = yes\nverifyPeer = yes\nCAfile = %s\n", pemFile)
		} else {
			fmt.Fprintf(&b, "cert = %s\n", pemFile)
		}
		for _, s := range services {
			fmt.Fprintf(&b, "[%s]\naccept = %s\nconnect = %s\n", s, loopback(listen[s]), loopback(target[s]))
		}
		conf, err := i.file(role+".conf", b.String())
		if err != nil {
			return err
		}
		return i.spawn(role, "stunnel", conf)
	}
	if err := stunnel(roleOutlet, false, atOutlet, i.back); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(haproxyHead("  ssl-default-bind-options ssl-min-ver TLSv1.3\n" +
		"  ssl-default-bind-ciphersuites " + suite + "\n  ssl-default-server-ciphersuites " + suite))
	for _, s := range services {
		fmt.Fprintf(&b, "listen %s\n  bind %s ssl crt %s\n  server s %s ssl verify required ca-file %s\n",
			s, loopback(atRelay[s]), pemFile, loopback(atOutlet[s]), pemFile)
	}
	conf, err := i.file("relay.cfg", b.String())
	if err != nil {
		return err
	}
	if err := i.spawn(roleRelay, "haproxy", "-db", "-q", "-f", conf); err != nil {
		return err
	}
	return stunnel(roleInlet, true, i.front, atRelay)
}

// startSpiped puts a spiped at either end: one hop, one key that both know.
func startSpiped(_ context.Context, i *instance) error {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	file, err := i.file("spiped.key", string(key))
	if err != nil {
		return err
	}
	middle, err := serviceMap()
	if err != nil {
		return err
	}
	most := strconv.Itoa((fileLimit() - 200) / 2)
	at := func(port int) string { return "[127.0.0.1]:" + strconv.Itoa(port) }
	for _, s := range services {
		if err := i.spawn(roleOutlet, "spiped", "-d", "-s", at(middle[s]), "-t", at(i.back[s]), "-k", file, "-F", "-n", most); err != nil {
			return err
		}
		if err := i.spawn(roleInlet, "spiped", "-e", "-s", at(i.front[s]), "-t", at(middle[s]), "-k", file, "-F", "-n", most); err != nil {
			return err
		}
	}
	return nil
}

// startRathole has a rathole server where clients connect and a rathole client beside the servers, with Noise between them: one hop.
func startRathole(ctx context.Context, i *instance) error {
	program, err := lookTool("rathole")
	if err != nil {
		return err
	}
	out, err := run(ctx, i.dir, childEnv(i.dir), program, "--genkey")
	if err != nil {
		return err
	}
	keys := strings.Fields(out) // Private Key: KEY Public Key: KEY
	if len(keys) != 6 {
		return fmt.Errorf("rathole --genkey prints %q: two keys were expected", abbreviate(out, 100))
	}
	control, err := freeport.Get()
	if err != nil {
		return err
	}
	var server, client strings.Builder
	fmt.Fprintf(&server, "[server]\nbind_addr = %q\ndefault_token = \"bench\"\n[server.transport]\ntype = \"noise\"\n[server.transport.noise]\nlocal_private_key = %q\n", loopback(control), keys[2])
	fmt.Fprintf(&client, "[client]\nremote_addr = %q\ndefault_token = \"bench\"\n[client.transport]\ntype = \"noise\"\n[client.transport.noise]\nremote_public_key = %q\n", loopback(control), keys[5])
	for _, s := range services {
		fmt.Fprintf(&server, "[server.services.%s]\nbind_addr = %q\n", s, loopback(i.front[s]))
		fmt.Fprintf(&client, "[client.services.%s]\nlocal_addr = %q\n", s, loopback(i.back[s]))
	}
	for role, text := range map[string]string{roleInlet: server.String(), roleOutlet: client.String()} {
		conf, err := i.file("rathole-"+role+".toml", text)
		if err != nil {
			return err
		}
		if err := i.spawn(role, "rathole", conf); err != nil {
			return err
		}
	}
	return nil
}

// selfSigned makes a certificate for the loopback address and its key, both in
// one PEM text.
func selfSigned() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "bench"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(48 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})), nil
}
