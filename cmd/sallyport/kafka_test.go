package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCLIKafkaInlet: what is said on the command line comes to the node, and clients get the TLS that was asked for.
func TestCLIKafkaInlet(t *testing.T) {
	t.Parallel()
	s := memberShell(t, "")
	plain, secure := freePort(t), freePort(t)
	s.must(fmt.Sprintf(`sallyport service start tls_certificate_provider --certificate fullchain.pem --key privkey.pem --at n1
		sallyport kafka-inlet create options --at n1 --to self --from 0.0.0.0:%s --advertise kafka.example.com --max-message-size 16MiB --bind-values --allow-consumer '(= subject.a "b")'
		sallyport kafka-inlet create secure --at n1 --to self --from tls://localhost:%s --tls-certificate-provider /service/tls_certificate_provider`, plain, secure))
	c, err := tls.Dial("tcp", "localhost:"+secure, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatalf("no TLS: %v", err)
	}
	c.Close()
	var kept []byte
	_ = filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, filepath.Join("n1", "resources.json")) {
			kept, _ = os.ReadFile(path)
		}
		return nil
	})
	for _, want := range []string{`"advertise":"kafka.example.com"`, `"max_message_size":16777216`, `"bind_values":true`, `"tls_certificate_provider":`} {
		var compact strings.Builder
		var v any
		if err := json.Unmarshal(kept, &v); err != nil {
			t.Fatalf("resources of the node: %v", err)
		}
		if err := json.NewEncoder(&compact).Encode(v); err != nil || !strings.Contains(compact.String(), want) {
			t.Errorf("%s is not in %s", want, compact.String())
		}
	}
	for _, flags := range []string{"--from udp://127.0.0.1:4000", "--advertise kafka.example.com:9092", "--max-message-size 16MB --bind-values --no-content-encryption", "--max-message-size much",
		"--from tls://0.0.0.0:4000 --tls-certificate-provider /service/x"} {
		if o := s.run("sallyport kafka-inlet create bad --at n1 --to self " + flags); o.code == 0 {
			t.Errorf("%s was accepted", flags)
		}
	}
	for _, servers := range []string{"127.0.0.1:1,tls://127.0.0.1:2", "127.0.0.1:1,", "127.0.0.1:1,nothing:x"} {
		if o := s.run("sallyport kafka-outlet create --at n1 --bootstrap-server " + servers); o.code == 0 {
			t.Errorf("%s was accepted", servers)
		}
	}
	s.must("sallyport kafka-outlet create --at n1 --bootstrap-server 127.0.0.1:1,localhost:2")
}
