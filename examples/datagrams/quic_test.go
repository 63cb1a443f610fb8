package datagrams

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// quicServer sends back what comes on each stream, and each datagram.
func quicServer(t *testing.T) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := quic.Listen(c, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}, NextProtos: []string{"echo"},
	}, &quic.Config{EnableDatagrams: true, MaxIdleTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		c.Close()
	})
	go func() {
		for {
			conn, err := ln.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				for {
					p, err := conn.ReceiveDatagram(conn.Context())
					if err != nil || conn.SendDatagram(p) != nil {
						return
					}
				}
			}()
			go func() {
				for {
					st, err := conn.AcceptStream(conn.Context())
					if err != nil {
						return
					}
					go func() {
						_, _ = io.Copy(st, st)
						st.Close()
					}()
				}
			}()
		}
	}()
	return c.LocalAddr().String()
}

// TestQUIC: a client and a server of QUIC find each other through a portal, exchange a transfer in both directions at once, and datagrams.
func TestQUIC(t *testing.T) {
	s := newStory(t)
	for way, direct := range ways {
		t.Run(way, func(t *testing.T) {
			at := s.portal("quic-"+strings.ReplaceAll(way, " ", "-"), quicServer(t), direct)
			conn, err := quic.DialAddr(s.ctx, at, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"echo"}}, &quic.Config{
				EnableDatagrams: true, MaxIdleTimeout: time.Minute, HandshakeIdleTimeout: time.Minute,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseWithError(0, "")
			st, err := conn.OpenStreamSync(s.ctx)
			if err != nil {
				t.Fatal(err)
			}
			sent := make([]byte, 4<<20)
			_, _ = rand.Read(sent)
			began := time.Now()
			go func() {
				_, _ = st.Write(sent)
				st.Close()
			}()
			got, err := io.ReadAll(st)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%d of %d bytes came back: %v", len(got), len(sent), err)
			}
			t.Logf("%d bytes there and back in %v", len(sent), time.Since(began).Round(time.Millisecond))
			for end := time.Now().Add(time.Minute); ; { // one may be lost
				if err := conn.SendDatagram([]byte("are you there?")); err != nil {
					t.Fatal(err)
				}
				wait, cancel := context.WithTimeout(s.ctx, time.Second)
				p, err := conn.ReceiveDatagram(wait)
				cancel()
				if err == nil && string(p) == "are you there?" {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("no datagram came back: %v", err)
				}
			}
		})
	}
}
