package datagrams

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/internal/freeport"
)

// names is how many names the servers know: host-N.example has the address 192.0.2.N.
const names = 100

// miekgServer serves the names with a library, and a text that needs a large datagram.
func miekgServer(t *testing.T) string {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: c, UDPSize: 4096, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg)
		a.SetReply(q)
		name := q.Question[0].Name
		var n int
		switch {
		case q.Question[0].Qtype == dns.TypeTXT:
			r := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}}
			for range 12 {
				r.Txt = append(r.Txt, strings.Repeat("x", 250))
			}
			a.Answer = append(a.Answer, r)
		default:
			if k, err := fmt.Sscanf(name, "host-%d.example.", &n); k == 1 && err == nil && q.Question[0].Qtype == dns.TypeA {
				a.Answer = append(a.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(192, 0, 2, byte(n))})
			}
		}
		_ = w.WriteMsg(a)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c.LocalAddr().String()
}

// dnsmasqServer is the one of the distribution, with the same names.
func dnsmasqServer(t *testing.T) string {
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		path = "/usr/sbin/dnsmasq"
		if _, err := exec.LookPath(path); err != nil {
			t.Skip("dnsmasq is missing: install the package dnsmasq-base")
		}
	}
	port := freeport.For(t)
	at := "127.0.0.1:" + port
	args := []string{"--keep-in-foreground", "--no-daemon", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--listen-address=127.0.0.1",
		"--bind-interfaces", "--port=" + port, "--edns-packet-max=4096", "--user=", "--group="}
	for i := range names {
		args = append(args, fmt.Sprintf("--host-record=host-%d.example,192.0.2.%d", i, i))
	}
	server := exec.Command(path, args...)
	var said strings.Builder
	server.Stderr = &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	t.Cleanup(end)
	for until := time.Now().Add(15 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if _, err := query(at, "host-1.example.", dns.TypeA, time.Second); err == nil {
			return at
		}
	}
	end() // who writes what it said
	t.Fatalf("dnsmasq does not answer: %s", said.String())
	return ""
}

func query(server, name string, kind uint16, timeout time.Duration) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.SetEdns0(4096, false)
	a, _, err := (&dns.Client{Timeout: timeout, UDPSize: 4096}).Exchange(q, server)
	return a, err
}

// TestDNS: the system's way to resolve names works through a portal, for many clients at once, and so does an answer larger than a packet.
func TestDNS(t *testing.T) {
	s := newStory(t)
	for _, server := range []struct {
		name  string
		start func(*testing.T) string
	}{{"miekg", miekgServer}, {"dnsmasq", dnsmasqServer}} {
		for way, direct := range ways {
			t.Run(server.name+" "+way, func(t *testing.T) {
				name := strings.ReplaceAll(server.name+" "+way, " ", "-")
				at := s.portal(name, server.start(t), direct)
				resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "udp4", at)
				}}
				var clients sync.WaitGroup
				for i := range names {
					clients.Go(func() {
						want := fmt.Sprintf("192.0.2.%d", i)
						got, err := resolver.LookupNetIP(s.ctx, "ip4", fmt.Sprintf("host-%d.example", i))
						if err != nil || len(got) != 1 || got[0].String() != want {
							t.Errorf("host-%d.example: %v, %v", i, got, err)
						}
					})
				}
				clients.Wait()
				if server.name == "miekg" {
					var size int
					for end := time.Now().Add(time.Minute); size < 3000 && time.Now().Before(end); {
						if a, err := query(at, "large.example.", dns.TypeTXT, 2*time.Second); err == nil && !a.Truncated {
							size = a.Len()
						}
					}
					if size < 3000 {
						t.Errorf("a large answer has %d bytes", size)
					}
				}
			})
		}
	}
}
