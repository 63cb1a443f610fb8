package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	socks "golang.org/x/net/proxy"

	"sallyport/dataplane"
	"sallyport/names"
)

// maxAnswer bounds a proxy's answers with their headers, in bytes.
const maxAnswer = 16 << 10

// maxInterim bounds the answers before the last one, which say that it takes time (RFC 9110 section 15.2).
const maxInterim = 10

// Dialer connects to host:port without a proxy; names.Dial is one.
type Dialer func(ctx context.Context, network, hostport string) (net.Conn, error)

// DialContext implements golang.org/x/net/proxy.ContextDialer.
func (d Dialer) DialContext(ctx context.Context, network, hostport string) (net.Conn, error) {
	return d(ctx, network, hostport)
}

// Dial implements golang.org/x/net/proxy.Dialer.
func (d Dialer) Dial(network, hostport string) (net.Conn, error) {
	return d(context.Background(), network, hostport)
}

// Dial connects to host:port through p, or without a proxy where p is nil, and returns the socket; TLS over a dataplane.Socket where the proxy is reached over TLS. early is what the other end has sent
// already. ctx bounds all of it.
func (p *Proxy) Dial(ctx context.Context, hostport string) (c net.Conn, early []byte, err error) {
	if p == nil {
		c, err = names.Dial(ctx, "tcp", hostport)
		return c, nil, err
	}
	var below net.Conn
	dial := Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		if below, err = names.Dial(ctx, network, address); err == nil && p.scheme == "https" {
			below, err = overTLS(ctx, below, address)
		}
		return below, err
	})
	switch p.scheme {
	case "socks5":
		err = p.socks(ctx, dial, hostport)
	default:
		early, err = p.connect(ctx, dial, hostport)
	}
	if err != nil {
		if below != nil {
			_ = below.Close()
		}
		return nil, nil, fmt.Errorf("%w %s to %s: %w", ErrProxy, p, hostport, err)
	}
	return below, early, nil
}

// overTLS makes the handshake with a proxy that is reached over TLS. c is closed with what is returned, also on error.
func overTLS(ctx context.Context, c net.Conn, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	session := tls.Client(dataplane.NewSocket(c), &tls.Config{ServerName: strings.TrimSuffix(host, "."), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true})
	if err := session.HandshakeContext(ctx); err != nil {
		return c, fmt.Errorf("TLS: %w", err)
	}
	return session, nil
}

func (p *Proxy) socks(ctx context.Context, dial Dialer, hostport string) error {
	var auth *socks.Auth
	if p.user != nil {
		password, _ := p.user.Password()
		if n := p.user.Username(); n == "" || len(n) > 255 || password == "" || len(password) > 255 {
			return errors.New("user and password must have 1 to 255 bytes")
		}
		auth = &socks.Auth{User: p.user.Username(), Password: password}
	}
	d, err := socks.SOCKS5("tcp", p.address, auth, dial)
	if err != nil {
		return err
	}
	_, err = d.(socks.ContextDialer).DialContext(ctx, "tcp", hostport) // its connection is what dial has made
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "socks connect" {
		err = op.Err // the rest says again what is connected to what
	}
	if err != nil {
		if words, ok := strings.CutPrefix(err.Error(), "unknown error "); ok { // what the library says before the text of a reply (RFC 1928 section 6)
			return answered(words)
		}
	}
	return err
}

func (p *Proxy) connect(ctx context.Context, dial Dialer, hostport string) (early []byte, err error) {
	c, err := dial(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
	}()
	request := fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %s\r\n", hostport, hostport)
	if strings.ContainsFunc(hostport, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("/?#@", r) }) {
		return nil, errors.New("the destination is no host and port")
	}
	if p.user != nil {
		password, _ := p.user.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(p.user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(c, request+"\r\n"); err != nil {
		return nil, whyEnded(ctx, err)
	}
	r := bufio.NewReader(io.LimitReader(c, maxAnswer))
	status, err := lastAnswer(r)
	if err != nil {
		return nil, fmt.Errorf("its answer: %w", whyEnded(ctx, err))
	}
	if status[0] != '2' {
		return nil, answered(status)
	}
	early, _ = r.Peek(r.Buffered())
	return early, nil
}

// answered is the error of a proxy that has refused, in its words.
func answered(words string) error { return fmt.Errorf("it answered %q", words) }

// lastAnswer reads answers up to the last one and returns its status, which begins with three digits. Whatever the header of a success says of a body, none
// follows (RFC 9110 section 9.3.6).
func lastAnswer(r *bufio.Reader) (status string, err error) {
	text := textproto.NewReader(r)
	for range maxInterim + 1 {
		line, err := text.ReadLine()
		if err != nil {
			return "", unexpected(err)
		}
		version, status, _ := strings.Cut(line, " ")
		code, _, _ := strings.Cut(status, " ")
		if _, err := strconv.ParseUint(code, 10, 16); err != nil || len(code) != 3 || !strings.HasPrefix(version, "HTTP/1.") {
			return "", fmt.Errorf("%.80q is no HTTP", line)
		}
		last := code[0] != '1' || code == "101"
		if last && code[0] != '2' {
			return status, nil
		}
		if _, err := text.ReadMIMEHeader(); err != nil {
			return "", unexpected(err)
		}
		if last {
			return status, nil
		}
	}
	return "", fmt.Errorf("more than %d before the last", maxInterim)
}

// unexpected says that an answer ends before its end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// whyEnded prefers the context's reason to that of the socket, which was made to fail by it.
func whyEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
