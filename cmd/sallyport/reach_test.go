package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/internal/servers"
)

// networksPage returns the n-th block of a language in docs/networks.md: what the page says is what is tested.
func networksPage(t *testing.T, language string, n int) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/networks.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) <= n {
		t.Fatalf("%d blocks of %s", len(blocks), language)
	}
	return blocks[n][1]
}

// replaced replaces texts, each of which must be there.
func replaced(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in the page", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// front is a server in front of a project's nodes, with TLS.
type front struct {
	name  string
	start func(t *testing.T, s *shell, authority, relay, idle string) *servers.Server
}

var fronts = []front{
	{"nginx", func(t *testing.T, s *shell, authority, relay, idle string) *servers.Server {
		site := filepath.Join(s.dir, "site")
		if err := os.MkdirAll(site, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(site, "index.html"), []byte("site\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		server := replaced(t, networksPage(t, "nginx", 0), "listen 443 ssl;", "listen 127.0.0.1:{{.Port}} ssl; listen [::1]:{{.Port}} ssl;", "fullchain.pem", s.dir+"/fullchain.pem", "privkey.pem", s.dir+"/privkey.pem",
			"127.0.0.1:4010", "127.0.0.1:"+authority, "127.0.0.1:4011", "127.0.0.1:"+relay, "root site", "root "+site)
		return servers.Start(t, "nginx", "daemon off; pid {{.Dir}}/pid; error_log stderr; worker_processes 1; user root;\nevents {}\nhttp {\naccess_log off; proxy_read_timeout "+idle+"; "+
			"client_body_temp_path {{.Dir}}/b; proxy_temp_path {{.Dir}}/p; fastcgi_temp_path {{.Dir}}/f; uwsgi_temp_path {{.Dir}}/u; scgi_temp_path {{.Dir}}/s;\n"+server+"}\n", nil,
			"-p", "{{.Dir}}", "-c", "{{.Config}}")
	}},
	{"haproxy", func(t *testing.T, s *shell, authority, relay, idle string) *servers.Server {
		s.must("cat fullchain.pem privkey.pem > both.pem")
		return servers.Start(t, "haproxy", replaced(t, networksPage(t, "haproxy", 0), "bind :443", "bind 127.0.0.1:{{.Port}},[::1]:{{.Port}}", "both.pem", s.dir+"/both.pem", "timeout tunnel 1m", "timeout tunnel "+idle,
			"127.0.0.1:4010", "127.0.0.1:"+authority, "127.0.0.1:4011", "127.0.0.1:"+relay), nil, "-db", "-f", "{{.Config}}")
	}},
}

// member enrols a machine with a ticket that the project's machine makes.
func (s *shell) member(name, ticket string) {
	s.t.Helper()
	s.at("project", "sallyport project ticket "+ticket+" > "+name+".ticket")
	s.at(name, "sallyport project enroll "+name+".ticket")
}

// TestReachFront: a project behind nginx and behind HAProxy, with the configurations of docs/networks.md: members enrol and work through them alone, the web
// site beside stays, a connection on which nothing is said outlives the idle time-out, and a client's connection outlives the end of the server in front.
func TestReachFront(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	for _, f := range fronts {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := newShell(t)
			authority, relay := freePort(t), freePort(t)
			const idle = 20 * time.Second
			server := f.start(t, s, authority, relay, "20s")
			_, port, _ := net.SplitHostPort(server.Address)
			s.env = append(s.env, "SALLYPORT_TLS_CA="+filepath.Join(s.dir, "fullchain.pem"))
			s.at("project", fmt.Sprintf(`sallyport project create partners --authority-port %s --relay-port %s \
				--authority-listener ws://127.0.0.1:%s/authority --authority-address wss://localhost:%s/authority \
				--relay-listener ws://127.0.0.1:%s/portal --relay-address wss://localhost:%s/portal --trusted-proxy 127.0.0.1`, freePort(t), freePort(t), authority, port, relay, port))
			began := time.Now()
			s.member("bank", "--relay postgres")
			s.member("analysis", "")
			inlet := freePort(t)
			s.at("bank", "sallyport tcp-outlet create --to "+serveOn(t, listenAt(t, "0"), servers.Echo)+"; sallyport relay create postgres")
			s.at("analysis", "sallyport tcp-inlet create --from "+inlet+" --via postgres")
			works(t, "through "+f.name, inlet)
			t.Logf("%s: from tickets to the first answer: %.1f s", f.name, time.Since(began).Seconds())
			for _, machine := range []string{"bank", "analysis"} {
				list := s.at(machine, "sallyport tcp-connection list")
				if !strings.Contains(list, "WSS, Outgoing at 127.0.0.1:"+port) || strings.Count(list, "Outgoing") != strings.Count(list, "WSS, Outgoing") {
					t.Errorf("%s is connected otherwise: %s", machine, list)
				}
			}
			pool := x509.NewCertPool()
			pem, err := os.ReadFile(filepath.Join(s.dir, "fullchain.pem"))
			if err != nil || !pool.AppendCertsFromPEM(pem) {
				t.Fatal(err)
			}
			web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
			if page := get(t, web, "https://localhost:"+port+"/", nil); strings.TrimSpace(page) != "site" {
				t.Errorf("the web site is %q", page)
			}

			// A client with an open connection, and a connection of nodes on which nothing is said.
			c, err := net.Dial("tcp", "127.0.0.1:"+inlet)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			says := func(text string) {
				t.Helper()
				_ = c.SetDeadline(time.Now().Add(90 * time.Second))
				if _, err := io.WriteString(c, text); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(text))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
					t.Fatalf("%q came back, %v", got, err)
				}
			}
			says("before")
			s.at("analysis", "sallyport node create quiet; sallyport tcp-connection create --from quiet --to wss://localhost:"+port+"/portal")
			quiet := s.at("analysis", "sallyport tcp-connection list --at quiet")

			// The relay knows who comes over IPv6, of which it has no listener, and believes no more than the server in front has said.
			s.at("analysis", "sallyport node create six; sallyport tcp-connection create --from six --to wss://[::1]:"+port+"/portal")
			if list := s.at("project", "sallyport tcp-connection list --at relay-partners"); !strings.Contains(list, "Incoming at ::1") || strings.Contains(list, "Incoming at 127.0.0.1:") {
				t.Errorf("the relay's connections behind %s: %s", f.name, list)
			}
			for field, want := range map[string]string{"X-Forwarded-For: 192.0.2.66": "192.0.2.66", "Forwarded: for=192.0.2.67": "192.0.2.67"} {
				c := requestWebSocket(t, pool, "localhost", "[::1]:"+port, "/portal", field)
				if list := s.at("project", "sallyport tcp-connection list --at relay-partners"); strings.Contains(list, want) {
					t.Errorf("what a client says of itself is believed behind %s: %s", f.name, list)
				}
				c.Close()
			}
			t.Logf("%s: the relay sees its members' addresses", f.name)
			time.Sleep(2*idle + idle/2) // what is tested is that nothing happens meanwhile
			if now := s.at("analysis", "sallyport tcp-connection list --at quiet"); now != quiet || !strings.Contains(now, port) {
				t.Errorf("the quiet connection has ended after %v: %s, %s", 2*idle, quiet, now)
			}
			t.Logf("%s: a connection without a word is there after %.0f s, idle time-out %.0f s", f.name, (2*idle + idle/2).Seconds(), idle.Seconds())
			says("after a while")

			server.Stop()
			time.Sleep(time.Second)
			server.Begin()
			began = time.Now()
			says("after the cut")
			t.Logf("%s: killed and started again; an open connection goes on after %.1f s", f.name, time.Since(began).Seconds())
		})
	}
}

// TestReachALPN: HAProxy passes TLS on unopened and tells the relay's from the web site's by ALPN and by the name; the configuration is that of docs/networks.md.
func TestReachALPN(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	relay, site := freePort(t), freePort(t)
	cert, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "fullchain.pem"), filepath.Join(s.dir, "privkey.pem"))
	if err != nil {
		t.Fatal(err)
	}
	web, err := tls.Listen("tcp", "127.0.0.1:"+site, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "site") })}
	go server.Serve(web)
	defer server.Close()
	front := servers.Start(t, "haproxy", replaced(t, networksPage(t, "haproxy", 1), "bind :443", "bind 127.0.0.1:{{.Port}},[::1]:{{.Port}}", "127.0.0.1:4012", "127.0.0.1:"+relay, "127.0.0.1:8443", "127.0.0.1:"+site), nil,
		"-db", "-f", "{{.Config}}")
	_, port, _ := net.SplitHostPort(front.Address)
	s.env = append(s.env, "SALLYPORT_TLS_CA="+filepath.Join(s.dir, "fullchain.pem"))
	s.at("project", fmt.Sprintf(`sallyport project create partners --authority-port %s --relay-port %s --relay-listener tls://127.0.0.1:%s --relay-address tls://localhost:%s \
		--tls-certificate fullchain.pem --tls-key privkey.pem --accept-proxy-protocol 127.0.0.1`, freePort(t), freePort(t), relay, port))
	s.member("bank", "--relay postgres")
	inlet := freePort(t)
	s.at("bank", "sallyport tcp-outlet create --to "+echoServer(t, "0")+"; sallyport relay create postgres; sallyport tcp-inlet create --from "+inlet+" --via postgres")
	works(t, "tls behind haproxy", inlet)
	if list := s.at("bank", "sallyport tcp-connection list"); !strings.Contains(list, "TLS, Outgoing at 127.0.0.1:"+port) {
		t.Error(list)
	}
	s.at("bank", "sallyport node create six; sallyport tcp-connection create --from six --to tls://[::1]:"+port)
	if list := s.at("project", "sallyport tcp-connection list --at relay-partners"); !strings.Contains(list, "Incoming at [::1]:") {
		t.Errorf("the relay's connections behind haproxy: %s", list)
	}
	// Who comes past the load balancer without its header is turned away, though from its address.
	if o := s.run("sallyport tcp-connection create --from six --to tls://localhost:"+relay, "SALLYPORT_HOME="+filepath.Join(s.dir, "bank")); o.code == 0 {
		t.Errorf("a connection without a header: %s", o.stdout)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	if page := get(t, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}, "https://localhost:"+port+"/", nil); page != "site" {
		t.Errorf("the web site is %q", page)
	}
}

// TestReachTLS: a relay with its own certificate, over IPv6 too: pinned and not; the files are replaced while it runs.
func TestReachTLS(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		s := newShell(t)
		leaf := func() (*x509.Certificate, string) {
			cert, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "fullchain.pem"), filepath.Join(s.dir, "privkey.pem"))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
			return cert.Leaf, "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
		}
		first, pin := leaf()
		relay := freePort(t)
		s.env = append(s.env, "SALLYPORT_TLS_PIN="+pin)
		s.at("project", fmt.Sprintf(`sallyport project create partners --authority-port %s --relay-port %s --relay-listener wss://%s:%s/portal --relay-address wss://%s:%s/portal \
			--tls-certificate fullchain.pem --tls-key privkey.pem`, freePort(t), freePort(t), host, relay, host, relay))
		s.member("bank", "--relay postgres")
		inlet := freePort(t)
		s.at("bank", "sallyport tcp-outlet create --to "+echoServer(t, "0")+"; sallyport relay create postgres; sallyport tcp-inlet create --from "+inlet+" --via postgres")
		works(t, "wss at "+host, inlet)

		presented := func() *x509.Certificate {
			c, err := tls.Dial("tcp", host+":"+relay, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return c.ConnectionState().PeerCertificates[0]
		}
		if !presented().Equal(first) {
			t.Error("another certificate")
		}
		writeCertificate(t, filepath.Join(s.dir, "fullchain.pem"), filepath.Join(s.dir, "privkey.pem"))
		second, _ := leaf()
		began := time.Now()
		for ; !presented().Equal(second); time.Sleep(50 * time.Millisecond) {
			if time.Since(began) > 90*time.Second {
				t.Fatal("the certificate is not replaced")
			}
		}
		t.Logf("a certificate that was replaced is used after %.1f s", time.Since(began).Seconds())
		if o := s.run("sallyport node create other; sallyport tcp-connection create --from other --to wss://"+host+":"+relay+"/portal", "SALLYPORT_HOME="+filepath.Join(s.dir, "bank")); !strings.Contains(o.stderr, "not one of those pinned") {
			t.Errorf("a server whose key is not pinned: %s%s", o.stdout, o.stderr)
		}
	}
}

// TestReachACME: a relay gets its certificate by ACME at its own port, and members reach it there by its name.
func TestReachACME(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	relay := freePort(t)
	directory, ca, roots := servers.Pebble(t, relay, 3600)
	s := newShell(t)
	const name = "relay.example.test"
	at := "wss://127.0.0.1:" + relay + "/portal?host=" + name
	s.at("project", fmt.Sprintf(`sallyport project create partners --authority-port %s --relay-port %s --relay-listener '%s' --relay-address '%s' \
		--acme '{"domains": ["%s"], "directory": "%s", "email": "ops@example.test", "ca": "%s"}'`, freePort(t), freePort(t), at, at, name, directory, ca))
	began := time.Now()
	for ; ; time.Sleep(50 * time.Millisecond) {
		c, err := tls.Dial("tcp", "127.0.0.1:"+relay, &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"http/1.1"}})
		if err == nil {
			c.Close()
			break
		}
		if time.Since(began) > 90*time.Second {
			t.Fatalf("%v\n%s", err, s.at("project", "cat $(sallyport node logs relay-partners)"))
		}
	}
	t.Logf("a certificate by ACME after %.1f s", time.Since(began).Seconds())
	c, err := tls.Dial("tcp", "127.0.0.1:"+relay, &tls.Config{InsecureSkipVerify: true, ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sum := sha256.Sum256(c.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	s.env = append(s.env, "SALLYPORT_TLS_PIN=sha256/"+base64.StdEncoding.EncodeToString(sum[:]))
	s.member("bank", "--relay postgres")
	inlet := freePort(t)
	s.at("bank", "sallyport tcp-outlet create --to "+echoServer(t, "0")+"; sallyport relay create postgres; sallyport tcp-inlet create --from "+inlet+" --via postgres")
	works(t, "wss with a certificate by ACME", inlet)
	if out := s.at("project", "stat -c %a $SALLYPORT_HOME/acme; find $SALLYPORT_HOME/acme -type f -perm /077"); strings.TrimSpace(out) != "700" {
		t.Errorf("the cache: %s", out)
	}
}

// TestReachProxies: enrolment, authority and relay through proxies alone, over TCP and WebSocket.
func TestReachProxies(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	for name, start := range map[string]func(t testing.TB) (*servers.Server, string){
		"tinyproxy": func(t testing.TB) (*servers.Server, string) {
			p := servers.Tinyproxy(t, "bank", "geheim")
			return p, "http://bank:geheim@" + p.Address
		},
		"squid": func(t testing.TB) (*servers.Server, string) {
			p := servers.Squid(t, "1-65535")
			return p, "http://" + p.Address
		},
		"danted": func(t testing.TB) (*servers.Server, string) {
			p := servers.Danted(t)
			return p, "socks5://" + p.Address
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShell(t)
			p, url := start(t)
			for _, address := range []string{"ws", "tcp"} {
				relay, ws := freePort(t), freePort(t)
				flags := ""
				if address == "ws" {
					flags = fmt.Sprintf(" --relay-listener ws://127.0.0.1:%s/portal --relay-address ws://127.0.0.1:%s/portal", ws, ws)
				}
				s.at("project", fmt.Sprintf("sallyport project create %s --authority-port %s --relay-port %s", address, freePort(t), relay)+flags)
				s.at("project", "sallyport project ticket --project "+address+" --relay postgres > bank.ticket")
				bank := address + "-bank"
				s.must("sallyport project enroll bank.ticket", "SALLYPORT_HOME="+filepath.Join(s.dir, bank), "SALLYPORT_PROXY=127.0.0.1="+url)
				o := s.run("sallyport doctor", "SALLYPORT_HOME="+filepath.Join(s.dir, bank), "SALLYPORT_PROXY=127.0.0.1="+url)
				if strings.Count(o.stdout+o.stderr, "answers through the proxy ") != 2 || strings.Contains(o.stdout+o.stderr, "geheim") {
					t.Errorf("the doctor says: %s%s", o.stdout, o.stderr)
				}
				inlet := freePort(t)
				s.at(bank, "sallyport node create n --proxy 127.0.0.1="+url+"; sallyport tcp-outlet create --to "+echoServer(t, "0")+"; sallyport relay create postgres; sallyport tcp-inlet create --from "+inlet+" --via postgres")
				works(t, name+", "+address, inlet)
				list := s.at(bank, "sallyport tcp-connection list")
				if n := strings.Count(list, "Outgoing"); n == 0 || strings.Count(list, "Outgoing at "+p.Address) != n {
					t.Errorf("connections that do not go through the proxy: %s", list)
				}
				// The proxy is away and comes back.
				p.Stop()
				s.awaits(bank, "cat $(sallyport node logs n)", "connection lost")
				p.Begin()
				works(t, name+", "+address+", started again", inlet)
				// A restart remembers it, and nobody is shown the credentials.
				s.at(bank, "sallyport node stop n; sallyport node start n")
				works(t, name+", "+address+", node started again", inlet)
				pid := strings.TrimSpace(s.at(bank, "sallyport node show n --jq .pid"))
				line, err := os.ReadFile("/proc/" + pid + "/cmdline")
				said := string(line) + s.at(bank, "cat $(sallyport node logs n); sallyport node show n --output json; sallyport node list --output json")
				if err != nil || strings.Contains(said, "geheim") {
					t.Errorf("credentials are shown: %v\n%s", err, said)
				}
				if name == "tinyproxy" {
					o := s.run("sallyport project enroll bank.ticket", "SALLYPORT_HOME="+filepath.Join(s.dir, "late"), "SALLYPORT_PROXY=127.0.0.1=http://bank:falsch@"+p.Address)
					if !strings.Contains(o.stderr, "http://"+p.Address) || !strings.Contains(o.stderr, "401 Unauthorized") || strings.Contains(o.stderr, "falsch") {
						t.Errorf("a wrong password: %s", o.stderr)
					}
				}
				s.at(bank, "sallyport node delete n --yes")
				s.at("project", "sallyport node delete --all --yes")
			}
		})
	}
}

// requestWebSocket begins a WebSocket connection over TLS with a field in its request.
func requestWebSocket(t *testing.T, roots *x509.CertPool, name, hostport, path, field string) net.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", hostport, &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sallyport.1\r\n%s\r\n\r\n", path, name, field)
	answer := make([]byte, len("HTTP/1.1 101 "))
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 101 " {
		t.Fatalf("%q, %v", answer, err)
	}
	return c
}
