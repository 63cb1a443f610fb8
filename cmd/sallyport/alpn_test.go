package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// httpTarget serves on a free port what says the protocol of each request, and echoes its body as it comes, with a trailer, as gRPC servers do. A
// TLS configuration turns TLS on. strict refuses connections that did not agree on HTTP/2, as gRPC's own server does.
func httpTarget(t *testing.T, config *tls.Config, protocols []string, strict bool) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("X-Proto", r.Proto)
		w.Header().Set("X-Seen", r.Header.Get("X-Set"))
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 1<<16)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				_, _ = w.Write(buf[:n])
				_ = http.NewResponseController(w).Flush()
			}
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	})}
	server.Protocols.SetHTTP1(slices.Contains(protocols, "http/1.1"))
	server.Protocols.SetHTTP2(slices.Contains(protocols, "h2"))
	server.Protocols.SetUnencryptedHTTP2(config == nil && slices.Contains(protocols, "h2"))
	t.Cleanup(func() { _ = server.Close() })
	if config == nil {
		go func() { _ = server.Serve(ln) }()
	} else {
		server.TLSConfig = config.Clone()
		if strict {
			server.TLSConfig.VerifyConnection = func(s tls.ConnectionState) error {
				if s.NegotiatedProtocol != "h2" {
					return errors.New("no ALPN")
				}
				return nil
			}
		}
		go func() { _ = server.ServeTLS(ln, "", "") }()
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// httpClient speaks one or both versions of HTTP, with TLS (offering those) or without.
func httpClient(useTLS bool, protocols ...string) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	transport.TLSClientConfig.NextProtos = protocols
	transport.Protocols.SetHTTP1(slices.Contains(protocols, "http/1.1"))
	transport.Protocols.SetHTTP2(useTLS && slices.Contains(protocols, "h2"))
	transport.Protocols.SetUnencryptedHTTP2(!useTLS && slices.Contains(protocols, "h2"))
	return &http.Client{Transport: transport, Timeout: 90 * time.Second}
}

// talkHTTP streams both ways over one request, as gRPC does, and returns the protocol that the target saw.
func talkHTTP(c *http.Client, url string, both bool) (proto string, header http.Header, err error) {
	r, w := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	var body io.Reader = r
	if !both {
		body = strings.NewReader("one\n")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return "", nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if both {
		for i := range 3 { // each answer comes before the next question
			want := fmt.Sprintf("message %d %s\n", i, strings.Repeat("x", 40000))
			go func() { _, _ = w.Write([]byte(want)) }()
			if got, err := lines.ReadString('\n'); err != nil || got != want {
				return "", nil, fmt.Errorf("message %d: %d bytes came back: %w", i, len(got), err)
			}
		}
		_ = w.Close()
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		return "", nil, err
	}
	if resp.Trailer.Get("Grpc-Status") != "0" {
		return "", nil, fmt.Errorf("the trailer is missing: %v", resp.Trailer)
	}
	return resp.Header.Get("X-Proto"), resp.Header, nil
}

// TestGRPCThroughTLS: HTTP/2 and gRPC pass through inlets and outlets with TLS, whichever of them has it, and HTTP/1.1 still does.
func TestGRPCThroughTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	chain, key := filepath.Join(p.dir, "chain.pem"), filepath.Join(p.dir, "key.pem")
	writeCertificate(t, chain, key)
	cert, err := tls.LoadX509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	p.env = append(p.env, "SSL_CERT_FILE="+chain)
	p.must(t, "node", "create", "n1")
	p.must(t, "service", "start", "tls_certificate_provider", "--at", "n1", "--addr", "certs", "--certificate", chain, "--key", key)
	all := []string{"h2", "http/1.1"}
	targets := map[string]string{
		"h2c": httpTarget(t, nil, all, false), "tls": httpTarget(t, config, all, false), "strict": httpTarget(t, config, []string{"h2"}, true),
		"old": httpTarget(t, config, []string{"http/1.1"}, false),
	}
	outlets := 0
	inlet := func(target, from, to string) string {
		t.Helper()
		outlets++
		name, port := fmt.Sprintf("o%d", outlets), freePort(t)
		args := append([]string{"tcp-outlet", "create", name, "--at", "n1", "--to", "localhost:" + targets[target]}, strings.Fields(to)...)
		p.must(t, args...)
		args = append([]string{"tcp-inlet", "create", "--at", "n1", "--from", port, "--to", "/service/" + name}, strings.Fields(from)...)
		p.must(t, args...)
		return port
	}
	const withTLS = "--tls --tls-certificate-provider /service/certs"
	for name, c := range map[string]struct {
		target, from, to string // target, options of the inlet, of the outlet
		client           []string
		want             string // protocol at the target; empty: the client is refused
	}{
		"gRPC to an inlet with TLS":                        {"h2c", withTLS, "", []string{"h2"}, "HTTP/2.0"},
		"gRPC to an outlet with TLS":                       {"strict", "", "--tls", []string{"h2"}, "HTTP/2.0"},
		"gRPC with TLS on both sides":                      {"strict", withTLS, "--tls", []string{"h2"}, "HTTP/2.0"},
		"HTTP/1 with TLS on both sides":                    {"tls", withTLS, "--tls", []string{"http/1.1"}, "HTTP/1.1"},
		"HTTP/1 to an outlet with TLS":                     {"tls", "", "--tls", []string{"http/1.1"}, "HTTP/1.1"},
		"HTTP/1 to a server that knows nothing else":       {"old", withTLS, "--tls", []string{"http/1.1"}, "HTTP/1.1"},
		"a browser, without options":                       {"tls", withTLS, "--tls", all, "HTTP/1.1"},
		"a browser, to an old server":                      {"old", withTLS, "--tls", all, "HTTP/1.1"},
		"a browser, and the inlet is told":                 {"tls", withTLS + " --alpn h2,http/1.1", "--tls", all, "HTTP/2.0"},
		"a browser, and both are told":                     {"strict", withTLS + " --alpn h2", "--tls --alpn h2", all, "HTTP/2.0"},
		"the inlet is told what the client does not know":  {"tls", withTLS + " --alpn h2", "--tls", []string{"http/1.1"}, ""},
		"the outlet is told what the server does not know": {"old", "", "--tls --alpn h2", []string{"h2"}, ""},
		"gRPC to a server that does not know HTTP/2":       {"old", withTLS, "--tls", []string{"h2"}, ""},
		"headers are set, which needs HTTP/1.1":            {"tls", withTLS + " --http-header X-Set:yes", "--tls", all, "HTTP/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			port := inlet(c.target, c.from, c.to)
			useTLS := strings.Contains(c.from, "--tls")
			url := "http://127.0.0.1:" + port
			if useTLS {
				url = "https://127.0.0.1:" + port
			}
			proto, header, err := talkHTTP(httpClient(useTLS, c.client...), url, c.want == "HTTP/2.0")
			switch {
			case c.want == "" && err == nil:
				t.Errorf("%s got through", proto)
			case c.want == "":
				var late net.Error
				if errors.As(err, &late) && late.Timeout() {
					t.Errorf("the client waits in vain: %v", err)
				}
			case err != nil:
				log, _ := os.ReadFile(p.must(t, "node", "logs", "n1"))
				t.Errorf("%v\n%s", err, log)
			case proto != c.want:
				t.Errorf("the target saw %s, not %s", proto, c.want)
			case strings.Contains(c.from, "X-Set") && header.Get("X-Seen") != "yes":
				t.Error("the header was not set")
			}
		})
	}
	t.Run("a client without ALPN", func(t *testing.T) {
		c, err := tls.Dial("tcp", "127.0.0.1:"+inlet("tls", withTLS, "--tls"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
		_, _ = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), "200 OK") {
			t.Errorf("%s, %v", b, err)
		}
	})
	t.Run("a server that speaks first", func(t *testing.T) {
		ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			c, err := ln.Accept()
			if err == nil {
				_, _ = c.Write([]byte("220 ready\r\n"))
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}
		}()
		_, targets["first"], _ = net.SplitHostPort(ln.Addr().String())
		c, err := net.Dial("tcp", "127.0.0.1:"+inlet("first", "", "--tls"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
		in := bufio.NewReader(c)
		if line, err := in.ReadString('\n'); line != "220 ready\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		_, _ = c.Write([]byte("EHLO\r\n"))
		if line, err := in.ReadString('\n'); line != "EHLO\r\n" {
			t.Errorf("%q, %v", line, err)
		}
	})
	p.fails(t, "--alpn needs --tls", "tcp-outlet", "create", "x", "--at", "n1", "--to", "5", "--alpn", "h2")
	p.fails(t, "--alpn needs --tls", "tcp-inlet", "create", "x", "--at", "n1", "--to", "/service/x", "--alpn", "h2")
	p.fails(t, "stands alone", "tcp-outlet", "create", "x", "--at", "n1", "--to", "5", "--tls", "--alpn", "none,h2")
}
