package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestCLIInletSaysNo: whoever misspells an outlet learns it from the command that creates the inlet, in words and by its exit code; whoever
// may not use it sees it in the inlet's state. The inlet stays, and works once the other side says yes.
func TestCLIInletSaysNo(t *testing.T) {
	t.Parallel()
	p := ours(t)
	p.must(t, "node", "create", "bank")
	p.must(t, "node", "create", "app")
	p.must(t, "tcp-outlet", "create", "--at", "bank", "--to", echoServer(t, "0"))
	p.must(t, "tcp-outlet", "create", "others", "--at", "bank", "--to", echoServer(t, "0"), "--allow", "(= subject.department \"it\")")
	for name, reason := range map[string]string{"outlte": "there is no outlet outlte", "others": "its policy refuses it"} {
		port := freePort(t)
		o := p.runWith(t, "", nil, "tcp-inlet", "create", name+"-inlet", "--at", "app", "--from", port, "--to", "/node/bank/secure/api/service/"+name, "--output", "json")
		var made struct {
			Bind string `json:"bind_addr"`
		}
		code, said := exitSoftware, o.stderr
		if name == "others" {
			code, said = exitOK, o.stdout
		}
		if err := json.Unmarshal([]byte(o.stdout), &made); o.code != code || err != nil || !strings.HasSuffix(made.Bind, ":"+port) || !strings.Contains(said, reason) {
			t.Errorf("%s: exit code %d, %v, %q, %q", name, o.code, err, o.stdout, o.stderr)
		}
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil { // else it was closed while it connected
			_ = c.SetDeadline(time.Now().Add(90 * time.Second))
			if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: a client is not closed: %v", name, err)
			}
			_ = c.Close()
		}
		if name == "outlte" { // it is not misspelt after all
			p.must(t, "tcp-outlet", "create", name, "--at", "bank", "--to", echoServer(t, "0"))
			eventuallyExchange(t, name, port)
		}
	}
	// Neither of these is a definite no.
	p.must(t, "tcp-inlet", "create", "--at", "app", "--from", freePort(t), "--to", "/node/bank/secure/api/service/late", "--no-connection-wait")
	p.must(t, "tcp-inlet", "create", "--at", "app", "--from", freePort(t), "--to", "/ip4/127.0.0.1/tcp/"+freePort(t)+"/secure/api/service/outlet", "--connection-wait", "200ms")
}
