package node

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/freeport"
	"sallyport/node/resource"
)

// TestProxyProtocolServers: nginx and HAProxy read what outlets send, in both versions, and an inlet reads what HAProxy sends.
func TestProxyProtocolServers(t *testing.T) {
	a, b := plainNode(t, "a", "127.0.0.1:0"), plainNode(t, "b", "127.0.0.1:0")
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	start := func(t *testing.T, port, program string, args ...string) {
		t.Helper()
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skipf("%s is not installed here", program)
		}
		cmd := exec.Command(path, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		})
		until(t, program, func() bool {
			c, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	// ask sends a request from a client and returns the client's address and the answer's body.
	ask := func(t *testing.T, at string) (client, body string) {
		t.Helper()
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(90 * time.Second))
		io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		all, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ = strings.Cut(string(all), "\r\n\r\n")
		return c.LocalAddr().String(), strings.TrimSpace(body)
	}
	inlet := func(t *testing.T, outlet resource.Outlet, in resource.Inlet) string {
		t.Helper()
		if _, err := b.CreateOutlet(t.Context(), outlet); err != nil {
			t.Fatal(err)
		}
		in.From, in.To = "127.0.0.1:0", tcpRoute(t, b)+"/secure/api/service/"+outlet.Name
		made, err := a.CreateInlet(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		return made.Bind
	}
	nginx, haproxy, before := freeport.For(t), freeport.For(t), freeport.For(t)
	t.Run("nginx", func(t *testing.T) {
		conf := file("nginx.conf", fmt.Sprintf(`pid %[1]s/nginx.pid; error_log %[1]s/error.log; events {}
			http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
			server { listen 127.0.0.1:%[2]s proxy_protocol; location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port"; } } }`, dir, nginx))
		start(t, nginx, "nginx", "-c", conf, "-e", filepath.Join(dir, "error.log"), "-g", "daemon off;")
		for _, version := range []string{"v1", "v2"} {
			at := inlet(t, resource.Outlet{Name: "nginx-" + version, To: "127.0.0.1:" + nginx, ProxyProtocol: version}, resource.Inlet{TellClient: true})
			if client, got := ask(t, at); got != client {
				t.Errorf("%s: nginx saw %q, the client is %s", version, got, client)
			}
		}
	})
	t.Run("haproxy", func(t *testing.T) {
		second := inlet(t, resource.Outlet{Name: "behind", To: "127.0.0.1:" + haproxy, ProxyProtocol: "v2"}, resource.Inlet{AcceptProxyProtocol: []string{"127.0.0.1"}})
		conf := file("haproxy.cfg", fmt.Sprintf(`defaults
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend web
  mode http
  bind 127.0.0.1:%s accept-proxy
  http-request return status 200 content-type text/plain lf-string "%%[src]:%%[src_port]"
listen before
  mode tcp
  bind 127.0.0.1:%s
  server inlet %s send-proxy-v2
`, haproxy, before, second))
		start(t, haproxy, "haproxy", "-f", conf)
		for _, version := range []string{"v1", "v2"} {
			at := inlet(t, resource.Outlet{Name: "haproxy-" + version, To: "127.0.0.1:" + haproxy, ProxyProtocol: version}, resource.Inlet{TellClient: true})
			if client, got := ask(t, at); got != client {
				t.Errorf("%s: haproxy saw %q, the client is %s", version, got, client)
			}
		}
		if client, got := ask(t, "127.0.0.1:"+before); got != client {
			t.Errorf("through a load balancer before the inlet: haproxy saw %q, the client is %s", got, client)
		}
	})
}
