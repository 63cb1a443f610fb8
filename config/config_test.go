//go:build !small

package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestSample reads the sample of docs/protocol/02 §8.4.
func TestSample(t *testing.T) {
	text, err := os.ReadFile("testdata/sample.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := mustLoad(t, NodeCreate, string(text), Options{Lookup: env(map[string]string{"ENROLLMENT_TICKET": "abcd\n"})})
	if p.Ticket != "abcd" || p.NodeName != "edge1" || p.Variables["PORT"] != "5432" || len(p.Warnings) != 0 {
		t.Errorf("ticket %q, name %q, variables %v, warnings %v", p.Ticket, p.NodeName, p.Variables, p.Warnings)
	}
	if want := []string{"edge1", "--tcp-listener-address", "127.0.0.1:6000"}; !reflect.DeepEqual(p.Node, want) {
		t.Errorf("node %q, want %q", p.Node, want)
	}
	if l := p.FlagLine("tcp-listener-address"); l != 5 {
		t.Errorf("tcp-listener-address on line %d, want 5", l)
	}
	want := []string{
		`8: policy create --resource-type tcp-outlet --allow "(= subject.component \"web\")" --at edge1`,
		"6: relay create edge1 --to edge1",
		`11: tcp-outlet create db --to 127.0.0.1:5432 --allow "component=web and not suspended" --at edge1`,
		"15: tcp-inlet create --from 127.0.0.1:15432 --via edge2 --to db --allow database --at edge1",
	}
	if got := lines(p); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for i, what := range []string{"policy", `relay "edge1"`, `tcp-outlet "db"`, "tcp-inlet"} {
		if p.Invocations[i].What != what {
			t.Errorf("%q, not %q", p.Invocations[i].What, what)
		}
	}
	// An error about a value is where the value is.
	if e := p.Error(p.Invocations[2], "invalid value for '--to': no port"); e.Line != 12 || e.Column != 9 {
		t.Errorf("%v", e)
	}
	if e := p.Error(p.Invocations[2], "something else"); e.Line != 11 || e.Column != 3 {
		t.Errorf("%v", e)
	}
	if e := p.NodeError("tcp-listener-address", "no"); e.Line != 5 {
		t.Errorf("%v", e)
	}
}

func TestShapes(t *testing.T) {
	tests := []struct {
		name, text string
		mode       Mode
		want       []string
	}{
		{"name", "relays: r1", Run, []string{"1: relay create r1"}},
		{"number as name", "nodes: 1", Run, []string{"1: node create 1"}},
		{"list of names", "nodes: [n1, n2]", Run, []string{"1: node create n1", "1: node create n2"}},
		{"list of names and maps", "nodes:\n- n1\n- n2:\n    tcp_listener_address: 127.0.0.1:0\n  n3:\n- identity: i\n", Run, []string{
			"2: node create n1", "3: node create n2 --tcp-listener-address 127.0.0.1:0", "5: node create n3", "6: node create --identity i"}},
		{"named maps", "vault:\n  v1:\n    path: /tmp/v\n  v2:\n", Run, []string{"2: vault create v1 --path /tmp/v", "4: vault create v2"}},
		{"named maps by name", "nodes:\n  b:\n  a:\n", Run, []string{"3: node create a", "2: node create b"}},
		{"empty options", "vault:\n  v1: {}\n", Run, []string{"2: vault create v1"}},
		{"unnamed map", "identity:\n  vault: v\n  k: x\n", Run, []string{"2: identity create --vault v -k x"}},
		{"unnamed map with name", "relay: {name: r, at: /a}", Run, []string{"1: relay create r --at /a"}},
		{"nothing", "relays:\nnodes: []\nvaults: {}\n", Run, []string{"3: vault create"}},
		{"bools", "tcp-outlets:\n  db: {tls: true, enable-nagle: false, to: 'true'}\n", Run, []string{"2: tcp-outlet create db --tls --to true"}},
		{"lists", "tcp_inlets:\n  web:\n    http_header: ['A:b', \"C: d\"]\n    f: [1, 2]\n", Run, []string{
			`2: tcp-inlet create web --http-header A:b --http-header "C: d" -f 1 -f 2`}},
		{"numbers as written", "tcp-inlet: {from: 0600, timeout: 1.10, to: 0x1F}", Run, []string{"1: tcp-inlet create --from 0600 --timeout 1.10 --to 0x1F"}},
		{"both spellings", "relay: a\nrelays: b\n", Run, []string{"2: relay create b", "1: relay create a"}},
		{"policy map", "policy:\n  resource: db\n  allow: x\n", Run, []string{"2: policy create --resource db --allow x"}},
		{"services of a node", "nodes:\n  n:\n    services: {control_api: {frontend: true, n: 1, l: [a, null]}}\n", Run, []string{
			`2: node create n --services {"control_api":{"frontend":true,"n":1,"l":["a",null]}}`}},
		{"anchor and merge", "tcp-outlets:\n  a: &d\n    to: '1'\n    tls: true\n  b: {<<: *d, to: 2}\n  c: *d\n", Run, []string{
			"2: tcp-outlet create a --to 1 --tls", "5: tcp-outlet create b --to 2 --tls", "6: tcp-outlet create c --to 1 --tls"}},
		{"tags", "tcp-outlet: {to: !!str true, from: !!int 5}", Run, []string{"1: tcp-outlet create --to true --from 5"}},
		{"json", `{"nodes": ["n"], "relay": {"r": {"to": "n"}}}`, Run, []string{"1: node create n", "1: relay create r --to n"}},
		{"block text", "policy:\n  allow: >-\n    a\n    b\n", Run, []string{`2: policy create --allow "a b"`}},
		{"fleet", "authority: {project-identifier: p, store: '@store.url'}\nrelay-nodes:\n- {ticket: two.ticket, name: two, port: 4001, registry: '@r.url'}\n" +
			"authority-node: {name: three, ticket: three.ticket, store: '@store.url'}\nidentity: id\n", Run,
			[]string{"5: identity create id", "1: authority create --project-identifier p --store @store.url", "4: authority-node create --name three three.ticket --store @store.url",
				"3: relay-node create two.ticket --name two --port 4001 --registry @r.url"}},
		{"order of run", "kafka-outlet: ko\nkafka-inlet: ki\ntcp-inlet: i\ntcp-outlet: o\npolicy: {allow: p}\nrelay: r\nnode: n\nticket: T\nidentity: id\nvault: v\n", Run,
			[]string{"10: vault create v", "9: identity create id", "8: project enroll T", "7: node create n", "6: relay create r", "5: policy create --allow p",
				"4: tcp-outlet create o", "3: tcp-inlet create i", "2: kafka-inlet create ki", "1: kafka-outlet create ko"}},
		{"order of node create", "kafka_inlets: ki\nkafka_outlets: ko\ninfluxdb-inlets: ii\ninfluxdb_outlet: io\ntcp-inlet: i\ntcp-outlet: o\nrelay: r\npolicy: {allow: p}\nticket: T\n", NodeCreate,
			[]string{"8: policy create --allow p --at dflt", "7: relay create r --to dflt", "6: tcp-outlet create o --at dflt", "5: tcp-inlet create i --at dflt",
				"4: influxdb-outlet create io --at dflt", "3: influxdb-inlet create ii --at dflt", "2: kafka-outlet create ko --at dflt", "1: kafka-inlet create ki --at dflt"}},
		{"explicit target", "relay: {r: {to: x, at: /y}}\ntcp-inlet: {at: z}\n", NodeCreate, []string{"1: relay create r --to x --at /y", "2: tcp-inlet create --at z"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustLoad(t, tt.mode, tt.text, Options{NodeName: "dflt"})
			if got := lines(p); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if len(p.Warnings) != 0 {
				t.Errorf("warnings %q", p.Warnings)
			}
		})
	}
}

func TestNodeArguments(t *testing.T) {
	p := mustLoad(t, NodeCreate, `
services: {secure-channel-listener: {address: api}}
in_memory: true
udp: false
exit-on-eof: true
status_endpoint: 127.0.0.1:1
project: p
identity: i
`, Options{})
	want := []string{"--identity", "i", "--project", "p", "--status-endpoint", "127.0.0.1:1", "--exit-on-eof", "--in-memory",
		"--services", `{"secure-channel-listener":{"address":"api"}}`}
	if !reflect.DeepEqual(p.Node, want) {
		t.Errorf("got  %q\nwant %q", p.Node, want)
	}
	if p = mustLoad(t, NodeCreate, "", Options{NodeName: "d"}); !reflect.DeepEqual(p.Node, []string{"d"}) || p.NodeName != "d" {
		t.Errorf("empty text: %+v", p)
	}
	p = mustLoad(t, NodeCreate, "{name: x, relay: r}", Options{NodeName: "d", NameGiven: true})
	if want := []string{"1: relay create r --to d"}; p.NodeName != "d" || !reflect.DeepEqual(lines(p), want) {
		t.Errorf("name given: %q, %q, want %q", p.NodeName, lines(p), want)
	}
	if p = mustLoad(t, Run, "relay: x", Options{NodeName: "d"}); p.Node != nil || p.NodeName != "" {
		t.Errorf("run: %+v", p)
	}
}

func TestVariables(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"file", "variables: {A: x}\nrelay: $A", "x"},
		{"braces", "variables: {A: x}\nrelay: a-${A}b", "a-xb"},
		{"environment over file", "variables: {E: x}\nrelay: $E", "from-env"},
		{"command line over environment", "variables: {B: x}\nrelay: $B", "from-flag"},
		{"default", "relay: ${NONE:-d}", "d"},
		{"default of an empty one", "relay: ${EMPTY:-d}", "d"},
		{"default not needed", "relay: ${E:-d}", "from-env"},
		{"dollar", "relay: a$$E", "a$E"},
		{"lone dollar", "relay: a$-$5$", "a$-$5$"},
		{"not expanded twice", "variables: {A: '$$E'}\nrelay: $A", "$$E"},
		{"comment", "# set $NONE\n  # or ${}\nrelay: r", "r"},
		{"hash in a value", "relay: x#$E", "x#from-env"},
		{"comment at the end", "relay: r\n# set $NONE", "r"},
		{"blanks at the end", "relay: r\n  \t", "r"},
		{"line ends of old", "variables: {A: x}\rrelay: $A\r", "x"},
		{"line ends of others", "variables: {A: x}\r\nrelay: $A\r\n", "x"},
		{"in flow style", "variables:\n  A: x\n\nrelay: [${A}]\n", "x"},
		{"name ends", "variables: {A_1: x}\nrelay: $A_1-y", "x-y"},
		{"number", "variables:\n  A: 010\nrelay: $A", "010"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustLoad(t, Run, tt.text, Options{
				Variables: map[string]string{"B": "from-flag"},
				Lookup:    env(map[string]string{"E": "from-env", "B": "from-env", "EMPTY": ""}),
			})
			if len(p.Invocations) != 1 || p.Invocations[0].Args[2] != tt.want {
				t.Errorf("got %+v, want %q", p.Invocations, tt.want)
			}
		})
	}
	// A value of several lines moves what follows; lines are still those of the file.
	p := mustLoad(t, Run, "relay: $M\nvaults:\n  v:\n", Options{Variables: map[string]string{"M": "[a,\n  b]"}})
	if want := []string{"3: vault create v", "1: relay create a", "1: relay create b"}; !reflect.DeepEqual(lines(p), want) {
		t.Errorf("got %q, want %q", lines(p), want)
	}
	if p.Variables["M"] != "[a,\n  b]" {
		t.Errorf("variables %q", p.Variables)
	}
}

// A key that means nothing is a mistake, wherever it stands, and all mistakes are told at once.
func TestUnknownKeys(t *testing.T) {
	const text = `version: 2
nodes: n
policys: [{resource: db, allow: x}]
x-templates: {}
relay:
  r: {att: /a}
tcp-outlets:
  db: {to: 1, allw: x}
  - bad
`
	flags := func(command string) []string {
		return map[string][]string{"relay create": {"at", "to"}, "tcp-outlet create": {"to", "allow"}}[command]
	}
	_, err := Load(NodeCreate, []byte(strings.Replace(text, "  - bad\n", "", 1)), Options{Flags: flags})
	var all Errors
	if !errors.As(err, &all) {
		t.Fatalf("%v", err)
	}
	want := []string{
		"2:1 key \"nodes\" belongs to configurations of `run`, not of `node create`",
		`3:1 unknown key "policys"; did you mean "policy"?`,
		`6:7 relay "r": unknown key "att"; did you mean "at"?`,
		`8:15 tcp-outlet "db": unknown key "allw"; did you mean "allow"?`,
	}
	var got []string
	for _, e := range all {
		got = append(got, fmt.Sprintf("%d:%d %s", e.Line, e.Column, e.Msg))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	p := mustLoad(t, Run, "version: 2\nx-a: {}\n", Options{})
	if len(p.Warnings) != 1 || !strings.HasPrefix(p.Warnings[0], "line 1: ") {
		t.Errorf("warnings %q", p.Warnings)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	if _, err := Find(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sallyport.yml"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ockam.yaml", "ockam.yml", "sallyport.yaml"} {
		want := filepath.Join(dir, name)
		if err := os.WriteFile(want, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Find(dir); got != want || err != nil {
			t.Errorf("Find = %q, %v, want %q", got, err, want)
		}
	}
}

// TestVariableNames: letters from A to Z in either case, digits but not first, and the underscore; what is written in a block stays, also
// where a line looks like a comment.
func TestVariableNames(t *testing.T) {
	options := Options{Lookup: env(map[string]string{"Z9_a": "x", "zA": "y", "_": "z", "A": "w"})}
	for text, want := range map[string]string{"n$Z9_a": "nx", "n${zA}": "ny", "n$_": "nz", "n$A-1": "nw-1"} {
		if plan, err := Load(NodeCreate, []byte("name: "+text+"\n"), options); err != nil || plan.NodeName != want {
			t.Errorf("%s: %+v, %v", text, plan, err)
		}
	}
	plan, err := Load(Run, []byte("policies:\n  - resource: r\n    allow: |\n      # $UNKNOWN is kept\n      $A\n"), options)
	if err != nil || !slices.Contains(plan.Invocations[0].Args, "# $UNKNOWN is kept\nw\n") {
		t.Errorf("%+v, %v", plan, err)
	}
}

// TestFoldedValues: a text of several lines, such as a ticket that a mail program has folded, is the value where it is all of it; what is in
// YAML's own writing stays that, and so does what stands elsewhere.
func TestFoldedValues(t *testing.T) {
	const folded = "QUJDREVGR0hJ\nSktMTU5PUFFS\n\"x\": y\n"
	want := strings.TrimSpace(folded)
	for _, text := range []string{"ticket: $T", "ticket:   ${T}  # of the bank\nname: n", "name: n\nticket: ${T:-x}\n", "ticket: ${NONE:-a}", "{\n ticket: $T\n}"} {
		plan, err := Load(NodeCreate, []byte(text), Options{Lookup: env(map[string]string{"T": folded})})
		wanted := want
		if strings.Contains(text, "NONE") {
			wanted = "a"
		}
		if err != nil || plan.Ticket != wanted {
			t.Errorf("%s: %+v, %v", text, plan, err)
		}
	}
	for text, values := range map[string][2]string{ // as the value of a key, of one further in, of an entry
		"policy:\n  allow: $V":                                         {folded, want},
		"tcp-outlet:\n  o:\n    to: 1\n    allow: $V":                  {folded, want},
		"tcp-outlet:\n  o:\n    allow: $V\n    to: 1":                  {"(and\n (= a b)\n (= c d))", "(and\n (= a b)\n (= c d))"},
		"tcp-outlets:\n  - http-header:\n    - \"a: b\"\n    - $V":     {folded, want},
		"tcp-outlets:\n  - allow: $V\n    to: 1":                       {folded, want},
		"tcp-outlet: {o: {to: $V}}":                                    {"5432", "5432"},
		"tcp-outlet:\n  o: {to: $V}":                                   {"a\n b", "a\n b"},
		"tcp-outlet: {o: {http-header: [$V, x], from: 2}}":             {folded, want},
		"tcp-outlet: {o: {allow: $V, from: 2}}":                        {folded, want},
		"tcp-outlet: {o: {http-header: [$V], from: 3}}":                {"a,\n b", "b"},
		"tcp-outlet: {o: {http-header: $V, from: 5}}":                  {"[a\n]", "a"},
		"tcp-outlets:\n  - allow: |\n      x: y\n    http-header: $V":  {folded, want},
		"tcp-outlets:\n  - http-header:\n    - |\n     x: $V\n    - b": {"b\n       c", "x: b\n  c\n"},
		"tcp-outlets:\n  - http-header:\n    - |\n     x\n    - $V":    {folded, want},
		"tcp-outlet: {o: {http-header: $V, from: 4}}":                  {"[a,\n b]", "b"},
		"tcp-outlet:\n  o:\n    to: a$V":                               {"b\n      c", "ab c"},
		"tcp-outlet:\n  o:\n    allow: |\n      a: $V\n":               {"b\n      c", "a: b\nc\n"},
		"tcp-outlet:\n  o:\n    allow: |-\n      a\n\n        - $V\n":  {"b\n      c", "a\n\n  - b\nc"},
		"tcp-outlet:\n  o:\n    http-header: $V\n":                     {"[a,\n b]", "b"},
		"tcp-outlet:\n  o:\n    http-header: $V\n    to: 1 \n":         {"\n     - a\n     - b", "b"},
		"tcp-outlet:\n  o:\n    allow: $V\n    from: 1 ":               {"|-\n     - a\n     - b", "- a\n- b"},
		"tcp-outlet:\n  o:\n    allow: $V\n    from: 2 ":               {"\"a\n     b\"", "a b"},
		"tcp-outlet:\n  o:\n    allow: $V\n    from: 3 ":               {"> QUJD\n> REVG", "> QUJD\n> REVG"},
		"tcp-outlet:\n  o:\n    allow: $V\n    from: 4 ":               {"a\n    to: 1", "a\n    to: 1"},
	} {
		plan, err := Load(Run, []byte(text), Options{Variables: map[string]string{"V": values[0]}})
		if err != nil || !slices.ContainsFunc(plan.Invocations, func(i Invocation) bool { return slices.Contains(i.Args, values[1]) }) {
			t.Errorf("%s of %q: %+v, %v", text, values[0], plan, err)
		}
	}
	plan := mustLoad(t, Run, "tcp-outlet:\n  o:\n    tls: $V\n", Options{Variables: map[string]string{"V": "true"}})
	if !slices.Equal(plan.Invocations[0].Args, []string{"tcp-outlet", "create", "o", "--tls"}) {
		t.Errorf("true is typed: %q", plan.Invocations[0].Args)
	}
	_, err := Load(Run, []byte("variables: {V: x}\nname: $V\nrelay: {r: {to: [{$V: }]}}"), Options{Variables: map[string]string{"V": "sesame\nopen it"}})
	if err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("a value is told: %v", err)
	}
}
