package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPrepare checks what happens to a command line before it is parsed.
func TestPrepare(t *testing.T) {
	for _, c := range []struct {
		line, stdin, want string
	}{
		{"message send x --to -/service/echo", "/service/a\n", "message send x --to /service/a/service/echo"},
		{"message send x --to=-/service/echo", "/service/a", "message send x --to=/service/a/service/echo"},
		{"a --to /service/x/-", "/secure/api", "a --to /service/x/secure/api"},
		{"a -/b -/c", "/1\n/2\n", "a /1/b /2/c"},
		{"a /tmp/-x /tmp/x- x-/y", "", "a /tmp/-x /tmp/x- x-/y"},
		{"node list --env SALLYPORT_TEST_X=1 --quiet", "", "node list --quiet"},
		{"--env=SALLYPORT_TEST_X=1 node", "", "node"},
		{"node list -V", "", "--version"},
		{"node create --version x", "", "--version"},
		{"message send -- -V", "", "message send -- -V"},
	} {
		t.Setenv("SALLYPORT_TEST_X", "")
		a := newApp(strings.NewReader(c.stdin), nil, nil)
		got, err := a.prepare(strings.Fields(c.line))
		if err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s: %q, %v; want %s", c.line, got, err, c.want)
		}
		if strings.Contains(c.line, "--env") && os.Getenv("SALLYPORT_TEST_X") != "1" {
			t.Errorf("%s: the variable is not set", c.line)
		}
	}
	for _, line := range []string{"a -/b", "a --env", "a --env X", "a --env =x"} {
		args := strings.Fields(line)
		if got, err := newApp(strings.NewReader(""), nil, nil).prepare(args); err == nil && !slices.Equal(got, args) {
			t.Errorf("%s: %q", line, got)
		}
	}
}

func TestSchemePort(t *testing.T) {
	for text, want := range map[string]string{
		"5432": "tcp 127.0.0.1:5432", ":80": "tcp 127.0.0.1:80", "localhost:80": "tcp localhost:80", "tls://example.com:443": "tls example.com:443",
		"udp://0.0.0.0:1": "udp 0.0.0.0:1", "[::1]:8080": "tcp [::1]:8080", "a_b.c-d:1": "tcp a_b.c-d:1", "33domain:80": "tcp 33domain:80",
		"invalid": "", "localhost:80:80": "", "192,166,0.1:9999": "", "-x:80": "", "x-:80": "", "x..y:80": "", ".x:80": "", "x.:80": "tcp x.:80", ".:80": "", "x..:80": "", "ü:1": "",
		"x:65536": "", "x:": "", "http://x:80": "", "tcp://": "", "": "", strings.Repeat("a", 64) + ":1": "", "x y:1": "",
	} {
		scheme, address, err := schemePort("--to", text)
		if got := strings.TrimSpace(scheme + " " + address); err == nil && got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestPlainName(t *testing.T) {
	for text, want := range map[string]string{"n": "n", "/node/n": "n", "/service/s/service/t": "s", "/project/p/x": "p", "/tmp/x": "/tmp/x", "": ""} {
		if got := plainName(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestWebAddress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a:1")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{"name: n1", "n1", "/tmp/x", "{a: 1/b}", "localhost:80", "a:b/c", "relay.yaml", file} {
		if got := webAddress(arg); got != "" {
			t.Errorf("%q is taken for %s", arg, got)
		}
	}
	for arg, want := range map[string]string{"localhost:80/x": "http://localhost:80/x", "https://a/b": "https://a/b"} {
		if got := webAddress(arg); got != want {
			t.Errorf("%q is taken for %q", arg, got)
		}
	}
}

func TestFlagIn(t *testing.T) {
	args := strings.Fields("node create n --foreground --identity i --in-memory=false --foreground=true --services {} --exit-on-eof")
	for name, want := range map[string]string{"foreground": "true", "identity": "i", "in-memory": "false", "services": "{}", "exit-on-eof": "true", "none": ""} {
		if got := flagIn(args, name); got != want {
			t.Errorf("--%s: %q, want %q", name, got, want)
		}
	}
}

// TestAbsentCommands: each command that cannot work here says so in one line on standard error, with the exit code of a usage error.
func TestAbsentCommands(t *testing.T) {
	t.Setenv("PAGER", "cat")
	count := 0
	for _, c := range append(append(slices.Clone(hosted), missing...), absent{"project " + addons.name, addons.does, addons.verbs}) {
		for _, v := range c.verbs {
			args := strings.Fields(c.name + " " + v.name)
			for _, word := range strings.Fields(v.args) {
				if word[0] != '[' {
					args = append(args, "x")
				}
			}
			for _, word := range strings.Fields(v.flags) {
				if flag, must := strings.CutSuffix(word, "!"); must {
					_, flag, _ = strings.Cut(","+flag, ",--")
					args = append(args, "--"+strings.TrimPrefix(strings.TrimSuffix(flag, "="), "--"), "x")
				}
			}
			var out, errs strings.Builder
			code := run(t.Context(), args, strings.NewReader(""), &out, &errs)
			if code != exitUsage || out.Len() > 0 || strings.Count(errs.String(), "\n") != 1 || !strings.Contains(errs.String(), c.does) {
				t.Errorf("%q: exit code %d, %q, %q", args, code, out.String(), errs.String())
			}
			count++
			if code := run(t.Context(), append(args, "--nosuchflag"), strings.NewReader(""), &out, &errs); code != exitUsage || !strings.Contains(out.String(), "--nosuchflag") {
				t.Errorf("%q --nosuchflag: exit code %d, %q", args, code, out.String())
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d commands", count)
	}
}
