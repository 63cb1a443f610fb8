package project

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

type ticketVectors struct {
	Fields struct {
		Code  string `json:"one_time_code"`
		Route struct {
			ID    string `json:"id"`
			Route string `json:"route"`
		} `json:"project_route"`
		Identifier       string `json:"project_identifier"`
		Name             string `json:"project_name"`
		History          string `json:"project_change_history"`
		AuthorityHistory string `json:"authority_change_history"`
		AuthorityRoute   string `json:"authority_route"`
	} `json:"fields"`
	Plain      string `json:"plain_csv"`
	Hex        string `json:"hex_of_csv"`
	JSON       string `json:"json"`
	LegacyJSON string `json:"legacy_json"`
	LegacyHex  string `json:"legacy_hex"`
	Invalid    []struct {
		Value  string `json:"value"`
		As     string `json:"as_"`
		Expect string `json:"expect"`
	} `json:"accept_invalid"`
	Project json.RawMessage `json:"project_json_sample"`
}

func vectors(t testing.TB) (v ticketVectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/02-enrollment-tickets.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

type identityVector struct {
	Name       string `json:"name"`
	History    string `json:"change_history_hex"`
	Identifier string `json:"identifier"`
}

func identities(t testing.TB) map[string]identityVector {
	t.Helper()
	data, err := os.ReadFile("testdata/02-identities.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Vectors []identityVector }
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	m := map[string]identityVector{}
	for _, i := range v.Vectors {
		m[i.Name] = i
	}
	return m
}

func TestTicketVectors(t *testing.T) {
	v := vectors(t)
	authority := identities(t)["ticket_test_authority"].Identifier
	for name, text := range map[string]string{
		"plain": v.Plain, "hex": v.Hex, "upper-case hex": strings.ToUpper(v.Hex), "json": v.JSON, "hex of json": hex.EncodeToString([]byte(v.JSON)),
		"legacy": v.LegacyJSON, "legacy hex": v.LegacyHex, "white space": " \t\r\n" + v.Plain + "\n", "hex with newline": v.Hex + "\r\n",
		"newline inside hex": hex.EncodeToString([]byte(v.Plain + "\n")), "eighth field": v.Plain + ",ignored,too",
	} {
		t.Run(name, func(t *testing.T) {
			ticket, err := ParseTicket(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := ticket.Code.Reveal(); got != v.Fields.Code {
				t.Errorf("code %s, want %s", got, v.Fields.Code)
			}
			p := ProjectFromTicket(ticket)
			for _, c := range []struct{ what, got, want string }{
				{"id", p.ID, v.Fields.Route.ID}, {"name", p.Name, v.Fields.Name}, {"route", p.AccessRoute, v.Fields.Route.Route},
				{"identity", p.Identity, v.Fields.Identifier}, {"history", p.ChangeHistory, v.Fields.History},
				{"authority route", p.AuthorityAccessRoute, v.Fields.AuthorityRoute}, {"authority history", p.AuthorityChangeHistory, v.Fields.AuthorityHistory},
				{"authority", p.AuthorityIdentifier(), authority}, {"scope", p.CredentialScope(), "project-member-project_id"},
				{"access address", p.AccessAddress(), "project_id.projects.orchestrator.ockam.io:443"},
				{"JSON", string(ticket.JSON()), v.JSON}, {"legacy JSON", string(ticket.LegacyJSON()), v.LegacyJSON}, {"legacy hex", ticket.LegacyHex(), v.LegacyHex},
			} {
				if c.got != c.want {
					t.Errorf("%s: got %q, want %q", c.what, c.got, c.want)
				}
			}
			if !p.Ready() {
				t.Errorf("not ready, missing %v", p.Missing())
			}
			if got, err := ticket.Text(); err != nil || got != v.Plain {
				t.Errorf("Text() = %q, %v", got, err)
			}
			if got, err := ticket.Hex(); err != nil || got != v.Hex {
				t.Errorf("Hex() = %q, %v", got, err)
			}
		})
	}
}

func TestTicketInvalidVectors(t *testing.T) {
	v := vectors(t)
	for _, c := range v.Invalid {
		text, want := c.Value, error(ErrMissing)
		if c.As == "project_route" {
			fields := strings.Split(v.Plain, ",")
			fields[0] = c.Value
			text, want = strings.Join(fields, ","), ErrInvalid
		}
		if _, err := ParseTicket(text); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", c.Expect, err, want)
		}
	}
}

// Each error names the field and what is right, and none shows the code.
func TestTicketErrors(t *testing.T) {
	v := vectors(t)
	other := identities(t)["example_server"]
	plain := func(i int, value string) string {
		f := strings.Split(v.Plain, ",")
		f[i] = value
		return strings.Join(f, ",")
	}
	object := func(change func(m map[string]any)) string {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(v.JSON), &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	forged := strings.Replace(v.Fields.History, "ba33c7729d", "ba33c7729e", 1)
	for _, c := range []struct {
		name, text, want string
		reason           error
	}{
		{"empty", " \n", "ticket: empty", ErrMissing},
		{"huge", strings.Repeat("a", MaxSize+1), "ticket: 262145 bytes, at most 262144 are allowed", ErrTooLarge},
		{"odd hex", v.Hex[:101], "ticket: an odd number of hex digits; is it cut off?", ErrInvalid},
		{"cut hex", v.Hex[:400], "ticket: project_change_history: missing, there are 4 of 7 fields between commas", ErrMissing},
		{"binary hex", "ff00fe", "ticket: not UTF-8 text", ErrInvalid},
		{"file name", "ticket.txt", "ticket: project_identifier: missing, there are 1 of 7 fields between commas; is the ticket cut off, or the name of a file?", ErrMissing},
		{"route", plain(0, "/nonsense/x"), "ticket: project_route: must be a route such as /dnsaddr/example.org/tcp/4000/service/api: ", ErrInvalid},
		{"no id", plain(0, "/dnsaddr/h/tcp/1"), "ticket: project_route: no project id in it, it must have a /service/ part", ErrInvalid},
		{"identifier", plain(1, "I123"), "ticket: project_identifier: must be an identifier, I and 64 hex digits", ErrInvalid},
		{"other identifier", plain(1, other.Identifier), "ticket: project_identifier: must be the identifier of project_change_history, which is " + v.Fields.Identifier, ErrMismatch},
		{"name", plain(2, ""), "ticket: project_name: empty", ErrMissing},
		{"short code", plain(3, v.Fields.Code[:62]), "ticket: one_time_code: 62 characters, it must be 64 hex digits", ErrInvalid},
		{"code not hex", plain(3, v.Fields.Code[:63]+"x"), "ticket: one_time_code: must be 64 hex digits", ErrInvalid},
		{"history not hex", plain(4, "xyz"), "ticket: project_change_history: must be a valid change history in hex", ErrInvalid},
		{"forged history", plain(4, forged), "ticket: project_change_history: must be a valid change history in hex", ErrInvalid},
		{"authority history", plain(5, v.Fields.AuthorityHistory[2:]), "ticket: authority_change_history: must be a valid change history in hex", ErrInvalid},
		{"empty history", plain(5, ""), "ticket: authority_change_history: must be a valid change history in hex", ErrInvalid},
		{"authority route", plain(6, ""), "ticket: authority_route: must be a route such as", ErrInvalid},
		{"bad json", v.JSON[:len(v.JSON)-1], "ticket: must be a JSON object: at byte", ErrInvalid},
		{"json field", object(func(m map[string]any) { delete(m, "project_name") }), "ticket: project_name: missing, it must be text", ErrMissing},
		{"json null", object(func(m map[string]any) { m["authority_route"] = nil }), "ticket: authority_route: missing, it must be text", ErrMissing},
		{"json type", object(func(m map[string]any) { m["one_time_code"] = 7 }), "ticket: one_time_code: must be text", ErrInvalid},
		{"json case", object(func(m map[string]any) { m["One_Time_Code"] = m["one_time_code"]; delete(m, "one_time_code") }), "ticket: one_time_code: missing, it must be text", ErrMissing},
		{"json route", object(func(m map[string]any) { m["project_route"] = "/service/x" }), "ticket: project_route: must be a JSON object", ErrInvalid},
		{"json route id", object(func(m map[string]any) { m["project_route"] = map[string]any{"route": "/service/x"} }), "ticket: project_route.id: missing, it must be text", ErrMissing},
		{"json empty id", object(func(m map[string]any) { m["project_route"] = map[string]any{"id": "", "route": "/service/x"} }), "ticket: project_route.id: empty", ErrMissing},
		{"legacy without code", `{"project":{}}`, "ticket: one_time_code: missing, it must be text", ErrMissing},
		{"legacy project", `{"one_time_code":"` + v.Fields.Code + `","project":{"id":"x"}}`, "ticket: project: name: missing, it must be text", ErrMissing},
		{"legacy not ready", `{"one_time_code":"` + v.Fields.Code + `","project":` + string(withoutField(t, v.Project, "authority_identity")) + `}`, "ticket: authority_identity: the project has no such field", ErrMissing},
		{"legacy without history", `{"one_time_code":"` + v.Fields.Code + `","project":` + string(withoutField(t, v.Project, "project_change_history")) + `}`, "ticket: project_change_history: the project has no such field", ErrMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseTicket(c.text)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %q, want %q", err, c.want)
			}
			if !errors.Is(err, c.reason) {
				t.Errorf("error %q is not %q", err, c.reason)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("error of type %T", err)
			}
			if strings.Contains(err.Error(), v.Fields.Code[:20]) {
				t.Errorf("error shows the code: %q", err)
			}
		})
	}
}

func withoutField(t *testing.T, object []byte, name string) []byte {
	t.Helper()
	m := map[string]any{}
	if err := json.Unmarshal(object, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, name)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func withField(t *testing.T, object []byte, name string, value any) []byte {
	t.Helper()
	m := map[string]any{}
	if err := json.Unmarshal(object, &m); err != nil {
		t.Fatal(err)
	}
	m[name] = value
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A self-hosted project: JSON keeps the true id, the plain form loses it as in the reference.
func TestTicketProjectID(t *testing.T) {
	p, err := ParseProject(vectors(t).Project)
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := NewTicket(p, Code{1})
	if err != nil {
		t.Fatal(err)
	}
	text, err := ticket.Text()
	if err != nil {
		t.Fatal(err)
	}
	for form, want := range map[string]string{text: "api", string(ticket.JSON()): p.ID, ticket.LegacyHex(): p.ID} {
		got, err := ParseTicket(form)
		if err != nil {
			t.Fatal(err)
		}
		if got.project.ID != want {
			t.Errorf("id %q, want %q", got.project.ID, want)
		}
	}
	p.Name = "a,b"
	if ticket, err = NewTicket(p, Code{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := ticket.Text(); err == nil || !strings.Contains(err.Error(), "comma") {
		t.Errorf("Text() with a comma in the name: %v", err)
	}
	if again, err := ParseTicket(string(ticket.JSON())); err != nil || again.project.Name != "a,b" {
		t.Errorf("JSON with a comma in the name: %v", err)
	}
	p.Name, p.AccessRoute = "x", "/dnsaddr/h/tcp/1"
	if ticket, err = NewTicket(p, Code{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := ticket.Hex(); err == nil || !strings.Contains(err.Error(), "no /service/ part") {
		t.Errorf("Hex() without a service in the route: %v", err)
	}
}

func TestCodeIsHidden(t *testing.T) {
	v := vectors(t)
	ticket, err := ParseTicket(v.Plain)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(ticket)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(ticket), fmt.Sprintf("%+v %#v %x %s %d", ticket, *ticket, ticket.Code, ticket.Code, ticket.Code), string(asJSON)} {
		if strings.Contains(s, "0405060708") || strings.Contains(s, "4 5 6 7 8") || strings.Contains(s, "0x4, 0x5") {
			t.Errorf("shows the code: %s", s)
		}
	}
}

func TestProjectSample(t *testing.T) {
	v := vectors(t)
	p, err := ParseProject(v.Project)
	if err != nil {
		t.Fatal(err)
	}
	if p.Identity != identities(t)["display_test"].Identifier || p.AuthorityIdentifier() != identities(t)["projects_bats_authority"].Identifier {
		t.Errorf("identity %s, authority %s", p.Identity, p.AuthorityIdentifier())
	}
	if len(p.UserRoles) != 1 || p.UserRoles[0] != (UserRole{"admin@example.com", 28, "Admin", "Space"}) || p.Running == nil || !*p.Running || !p.Ready() {
		t.Errorf("%+v", p)
	}
	if want := "k8s-hubdev-nginxing-9096afe9cf-7f601c51a0c807d3.elb.us-west-1.amazonaws.com:4018"; p.AuthorityAccessAddress() != want {
		t.Errorf("authority address %q, want %q", p.AuthorityAccessAddress(), want)
	}
	out, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if json.Unmarshal(out, &got) != nil || json.Unmarshal(v.Project, &want) != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("written %s\nread %s", out, v.Project)
	}
}

func TestProjectRules(t *testing.T) {
	sample := vectors(t).Project
	other := identities(t)["example_server"]
	for _, name := range []string{"id", "name", "space_name", "access_route", "users", "space_id", "user_roles"} {
		_, err := ParseProject(withoutField(t, sample, name))
		if !errors.Is(err, ErrMissing) || !strings.HasPrefix(err.Error(), "project: "+name+": missing, it must be ") {
			t.Errorf("without %s: %v", name, err)
		}
	}
	for _, name := range []string{"identity", "project_change_history", "authority_identity", "authority_access_route", "version", "running", "operation_id"} {
		for _, data := range [][]byte{withoutField(t, sample, name), withField(t, sample, name, nil)} {
			if _, err := ParseProject(data); err != nil {
				t.Errorf("without %s: %v", name, err)
			}
		}
	}
	for _, c := range []struct {
		field string
		value any
		want  string
	}{
		{"id", 7, "project: id: must be text"},
		{"id", "", "project: id: empty, it must be text"},
		{"users", "x", "project: users: must be an array of e-mail addresses"},
		{"running", "yes", "project: running: must be true, false or null"},
		{"access_route", "/tcp", "project: access_route: must be a route such as /dnsaddr/example.org/tcp/4000/service/api: "},
		{"authority_access_route", "//", "project: authority_access_route: must be a route such as"},
		{"identity", "P00", "project: identity: must be an identifier, I and 64 hex digits"},
		{"identity", other.Identifier, "project: identity: must be the identifier of project_change_history, which is I923829d0"},
		{"project_change_history", "00", "project: project_change_history: must be a valid change history in hex"},
		{"authority_identity", other.History[:len(other.History)-2], "project: authority_identity: must be a valid change history in hex"},
		{"user_roles", []any{1}, "project: user_roles[0]: must be a JSON object"},
		{"user_roles", []any{map[string]any{"email": "a", "id": 1, "role": "King", "scope": "Space"}}, "project: user_roles[0].role: must be one of Admin, Guest, Service"},
		{"user_roles", []any{map[string]any{"email": "a", "id": -1, "role": "Guest", "scope": "Space"}}, "project: user_roles[0].id: must be a number"},
		{"okta_config", 1, "project: okta_config: must be an object"},
	} {
		_, err := ParseProject(withField(t, sample, c.field, c.value))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s = %v: error %v, want %q", c.field, c.value, err, c.want)
		}
	}
	for name, data := range map[string][]byte{"null": []byte("null"), "array": []byte("[]"), "empty": nil, "rest": append(bytes.Clone(sample), '}'), "not UTF-8": []byte("{\"id\":\"\xff\"}")} {
		if _, err := ParseProject(data); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseProject(make([]byte, MaxSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large: %v", err)
	}
	p, err := ParseProject(withField(t, withoutField(t, withField(t, sample, "unknown", 1), "identity"), "okta_config", map[string]any{"client_id": "c"}))
	if err != nil {
		t.Fatal(err)
	}
	if p.Identity == "" || string(p.OktaConfig) != `{"client_id":"c"}` {
		t.Errorf("identity %q, okta %s", p.Identity, p.OktaConfig)
	}
	p, err = ParseProject(withField(t, withoutField(t, sample, "authority_identity"), "access_route", ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Missing()); p.Ready() || got != "[access_route authority_identity]" {
		t.Errorf("missing %s", got)
	}
}

func FuzzParseTicket(f *testing.F) {
	v := vectors(f)
	for _, s := range []string{v.Plain, v.Hex, v.JSON, v.LegacyJSON, v.LegacyHex, "", "{}", ",,,,,,", `{"project":null}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ticket, err := ParseTicket(s)
		if err != nil {
			return
		}
		// What we write we read, and it is the same.
		for _, form := range []string{string(ticket.JSON()), string(ticket.LegacyJSON()), ticket.LegacyHex()} {
			again, err := ParseTicket(form)
			if err != nil {
				t.Fatalf("%q: %v", form, err)
			}
			if !bytes.Equal(again.JSON(), ticket.JSON()) {
				t.Fatalf("%s became %s", ticket.JSON(), again.JSON())
			}
		}
		if text, err := ticket.Text(); err == nil {
			if again, err := ParseTicket(text); err != nil || again.Code != ticket.Code {
				t.Fatalf("%q: %v", text, err)
			}
		}
	})
}

func FuzzParseProject(f *testing.F) {
	v := vectors(f)
	f.Add([]byte(v.Project))
	f.Add([]byte(`{"id":"a","name":"b","space_name":"","space_id":"","access_route":"","users":[],"user_roles":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseProject(data)
		if err != nil {
			return
		}
		out, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseProject(out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if second, err := json.Marshal(again); err != nil || !bytes.Equal(out, second) {
			t.Fatalf("%s became %s", out, second)
		}
	})
}

// TestLongerWhenWritten: what is read must be readable again once it is written, with bytes escaped, or as hex.
func TestLongerWhenWritten(t *testing.T) {
	v := vectors(t)
	p, err := ParseProject([]byte(v.Project))
	if err != nil {
		t.Fatal(err)
	}
	written := func(name string) []byte {
		q := *p
		q.Name = name
		return marshal(q)
	}
	room := MaxSize - len(written(""))
	if _, err := ParseProject(written(strings.Repeat("n", room))); err != nil {
		t.Errorf("a project of %d bytes: %v", MaxSize, err)
	}
	escaped := bytes.ReplaceAll(written(strings.Repeat("<", room/6+1)), []byte(`\u003c`), []byte("<"))
	if _, err := ParseProject(escaped); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a project of %d bytes, of more than %d once it is written: %v", len(escaped), MaxSize, err)
	}
	q := *p
	q.Name = strings.Repeat("<", room/6+1)
	if err := q.Verify(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a project put together by hand: %v", err)
	}

	made, err := ParseTicket(v.Plain)
	if err != nil {
		t.Fatal(err)
	}
	q = *ProjectFromTicket(made)
	longest, ticket := 0, made // the longest name that a ticket can have
	for step := MaxSize / 4; step > 0; step /= 2 {
		q.Name = strings.Repeat("n", longest+step)
		if one, err := NewTicket(&q, made.Code); err == nil {
			longest, ticket = longest+step, one
		} else if !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
	}
	if longest < MaxSize/4 {
		t.Errorf("the longest name has %d bytes", longest)
	}
	text, err := ticket.Hex()
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{text, ticket.LegacyHex(), string(ticket.JSON())} {
		if _, err := ParseTicket(form); err != nil {
			t.Errorf("a name of %d bytes: %v", longest, err)
		}
	}
	q.Name = strings.Repeat("n", MaxSize/2)
	raw := marshal(legacyTicket{Code: made.Code.Reveal(), Project: &q})
	if _, err := ParseTicket(string(raw)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a ticket of %d bytes, whose hex is too long: %v", len(raw), err)
	}
}

// TestTicketFromAMail: a ticket arrives as mail programs, editors and shells leave it.
func TestTicketFromAMail(t *testing.T) {
	v := vectors(t)
	folded := func(text, with string) string {
		var lines []string
		for ; len(text) > 76; text = text[76:] {
			lines = append(lines, text[:76])
		}
		return strings.Join(append(lines, text), with)
	}
	want, err := ParseTicket(v.Hex)
	if err != nil {
		t.Fatal(err)
	}
	for form, text := range map[string]string{"plain": v.Plain, "hex": v.Hex, "json": v.JSON, "hex of json": hex.EncodeToString([]byte(v.JSON)), "legacy": v.LegacyJSON} {
		for how, changed := range map[string]string{
			"folded":               folded(text, "\n"),
			"folded with CRLF":     folded(text, "\r\n"),
			"folded and indented":  folded(text, "\r\n   "),
			"quoted-printable":     folded(text, "=\r\n"),
			"byte order mark":      "\ufeff" + text,
			"CRLF at the end":      text + "\r\n",
			"spaces around":        "  \t" + text + "  \n\n",
			"old Mac line ends":    folded(text, "\r"),
			"all of it":            "\ufeff \r\n" + folded(text, "\r\n\t") + "\r\n\r\n",
			"spaces of no width":   folded(text, "\u200b\n"),
			"a blank line between": folded(text, "\n\n"),
			"quoted":               "> " + folded(text, "\n> ") + "\n",
			"quoted twice":         ">> " + folded(text, "\r\n>> ") + "\r\n\r\n",
			"quoted, with spaces":  "> > " + folded(text, "\n> > "),
			"quoted and printable": "> " + folded(text, "=\n> "),
			"line separators":      folded(text, "\u2028"),
			"other line ends":      folded(text, "\u0085"),
			"pages":                folded(text, "\f\n\v"),
			"in backticks":         "`" + text + "`",
			"a block of code":      "```\n" + folded(text, "\n") + "\n```\n",
			"in quotation marks":   "\u201c" + text + "\u201d\n",
			"in angle brackets":    "<" + text + ">",
			"a mark of direction":  "\u200e" + text + "\u200f",
		} {
			got, err := ParseTicket(changed)
			if err != nil {
				t.Errorf("%s, %s: %v", form, how, err)
				continue
			}
			if got.Code != want.Code && form != "legacy" {
				t.Errorf("%s, %s: another code", form, how)
			}
		}
	}
	var spaced strings.Builder
	for i, r := range v.Hex {
		if i > 0 && i%8 == 0 {
			spaced.WriteByte(' ')
		}
		spaced.WriteRune(r)
	}
	if _, err := ParseTicket(spaced.String()); err != nil {
		t.Errorf("hex in groups: %v", err)
	}
	for how, with := range map[string]string{"spaces": " ", "spaces that do not break": "\u00a0", "soft hyphens": "\u00ad", "joiners": "\u200d", "word joiners": "\u2060"} {
		for form, text := range map[string]string{"plain": v.Plain, "hex": v.Hex} {
			got, err := ParseTicket(folded(text, with))
			if err != nil || got.Code != want.Code {
				t.Errorf("%s, %s in it: %v", form, how, err)
			}
		}
	}
}

// TestTicketKeepsTheName: what is taken away on a ticket's way is not taken from the name that people have given to the project.
func TestTicketKeepsTheName(t *testing.T) {
	v := vectors(t)
	for _, name := range []string{"North and South", "a\u200db", "a>b", "\"a\" of <b>"} {
		ticket, err := ParseTicket(v.Plain)
		if err != nil {
			t.Fatal(err)
		}
		ticket.project.Name = name
		text, err := ticket.Text()
		if err != nil {
			t.Fatal(err)
		}
		for form, text := range map[string]string{"plain": text, "json": string(ticket.JSON()), "quoted": "> " + text} {
			got, err := ParseTicket(text)
			if err != nil {
				t.Errorf("%s of %q: %v", form, name, err)
			} else if got := ProjectFromTicket(got).Name; got != name {
				t.Errorf("%s: %q became %q", form, name, got)
			}
		}
	}
}

// TestExpects: who is expected is in every form of a ticket, and stays with the project; what is no identifier is an error, and a reader that knows the
// seven fields finds them where they were.
func TestExpects(t *testing.T) {
	v := vectors(t)
	ticket, err := ParseTicket(v.Plain)
	if err != nil {
		t.Fatal(err)
	}
	p := ProjectFromTicket(ticket)
	a, b := "I"+strings.Repeat("a", 64), "I"+strings.Repeat("0", 64)
	p.Expects = []string{a, b, strings.Replace(a, "a", "A", 9)}
	if ticket, err = NewTicket(p, ticket.Code); err != nil {
		t.Fatal(err)
	}
	plain, err := ticket.Text()
	if err != nil || !strings.HasPrefix(plain, v.Plain+",") {
		t.Fatalf("the fields of the reference are not first: %v", err)
	}
	hex, _ := ticket.Hex()
	for form, text := range map[string]string{"plain": plain, "hex": hex, "JSON": string(ticket.JSON()), "legacy JSON": string(ticket.LegacyJSON()), "legacy hex": ticket.LegacyHex()} {
		read, err := ParseTicket(text)
		if err != nil {
			t.Errorf("%s: %v", form, err)
			continue
		}
		if got := ProjectFromTicket(read).Expects; !slices.Equal(got, []string{b, a}) {
			t.Errorf("%s expects %v", form, got)
		}
	}
	for _, bad := range []string{",expects=", ",expects=I12", ",other," + "expects=" + a + "0"} {
		if _, err := ParseTicket(v.Plain + bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := ParseTicket(v.Plain + strings.Repeat(",expects="+a, maxExpected+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
	if got, err := ParseTicket(v.Plain + ",later=x"); err != nil || len(ProjectFromTicket(got).Expects) != 0 {
		t.Errorf("a field that is not known: %v", err)
	}
}

// TestSeveralRoutes: a project and every form of its ticket carry the routes to further nodes and authorities, in fields that the reference does not know, and
// without them are as before, byte for byte.
func TestSeveralRoutes(t *testing.T) {
	v := vectors(t)
	one, err := ParseTicket(v.Plain)
	if err != nil {
		t.Fatal(err)
	}
	p := ProjectFromTicket(one)
	if text, err := one.Text(); err != nil || text != v.Plain || strings.Contains(string(one.JSON()), "access_routes") {
		t.Errorf("one route each: %s, %v", text, err)
	}
	const two, three, other = "/dnsaddr/two/tcp/4001/service/api", "/dnsaddr/three/tcp/4001/service/api", "/dnsaddr/four/tcp/4000/service/api"
	p.AccessRoutes, p.AuthorityAccessRoutes = []string{two, three, two, p.AccessRoute}, []string{other, p.AuthorityAccessRoute}
	several, err := NewTicket(p, one.Code)
	if err != nil {
		t.Fatal(err)
	}
	text, err := several.Text()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, v.Plain+",") {
		t.Errorf("the reference's fields are not first: %s", text)
	}
	hexText, err := several.Hex()
	if err != nil {
		t.Fatal(err)
	}
	for form, text := range map[string]string{"plain": text, "hex": hexText, "JSON": string(several.JSON()), "legacy": several.LegacyHex()} {
		got, err := ParseTicket(text)
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		p := ProjectFromTicket(got)
		if !slices.Equal(p.AccessRoutes, []string{two, three}) || !slices.Equal(p.AuthorityAccessRoutes, []string{other}) {
			t.Errorf("%s: %v, %v", form, p.AccessRoutes, p.AuthorityAccessRoutes)
		}
	}
	for _, bad := range []string{",relay=", ",relay=nonsense", ",authority=x"} {
		_, err := ParseTicket(v.Plain + bad)
		if (err == nil) != (bad == ",relay=") { // an empty one is none
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := ParseTicket(v.Plain + strings.Repeat(",relay="+two, maxRoutes+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
}
