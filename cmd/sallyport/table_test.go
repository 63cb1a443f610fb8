package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The table of command lines is testdata/commands.txt; its head explains the form.

// command is a line of the table.
type command struct {
	scenario, text string // text as it stands in the table: the name of the line
	key            string // scenario, text and, when a text is repeated, its number
	capture        string // variable to put standard output into
	file           string // file to write instead of running a command
	stdin          string
	env            []string
	words          []string
}

// digest is an outcome without what differs from run to run.
type digest struct {
	Exit   int    `json:"exit"`
	Stdout string `json:"stdout"`
	Stderr bool   `json:"stderr"` // whether there was any
}

func (d digest) String() string {
	return fmt.Sprintf("exit %d, standard error %v, standard output:\n%s", d.Exit, d.Stderr, d.Stdout)
}

// changes are the lines in which two outcomes differ, in the order of each.
func changes(reference, here digest) string {
	a, b := strings.Split(reference.String(), "\n"), strings.Split(here.String(), "\n")
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return "    reference: " + strings.Join(a, "\n               ") + "\n    here:      " + strings.Join(b, "\n               ")
}

// differing names the aspects in which two outcomes differ.
func differing(a, b digest) []string {
	var list []string
	if a.Exit != b.Exit {
		list = append(list, "exit")
	}
	if a.Stdout != b.Stdout {
		list = append(list, "stdout")
	}
	if a.Stderr != b.Stderr {
		list = append(list, "stderr")
	}
	return list
}

// splitWords splits a line as a shell would: blanks separate, quotes of either kind keep together.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quote := false, rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			in, quote = true, r
		case r == ' ':
			if in {
				words = append(words, word.String())
			}
			in = false
			word.Reset()
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("%s: a quote is not closed", line)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

var captureForm = regexp.MustCompile(`^([A-Z][A-Z0-9]*) = (.*)$`)

// readTable reads the table, in the order of the file.
func readTable(t *testing.T) (names []string, scenarios map[string][]command) {
	t.Helper()
	b, err := os.ReadFile("testdata/commands.txt")
	if err != nil {
		t.Fatal(err)
	}
	scenarios = map[string][]command{}
	seen := map[string]int{}
	scenario := ""
	for number, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if name, ok := strings.CutPrefix(line, "scenario "); ok {
			scenario = name
			names = append(names, name)
			continue
		}
		c := command{scenario: scenario, text: line}
		rest := line
		if m := captureForm.FindStringSubmatch(rest); m != nil {
			c.capture, rest = m[1], m[2]
		}
		if text, ok := strings.CutPrefix(rest, "file "); ok {
			c.file, rest, _ = strings.Cut(text, " ")
		}
		pagers := []string{""}
		for {
			word, after, _ := strings.Cut(rest, " ")
			if c.file != "" || !strings.HasSuffix(word, ":") {
				break
			}
			rest = after
			switch modifier := strings.TrimSuffix(word, ":"); {
			case modifier == "quiet":
				c.env = append(c.env, "QUIET=true")
			case modifier == "nopager":
				c.env = append(c.env, "PAGER=/nonexistent/pager")
			case modifier == "both":
				pagers = append(pagers, "PAGER=/nonexistent/pager")
			case strings.HasPrefix(modifier, "stdin="):
				c.stdin = strings.TrimPrefix(modifier, "stdin=")
			case strings.HasPrefix(modifier, "env="):
				c.env = append(c.env, strings.TrimPrefix(modifier, "env="))
			default:
				t.Fatalf("commands.txt:%d: unknown modifier %s", number+1, modifier)
			}
		}
		if c.file != "" {
			c.words = []string{rest}
		} else if c.words, err = splitWords(rest); err != nil {
			t.Fatalf("commands.txt:%d: %v", number+1, err)
		}
		for _, pager := range pagers {
			one := c
			if pager != "" {
				one.text += " (no pager)"
				one.env = append(slices.Clone(c.env), pager)
			}
			one.key = scenario + " | " + one.text
			seen[one.key]++
			if n := seen[one.key]; n > 1 {
				one.key += fmt.Sprintf(" #%d", n)
			}
			scenarios[scenario] = append(scenarios[scenario], one)
		}
	}
	return names, scenarios
}

// play runs a scenario through a program and returns the digest of each of its commands.
func play(t *testing.T, p *program, commands []command) map[string]digest {
	t.Helper()
	values := map[string]string{"dir": p.dir}
	expand := func(text string) string {
		return placeholder.ReplaceAllStringFunc(text, func(found string) string {
			name := found[1 : len(found)-1]
			if _, known := values[name]; !known {
				if !strings.HasPrefix(name, "p") {
					t.Fatalf("{%s} has no value", name)
				}
				values[name] = freePort(t)
			}
			return values[name]
		})
	}
	out := map[string]digest{}
	for _, c := range commands {
		if c.file != "" {
			if err := os.WriteFile(filepath.Join(p.dir, c.file), []byte(expand(c.words[0])), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		args, env := []string{}, []string{}
		for _, w := range c.words {
			args = append(args, expand(w))
		}
		for _, e := range c.env {
			env = append(env, expand(e))
		}
		start := time.Now()
		o := p.runWith(t, expand(c.stdin), env, args...)
		if c.capture != "" {
			values[c.capture] = strings.TrimSpace(o.stdout)
		}
		if os.Getenv("CLI_TRACE") != "" {
			t.Logf("%s\n   exit %d after %v\n   out %q\n   err %q", c.key, o.code, time.Since(start).Round(time.Millisecond), o.stdout, o.stderr)
		}
		out[c.key] = digest{Exit: o.code, Stdout: shape(o.stdout, p.dir), Stderr: strings.TrimSpace(o.stderr) != ""}
	}
	return out
}

var (
	placeholder = regexp.MustCompile(`\{[A-Za-z][A-Za-z0-9]*\}`)
	identifier  = regexp.MustCompile(`I[0-9a-f]{64}`)
	longHex     = regexp.MustCompile(`[0-9a-f]{32,}`)
	date        = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}`)
	number      = regexp.MustCompile(`[0-9]{4,}`)
	// Names that a program makes up are two words, as those of the table never are.
	madeUp = regexp.MustCompile(`^(/(?:service|node)/|0#)?[a-z]+-[a-z]+$`)
)

// added are the keys of a resource's state, which the reference's answers do not have.
var added = []string{"state", "since", "reason", "next_try"}

// kinds are the texts of two words that are no made-up names.
var kinds = map[string]bool{"tcp-outlet": true, "tcp-inlet": true, "kafka-consumer": true, "kafka-producer": true, "influxdb-lease": true}

// shape reduces what was printed: JSON to its keys and types, with the texts that have a meaning; a line to what is not random in
// it; text for a person to the fact that it was printed.
func shape(out, dir string) string {
	text := strings.TrimSpace(out)
	if text == "" {
		return ""
	}
	var v any
	if strings.ContainsAny(text[:1], `{["tfn`) && json.Unmarshal([]byte(text), &v) == nil {
		b, err := json.MarshalIndent(shapeOf(v, dir), "", " ")
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	if strings.ContainsAny(text, "\n✔✗") || strings.HasPrefix(text, "error: ") {
		return "(text)"
	}
	return "(line) " + plain(text, dir)
}

func plain(text, dir string) string {
	if madeUp.MatchString(text) && !kinds[text] {
		return madeUp.ReplaceAllString(text, "${1}NAME")
	}
	text = strings.ReplaceAll(text, dir, "DIR")
	text = identifier.ReplaceAllString(text, "IDENTIFIER")
	text = longHex.ReplaceAllString(text, "HEX")
	text = date.ReplaceAllString(text, "DATE")
	return number.ReplaceAllString(text, "N")
}

// listening leaves out the connections of a list of transports: which are open at a moment is chance.
func listening(transports any) any {
	list, ok := transports.([]any)
	if !ok {
		return transports
	}
	return slices.DeleteFunc(list, func(e any) bool {
		t, ok := e.(map[string]any)
		return ok && t["mode"] != "Listen"
	})
}

func shapeOf(v any, dir string) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		_, stated := v["since"]
		for k, member := range v {
			if stated && slices.Contains(added, k) {
				continue
			}
			if about, ok := member.(map[string]any); ok && k == "authority" && about["grace_seconds"] != nil {
				continue // what a node of ours knows of its authority
			}
			if k == "transports" {
				member = listening(member)
			}
			out[k] = shapeOf(member, dir)
			if text, ok := member.(string); ok {
				switch {
				case (k == "name" || k == "identity_name") && text == "default":
					out[k] = "NAME" // the name that is made up here for the first of a kind
				case k == "path" || k == "worker_addr" || k == "version":
					out[k] = "a text" // any text will do
				}
			}
		}
		return out
	case []any:
		set := map[string]any{}
		for _, e := range v {
			s := shapeOf(e, dir)
			b, err := json.Marshal(s)
			if err != nil {
				return err.Error()
			}
			set[string(b)] = s
		}
		out := []any{}
		for _, k := range slices.Sorted(maps.Keys(set)) {
			out = append(out, set[k])
		}
		return out
	case string:
		return plain(v, dir)
	case float64:
		return "a number"
	case bool:
		return v
	default:
		return nil
	}
}
