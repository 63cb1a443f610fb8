package authority

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"sallyport/routing/rpc"
)

// The bodies and payloads of the vectors, made and read by our own code.
func TestVectors(t *testing.T) {
	var file struct{ Vectors []map[string]string }
	load(t, "02-authority-api.json", &file)
	v := map[string]map[string]string{}
	for _, x := range file.Vectors {
		v[x["name"]] = x
	}
	member := ident(t, "Ie70dc5545d64724880257acb32b8851e7dd1dd57076838991bc343165df71bfe")
	by := ident(t, "If56990ed7e379ab114163c1233b3939325aec6b187d611d5734eb7d01690736b")
	row := Member{ID: member, Attributes: Attributes{RoleAttribute: RoleEnroller}, AddedBy: by, AddedAt: time.Unix(0x6553f100, 0)}
	var code Code
	for i := range code {
		code[i] = byte(i)
	}
	for name, got := range map[string][]byte{
		"create_token_request":         encodeCreateToken(Attributes{"component": "db", RelayAttribute: "db"}, 3600, 5),
		"create_token_request_minimal": encodeCreateToken(nil, 0, 0),
		"one_time_code_body":           encodeCode(code),
		"add_member_request":           encodeAddMember(member, Attributes{"key": "value"}),
		"attributes_entry_body":        appendEntry(nil, row),
		"member_list_body":             encodeMembers([]Member{row}),
		"member_ids_body":              encodeMemberIDs([]Member{{ID: member}, {ID: by}}),
	} {
		if want := v[name]["body_hex"]; want == "" || hex.EncodeToString(got) != want {
			t.Errorf("%s: %x, want %s", name, got, want)
		}
	}
	// Whole requests as the client makes them, with the vector's id.
	var sent []byte
	id := uint32(0)
	c := &Client{Call: func(_ context.Context, _ string, req *rpc.Request) (*rpc.Response, error) {
		req.ID = id
		sent = req.Encode()
		return nil, context.Canceled
	}}
	ctx := t.Context()
	for name, do := range map[string]struct {
		id   uint32
		call func() error
	}{
		"create_token_request": {0x01020304, func() error {
			_, err := c.CreateToken(ctx, Attributes{"component": "db", RelayAttribute: "db"}, 3599*time.Second+1, 5)
			return err
		}},
		"create_token_request_minimal": {1, func() error { _, err := c.CreateToken(ctx, nil, 0, 0); return err }},
		"present_token_request":        {7, func() error { _, err := c.Redeem(ctx, code); return err }},
		"issue_credential_request":     {10, func() error { _, err := c.Credential(ctx); return err }},
		"add_member_request":           {13, func() error { return c.AddMember(ctx, member, Attributes{"key": "value"}) }},
	} {
		id = do.id
		if err := do.call(); err == nil {
			t.Errorf("%s: the failed call gave no error", name)
		}
		if want := v[name]["payload_hex"]; hex.EncodeToString(sent) != want {
			t.Errorf("%s: %x, want %s", name, sent, want)
		}
	}
	// Answers as the client reads them.
	answer := func(s string) *Client {
		return &Client{Call: func(context.Context, string, *rpc.Request) (*rpc.Response, error) {
			return rpc.DecodeResponse(unhex(t, s))
		}}
	}
	if got, err := answer(v["one_time_code_body"]["response_payload_hex"]).CreateToken(ctx, nil, 0, 0); err != nil || got != code {
		t.Errorf("code %x, %v", got[:], err)
	}
	if already, err := answer(v["present_token_request"]["ok_response_payload_hex"]).Redeem(ctx, code); err != nil || already {
		t.Errorf("redeem: %v %v", already, err)
	}
	if already, err := answer(v["present_token_request"]["already_member_response_payload_hex"]).Redeem(ctx, code); err != nil || !already {
		t.Errorf("redeem again: %v %v", already, err)
	}
	if raw, err := answer(v["issue_credential_request"]["ok_response_payload_hex"]).Credential(ctx); err != nil || !bytes.HasPrefix(raw, []byte{0x82, 0x82, 0x58}) {
		t.Errorf("credential %x, %v", raw, err)
	}
	_, err := answer(v["issue_credential_request"]["forbidden_response_payload_hex"]).Credential(ctx)
	refused(t, "credential", err, "unauthorized member")
}

func TestDecodeEntryTolerance(t *testing.T) {
	want := Attributes{"ab": "c"}
	for name, s := range map[string]string{
		"spelled out":      "a301a182186118628118630201045820" + hexOf(1),
		"indefinite":       "a301bf9f18611862ff811863ff0201045820" + hexOf(1),
		"byte strings":     "a301a1426162416302010458 20" + hexOf(1),
		"wide head":        "a301b90001821861186281186302010458 20" + hexOf(1),
		"unknown field":    "a401a1821861186281186302010458 20" + hexOf(1) + "0900",
		"without attester": "a201a18218611862811863 0201",
	} {
		s = string(bytes.ReplaceAll([]byte(s), []byte(" "), nil))
		e, err := decodeEntry(some(2), unhex(t, s))
		if err != nil || fmt.Sprint(e.Attributes) != fmt.Sprint(want) || e.AddedAt.Unix() != 1 || e.ID != some(2) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	for name, s := range map[string]string{
		"empty": "", "no attributes": "a10201", "no time": "a101a0", "attributes not a map": "a201800201", "odd": "a201a20102030201",
		"short attester": "a301a002010441 01", "text keys": "a201a1616161620201", "numbers too big": "a201a18119ffff810102 01",
	} {
		s = string(bytes.ReplaceAll([]byte(s), []byte(" "), nil))
		if e, err := decodeEntry(some(2), unhex(t, s)); err == nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func hexOf(n byte) string { id := some(n); return hex.EncodeToString(id[:]) }

func TestCodeDoesNotPrint(t *testing.T) {
	c, err := ParseCode("ff" + hexOf(0x41)[2:])
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%s", "%x", "%X", "%d", "%q", "%+v", "%#v"} {
		if s := fmt.Sprintf(verb, c); s != "[one-time code]" {
			t.Errorf("%s prints %q", verb, s)
		}
	}
	if again, err := ParseCode(c.Hex()); err != nil || again != c {
		t.Errorf("%v", err)
	}
	for _, s := range []string{"", "00", hexOf(1) + "00", "zz" + hexOf(1)[2:]} {
		if _, err := ParseCode(s); err == nil {
			t.Errorf("ParseCode(%q) succeeds", s)
		}
	}
}

func TestParseTTL(t *testing.T) {
	var file struct {
		Durations []struct {
			In    string
			MS    int64
			Error bool
		} `json:"durations_derived"`
	}
	load(t, "03-cli-parsing.json", &file)
	if len(file.Durations) < 8 {
		t.Fatal("vectors missing")
	}
	for _, c := range file.Durations {
		d, err := ParseTTL(c.In)
		if c.In == "x5s" { // the reference ignores what precedes the number; in a lifetime that is a mistake
			c.Error = true
		}
		if (err != nil) != c.Error || err == nil && d.Milliseconds() != c.MS {
			t.Errorf("ParseTTL(%q) = %v, %v", c.In, d, err)
		}
	}
	for _, in := range []string{"0", "-1", "1w", "1 s", "s", "1.5h", "36501d", "99999999999999999999", "5sm"} {
		if d, err := ParseTTL(in); err == nil {
			t.Errorf("ParseTTL(%q) = %v", in, d)
		}
	}
}

// FuzzServices sends arbitrary requests to every service, as a stranger, a member and an enroller.
func FuzzServices(f *testing.F) {
	var c captures
	load(f, "captures.json", &c)
	for _, x := range append(c.Admin, c.Enrollment...) {
		f.Add(unhex(f, x.Request))
	}
	fx := newFixture(f, nil)
	enroller, plain := some(1), some(2)
	reset := func(t testing.TB) {
		for _, m := range []Member{{ID: enroller, Attributes: Attributes{RoleAttribute: RoleEnroller}}, {ID: plain, Attributes: Attributes{}}} {
			if err := fx.store.PutMember(t.Context(), m, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	reset(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		req, err := rpc.DecodeRequest(payload)
		if err != nil {
			return
		}
		for name, service := range fx.services {
			if service.Serve(t.Context(), nil, req) == nil {
				t.Fatalf("%s: no answer without a channel", name)
			}
			for n := byte(1); n <= 3; n++ {
				who := some(n)
				res := service.Serve(t.Context(), &who, req)
				if res == nil {
					continue
				}
				if res.Re != req.ID || res.Status == rpc.InternalServerError {
					t.Fatalf("%s: %+v", name, res)
				}
				if _, err := rpc.DecodeResponse(res.Encode()); err != nil {
					t.Fatal(err)
				}
				if n == 3 && res.Status == rpc.OK && name != EnrollmentTokenAcceptor {
					t.Fatalf("%s obeys a stranger: %+v", name, req)
				}
			}
		}
		if req.Method != rpc.Get {
			reset(t)
		}
	})
}

// FuzzEntries reads arbitrary answers as a client does.
func FuzzEntries(f *testing.F) {
	var c captures
	load(f, "captures.json", &c)
	for _, x := range c.Admin {
		if x.Response != "" {
			res, err := rpc.DecodeResponse(unhex(f, x.Response))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(res.Body)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if all, err := decodeMembers(body); err == nil {
			rows := make([]Member, 0, len(all))
			for _, e := range all {
				rows = append(rows, Member{ID: e.ID, Attributes: e.Attributes, AddedBy: e.AddedBy, AddedAt: e.AddedAt})
			}
			again, err := decodeMembers(encodeMembers(rows))
			if err != nil || len(again) != len(all) {
				t.Fatalf("%v, read again %v, %v", all, again, err)
			}
		}
		if ids, err := decodeMemberIDs(body); err == nil && len(ids)*34 > len(body) {
			t.Fatalf("%d identifiers in %d bytes", len(ids), len(body))
		}
		_, _ = decodeEntry(some(1), body)
		_, _ = decodeCode(body)
	})
}
