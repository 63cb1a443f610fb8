package routing

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// unframe checks the length prefix of a frame and returns its body.
func unframe(t testing.TB, frame []byte) []byte {
	t.Helper()
	if len(frame) < 4 || int(binary.BigEndian.Uint32(frame)) != len(frame)-4 {
		t.Fatalf("%x is no frame", frame)
	}
	return frame[4:]
}

// captured is one frame of a capture.
type captured struct {
	where          string
	body           []byte
	onward, ret    []string
	payload, trace string
	payloadLen     int
}

// captures returns every frame of the recorded conversations.
func captures(t testing.TB) []captured {
	t.Helper()
	var root map[string]any
	readVectors(t, "04-captures.json", &root)
	var list []captured
	texts := func(v any) (out []string) {
		for _, s := range v.([]any) {
			out = append(out, s.(string))
		}
		return out
	}
	var walk func(where string, v any)
	walk = func(where string, v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(where, item)
			}
		case map[string]any:
			if v["kind"] == "frame" {
				c := captured{where: where, body: unframe(t, unhex(t, v["hex"].(string))), onward: texts(v["onward"]), ret: texts(v["return"]), payloadLen: -1}
				if p, ok := v["payload"].(string); ok {
					c.payload, c.payloadLen = p, len(p)/2
				} else {
					c.payloadLen = int(v["payload_len"].(float64))
				}
				c.trace, _ = v["trace"].(string)
				list = append(list, c)
				return
			}
			for k, item := range v {
				walk(where+"/"+k, item)
			}
		}
	}
	walk("", root)
	slices.SortFunc(list, func(a, b captured) int { return strings.Compare(a.where, b.where) })
	return list
}

func routeText(r Route) []string {
	list := []string{}
	for _, a := range r.Addresses() {
		list = append(list, a.String())
	}
	return list
}

func TestParseCaptures(t *testing.T) {
	list := captures(t)
	if len(list) < 70 {
		t.Fatalf("only %d frames found in the captures", len(list))
	}
	for _, c := range list {
		p, err := ParseMessage(c.body)
		if err != nil {
			t.Errorf("%s: %x: %v", c.where, c.body, err)
			continue
		}
		if got := routeText(p.Onward); !slices.Equal(got, c.onward) {
			t.Errorf("%s: onward %q, want %q", c.where, got, c.onward)
		}
		if got := routeText(p.Return); !slices.Equal(got, c.ret) {
			t.Errorf("%s: return %q, want %q", c.where, got, c.ret)
		}
		payload := c.body[p.Start:p.End]
		if len(payload) != c.payloadLen || (c.payload != "" && hex.EncodeToString(payload) != c.payload) {
			t.Errorf("%s: payload %x (%d bytes), want %s (%d bytes)", c.where, payload, len(payload), c.payload, c.payloadLen)
		}
		// What the reference wrote is what we write, but for the number of fields and the tracing context.
		ours := AppendMessage(nil, p.Onward, p.Return, payload)
		if theirs := c.body; ours[0] != 0x83 || !bytes.Equal(ours[1:], theirs[1:p.End]) {
			t.Errorf("%s: written back as %x, was %x", c.where, ours, theirs)
		}
	}
}

func TestVectors(t *testing.T) {
	var v struct {
		TCP []struct{ Name, Hex string }
		AR  []struct{ Text, CBOR, Bare string } `json:"address_route"`
	}
	readVectors(t, "01-transport-routing-api.json", &v)
	hello := []byte("\x05hello")
	for _, c := range v.TCP {
		b := unhex(t, c.Hex)
		switch {
		case c.Hex == "01": // the version byte
		case strings.HasPrefix(c.Name, "no-op"):
			p, err := ParseMessage(unframe(t, b))
			if err != nil || p.Onward.Len() != 0 || p.Return.Len() != 0 || p.Start != p.End {
				t.Errorf("%s: %+v, %v", c.Name, p, err)
			}
		default:
			body := unframe(t, b)
			p, err := ParseMessage(body)
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			if !p.Onward.Equal(LocalRoute("echo")) || !p.Return.Equal(LocalRoute("00112233445566778899aabbccddeeff")) || !bytes.Equal(body[p.Start:p.End], hello) {
				t.Errorf("%s: %s / %s / %x", c.Name, p.Onward, p.Return, body[p.Start:p.End])
			}
			ours := AppendMessage(nil, p.Onward, p.Return, hello)
			if strings.HasPrefix(c.Name, "same without") && !bytes.Equal(ours, body) {
				t.Errorf("%s: encoded as %x", c.Name, ours)
			}
			if len(ours) != HeaderLen(p.Onward, p.Return, len(hello))+len(hello) {
				t.Errorf("%s: HeaderLen is wrong", c.Name)
			}
		}
	}
	if len(v.TCP) == 0 || len(v.AR) == 0 {
		t.Fatal("vectors missing")
	}
	for _, c := range v.AR {
		want := unhex(t, c.CBOR)
		if strings.Contains(c.Text, "=>") {
			r, err := ParseRoute(c.Text)
			if err != nil {
				t.Fatal(err)
			}
			if got := AppendRoute(nil, r); !bytes.Equal(got, want) || r.String() != c.Text {
				t.Errorf("%s: %x %q, want %x", c.Text, got, r, want)
			}
			continue
		}
		a, err := ParseAddress(c.Text)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.append(nil); !bytes.Equal(got, want) || a.String() != c.Text {
			t.Errorf("%s: %x %q, want %x", c.Text, got, a, want)
		}
		back, end, err := parseAddress(want, 0)
		if err != nil || end != len(want) || back != a {
			t.Errorf("%s: decoded as %v, %v", c.Text, back, err)
		}
	}
}

// TestParseTolerance follows docs/protocol/04-captures, tcp_receiver_behaviour: what a receiver of the reference accepts and what
// makes it close the connection.
func TestParseTolerance(t *testing.T) {
	const echo, app = "81820044" + "6563686f", "81820043" + "617070"
	accepted := map[string]string{
		"three fields":                       "83" + echo + app + "420102",
		"tracing context":                    "84" + echo + app + "420102" + "627b7d",
		"tracing context null":               "84" + echo + app + "420102" + "f6",
		"fifth field":                        "85" + echo + app + "420102" + "627b7d" + "8101",
		"trailing bytes":                     "83" + echo + app + "420102" + "ffff",
		"indefinite message":                 "9f" + echo + app + "420102" + "ff",
		"indefinite routes":                  "83" + "9f" + echo[2:] + "ff" + "9f" + app[2:] + "ff" + "420102",
		"indefinite address":                 "83" + "819f0044" + "6563686fff" + app + "420102",
		"address with a third field":         "83" + "81830044" + "6563686f" + "a10161ff" + app + "420102",
		"indefinite address, skipped fields": "83" + "819f0044" + "6563686f" + "5f4101ff" + "d81820" + "ff" + app + "420102",
		"longer heads":                       "9803" + "9801" + "9a00000002" + "1800" + "590004" + "6563686f" + "980182" + "190000" + "5a00000003" + "617070" + "5b0000000000000002" + "0102",
	}
	for name, text := range accepted {
		b := unhex(t, text)
		p, err := ParseMessage(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !p.Onward.Equal(LocalRoute("echo")) || !p.Return.Equal(LocalRoute("app")) || !bytes.Equal(b[p.Start:p.End], []byte{1, 2}) {
			t.Errorf("%s: %s / %s / %x", name, p.Onward, p.Return, b[p.Start:p.End])
		}
	}
	refused := map[string]string{
		"empty":                        "",
		"two fields":                   "82" + echo + app,
		"a map":                        "a3" + echo + app + "420102",
		"payload as integers":          "83" + echo + app + "820102",
		"payload as text":              "83" + echo + app + "626162",
		"payload indefinite":           "83" + echo + app + "5f41014102ff",
		"payload cut":                  "83" + echo + app + "430102",
		"payload of 2^64-1 bytes":      "83" + echo + app + "5bffffffffffffffff01",
		"payload missing":              "83" + echo + app,
		"address as text":              "83" + "81820064" + "6563686f" + app + "420102",
		"address without value":        "83" + "818100" + app + "420102",
		"address type 256":             "83" + "8182190100" + "446563686f" + app + "420102",
		"address type negative":        "83" + "818220" + "446563686f" + app + "420102",
		"address of 1025 bytes":        "83" + "818200590401" + strings.Repeat("61", 1025) + app + "40",
		"route as bytes":               "83" + "40" + app + "420102",
		"route of 65 addresses":        "83" + "9841" + strings.Repeat("82004161", 65) + app + "40",
		"route of 2^64-1 addresses":    "83" + "9bffffffffffffffff" + "82004161" + app + "40",
		"reserved head":                "83" + "9c" + app + "420102",
		"break where an item must be":  "83" + "ff" + app + "420102",
		"unfinished indefinite route":  "9f" + "9f" + "82004161",
		"skipped items nested too far": "83" + "8183004161" + strings.Repeat("81", 20) + "00" + app + "40",
		"indefinite integer":           "83" + "81821f" + "4161" + app + "40",
	}
	for name, text := range refused {
		if p, err := ParseMessage(unhex(t, text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	// The limits themselves are accepted.
	for name, text := range map[string]string{
		"64 addresses":  "83" + "9840" + strings.Repeat("82004161", 64) + app + "40",
		"1024 bytes":    "83" + "818200590400" + strings.Repeat("61", 1024) + app + "40",
		"type 255":      "83" + "818218ff" + "4161" + app + "40",
		"empty value":   "83" + "81820040" + app + "40",
		"empty payload": "83" + "80" + "80" + "40",
	} {
		if _, err := ParseMessage(unhex(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// No prefix of a good message is a good message, and none panics.
	for _, text := range accepted {
		b := unhex(t, text)
		p, _ := ParseMessage(b)
		for i := range p.End {
			if _, err := ParseMessage(b[:i]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%x cut to %d: %v", b, i, err)
			}
		}
	}
}

func genRoute() *rapid.Generator[Route] {
	return rapid.Custom(func(t *rapid.T) Route {
		var list []Address
		for range rapid.IntRange(0, 30).Draw(t, "length") {
			list = append(list, Address{
				Type:  rapid.Uint8().Draw(t, "type"),
				Value: string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")),
			})
		}
		return NewRoute(list...)
	})
}

func TestMessageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		onward, ret := genRoute().Draw(t, "onward"), genRoute().Draw(t, "return")
		payload := rapid.SliceOfN(rapid.Byte(), 0, 70_000).Draw(t, "payload")
		b := AppendMessage(nil, onward, ret, payload)
		p, err := ParseMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Onward.Equal(onward) || !p.Return.Equal(ret) || !bytes.Equal(b[p.Start:p.End], payload) {
			t.Fatal("changed on the way")
		}
	})
}

// TestPushPop holds a message's routes against plain slices of addresses.
func TestPushPop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := new(Message)
		m.Reset()
		first, back := genRoute().Draw(t, "onward"), genRoute().Draw(t, "return")
		m.SetRoutes(first.Clone(), back.Clone())
		onward, ret := first.Addresses(), back.Addresses()
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"pop", "push onward", "push return"}).Draw(t, "step") {
			case "pop":
				m.PopOnward()
				if len(onward) > 0 {
					onward = onward[1:]
				}
			case "push onward":
				r := genRoute().Draw(t, "more")
				m.PushOnward(r)
				onward = append(r.Addresses(), onward...)
			case "push return":
				a := Address{Value: rapid.StringN(0, 40, 40).Draw(t, "value")}
				m.PushReturn(a.Wire())
				ret = append([]Address{a}, ret...)
			}
			if !slices.Equal(m.Onward.Addresses(), onward) || !slices.Equal(m.Return.Addresses(), ret) {
				t.Fatalf("onward %v, want %v; return %v, want %v", m.Onward, onward, m.Return, ret)
			}
		}
	})
}

func TestAllocsParse(t *testing.T) {
	b := AppendMessage(nil, LocalRoute("00112233445566778899aabbccddeeff", "outlet"), LocalRoute("ffeeddccbbaa99887766554433221100"), make([]byte, 1000))
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := ParseMessage(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("ParseMessage allocates %v times", n)
	}
	out := make([]byte, 0, len(b))
	p, _ := ParseMessage(b)
	if n := testing.AllocsPerRun(1000, func() { out = AppendMessage(out[:0], p.Onward, p.Return, b[p.Start:p.End]) }); n != 0 {
		t.Errorf("AppendMessage allocates %v times", n)
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, c := range captures(f) {
		f.Add(c.body)
	}
	f.Add(unhex(f, "9f9f9f004161ff8200416200ffff9fff40ff"))
	f.Add(unhex(f, "8380804000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseMessage(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v is not ErrMalformed", err)
			}
			return
		}
		payload := b[p.Start:p.End]
		again := AppendMessage(nil, p.Onward, p.Return, payload)
		q, err := ParseMessage(again)
		if err != nil {
			t.Fatalf("%x: %v", again, err)
		}
		if !q.Onward.Equal(p.Onward) || !q.Return.Equal(p.Return) || !bytes.Equal(again[q.Start:q.End], payload) {
			t.Fatalf("%x read back as %x", b, again)
		}
		if len(p.Onward.Addresses()) != p.Onward.Len() || p.Onward.Len() > maxRouteLen {
			t.Fatal("route length is wrong")
		}
	})
}

// TestRouteLimit: a router takes no longer routes than it is told to, and counts those that it refused, whichever of its limits they exceed.
func TestRouteLimit(t *testing.T) {
	r := newRouter(t, 1)
	r.MaxRoute = 8
	s := r.shards[0]
	route := func(n int) (out Route) {
		for range n {
			out = out.Concat(LocalRoute("x"))
		}
		return out
	}
	refused := uint64(0)
	for _, c := range []struct {
		onward, ret int
		ok          bool
	}{{8, 8, true}, {0, 0, true}, {9, 1, false}, {1, 9, false}, {23, 1, false}, {24, 1, false}, {1, 64, false}, {65, 1, false}, {10_000, 1, false}} {
		_, err := s.Parse(AppendMessage(nil, route(c.onward), route(c.ret), nil))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d and %d addresses: %v", c.onward, c.ret, err)
		}
		if !c.ok {
			refused++
		}
	}
	if got := s.Drops.LongRoute.Load(); got != refused || s.LongestRoute.Load() != 8 {
		t.Errorf("%d of %d counted, the longest has %d addresses", got, refused, s.LongestRoute.Load())
	}
}
