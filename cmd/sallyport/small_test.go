package main

import (
	"net/http"
	"strings"
	"testing"
)

// TestSmallNode: a small node has one loop and small limits, also after a restart and from a configuration, and what is said beside it counts.
func TestSmallNode(t *testing.T) {
	s := newShell(t)
	s.must(`sallyport node create box --small --limits '{"names": 5}'`)
	check := func(node string) {
		t.Helper()
		if line := s.must("grep 'node started' $(sallyport node logs " + node + ") | tail -n 1"); !strings.Contains(line, "shards=1") {
			t.Errorf("%s: %s", node, line)
		}
		metrics := get(t, http.DefaultClient, "http://"+strings.Trim(s.must("sallyport node show "+node+" --jq .status_endpoint_address"), "\"\n")+"/metrics", nil)
		for _, want := range []string{`memory"} 3.3554432e+07`, `windows"} 4.194304e+06`, `channels"} 256`, `names"} 5`} {
			if !strings.Contains(metrics, `sallyport_limit{limit="`+want+"\n") {
				t.Errorf("%s: not %s", node, want)
			}
		}
	}
	check("box")
	s.must("sallyport node stop box; sallyport node start box")
	check("box")
	s.must(`sallyport node create --configuration '{"name": "other", "small": true, "limits": {"names": 5}}'`)
	check("other")
}
