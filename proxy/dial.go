package proxy

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	socks "golang.org/x/net/proxy"

	"sallyport/names"
)

// maxAnswer bounds the header of a proxy's answer, in bytes.
const maxAnswer = 16 << 10

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

// Dial connects to host:port through p, or without a proxy where p is nil, and returns the socket. early is what the other end has sent
// already. ctx bounds all of it.
func (p *Proxy) Dial(ctx context.Context, hostport string) (c net.Conn, early []byte, err error) {
	if p == nil {
		c, err = names.Dial(ctx, "tcp", hostport)
		return c, nil, err
	}
	var below net.Conn
	dial := Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		below, err = names.Dial(ctx, network, address)
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
	if strings.ContainsAny(hostport, " \r\n\t/?#@") {
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
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, fmt.Errorf("its answer: %w", whyEnded(ctx, err))
	}
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("it answered %q", answer.Status)
	}
	early, _ = r.Peek(r.Buffered())
	return early, nil
}

// whyEnded prefers the context's reason to that of the socket, which was made to fail by it.
func whyEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
