package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"time"
)

// Root makes a certificate for a name and puts it in place of the system's roots. It is for a TestMain: crypto/x509 looks at the roots once.
func Root(name string) (c tls.Certificate, err error) {
	if c, err = Certificate(name); err != nil {
		return c, err
	}
	f, err := os.CreateTemp("", "roots")
	if err != nil {
		return c, err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), f.Close(), os.Setenv("SSL_CERT_FILE", f.Name())); err != nil {
		return c, err
	}
	_, err = x509.SystemCertPool() // reads the file
	return c, err
}

// Certificate makes a certificate for a name, signed by itself.
func Certificate(name string) (c tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
