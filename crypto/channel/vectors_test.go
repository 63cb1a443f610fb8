package channel

import (
	"encoding/json"
	"strings"
	"testing"

	"sallyport/crypto/aead"
)

// handshakeVector is one handshake with what is between its messages; ephemeral and static keys are those of the first one in the
// file.
type handshakeVector struct {
	Name       string `json:"name"`
	IS         raw    `json:"initiator_static"`
	IE         raw    `json:"initiator_ephemeral"`
	RS         raw    `json:"responder_static"`
	RE         raw    `json:"responder_ephemeral"`
	P1         raw    `json:"payload1"`
	P2         raw    `json:"payload2"`
	P3         raw    `json:"payload3"`
	M1         raw    `json:"m1"`
	M2         raw    `json:"m2"`
	M3         raw    `json:"m3"`
	Message1   raw    `json:"message1"`
	Message2   raw    `json:"message2"`
	Message3   raw    `json:"message3"`
	H0         raw    `json:"h_after_initialize"`
	H1         raw    `json:"h_after_m1"`
	H2         raw    `json:"h_after_m2"`
	H3         raw    `json:"h_after_m3"`
	CK         raw    `json:"ck_final"`
	K1         raw    `json:"k1"`
	K2         raw    `json:"k2"`
	InitiatorE raw    `json:"initiator_encryption_key"`
	InitiatorD raw    `json:"initiator_decryption_key"`
	ResponderE raw    `json:"responder_encryption_key"`
	ResponderD raw    `json:"responder_decryption_key"`
	H          raw    `json:"h"`
	CKStart    raw    `json:"ck"`
}

type vectors struct {
	Reference     []handshakeVector `json:"noise_reference_tests"`
	Intermediates []handshakeVector `json:"noise_reference_intermediates"`
	ProtocolName  string            `json:"ockam_protocol_name"`
	Handshakes    []handshakeVector `json:"ockam_handshakes"`
	Rekey         []struct {
		From raw `json:"from_key"`
		To   raw `json:"to_key"`
	} `json:"rekey"`
	Plaintexts []struct {
		Name string `json:"name"`
		Hex  raw    `json:"hex"`
	} `json:"plaintexts"`
	Data []struct {
		Nonce     uint64 `json:"nonce"`
		Bucket    int    `json:"bucket"`
		Key       raw    `json:"key"`
		Plaintext raw    `json:"plaintext"`
		Kind      string `json:"kind"`
		Wire      raw    `json:"wire_payload"`
	} `json:"data_messages"`
	Window struct {
		Steps []struct {
			Nonce    uint64 `json:"nonce"`
			Accepted bool   `json:"accepted"`
		} `json:"steps"`
	} `json:"nonce_window"`
	Tracker struct {
		Cases []struct {
			Rekeys   uint64      `json:"rekeys"`
			Interval uint64      `json:"interval"`
			Nonce    json.Number `json:"nonce"`
			Max      bool        `json:"max_rekeys_reached"`
			Result   string      `json:"result"`
		} `json:"cases"`
	} `json:"key_tracker"`
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	load(t, "01-secure-channel.json", &v)
	return v
}

// TestHandshakeVectors runs the reference's handshakes, under the standard name, and those under the name of the wire, and looks
// at both sides after each message.
func TestHandshakeVectors(t *testing.T) {
	v := readVectors(t)
	if v.ProtocolName != protocolName || len(v.Intermediates) != 2 || len(v.Handshakes) != 2 || len(v.Reference) != 3 {
		t.Fatalf("unexpected vectors, name %q", v.ProtocolName)
	}
	keys := v.Reference[0]
	for n, i := range v.Intermediates {
		r := v.Reference[n]
		i.P1, i.P2, i.P3 = r.P1, r.P2, r.P3
		wantBytes(t, "message 1 of both lists", i.M1, r.Message1)
		wantBytes(t, "message 2 of both lists", i.M2, r.Message2)
		wantBytes(t, "message 3 of both lists", i.M3, r.Message3)
		t.Run(r.Name, func(t *testing.T) { i.check(t, keys, standardName) })
	}
	for _, h := range v.Handshakes {
		t.Run(h.Name, func(t *testing.T) { h.check(t, keys, protocolName) })
	}
	var s symmetric
	s.init(standardName)
	wantBytes(t, "first h", s.h[:], v.Reference[2].H)
	wantBytes(t, "first ck", s.ck[:], v.Reference[2].CKStart)
}

func (v *handshakeVector) check(t *testing.T, keys handshakeVector, name string) {
	var heardI, heardR []byte
	i := newHandshake(side(t, keys.IS, keys.IE, v.P3, &heardI), name, waitStart)
	r := newHandshake(side(t, keys.RS, keys.RE, v.P2, &heardR), name, wait1)
	wantBytes(t, "h at start", i.s.h[:], v.H0)

	m1, err := i.start(v.P1)
	must(t, err)
	wantBytes(t, "message 1", m1, v.M1)
	wantBytes(t, "h after message 1", i.s.h[:], v.H1)

	m2, _, err := r.Handle(v.M1)
	must(t, err)
	wantBytes(t, "message 2", m2, v.M2)
	wantBytes(t, "h after message 2", r.s.h[:], v.H2)

	m3, done, err := i.Handle(v.M2)
	must(t, err)
	if !done {
		t.Error("initiator not done")
	}
	wantBytes(t, "message 3", m3, v.M3)
	wantBytes(t, "payload 2", heardI, v.P2)
	wantBytes(t, "h after message 3", i.keys.Hash[:], v.H3)

	if _, done, err = r.Handle(v.M3); err != nil || !done {
		t.Fatalf("responder: done %v, %v", done, err)
	}
	wantBytes(t, "payload 3", heardR, v.P3)
	ik, rk := i.Keys(), r.Keys()
	wantMatch(t, ik, rk)
	wantBytes(t, "initiator sends", ik.Send[:], v.InitiatorE)
	wantBytes(t, "initiator receives", ik.Receive[:], v.InitiatorD)
	wantBytes(t, "responder sends", rk.Send[:], v.ResponderE)
	wantBytes(t, "responder receives", rk.Receive[:], v.ResponderD)

	s := symmetric{ck: v.CK.key()}
	var k1, k2 [32]byte
	s.split(&k1, &k2)
	wantBytes(t, "k1", k1[:], v.K1)
	wantBytes(t, "k2", k2[:], v.K2)
}

func TestRekeyVectors(t *testing.T) {
	v := readVectors(t)
	if len(v.Rekey) == 0 {
		t.Fatal("no vectors")
	}
	for _, c := range v.Rekey {
		// Two keys are equal if they seal equally.
		var from, to, want aead.Key
		key := c.From.key()
		from.Init(&key)
		key = c.To.key()
		want.Init(&key)
		var x scratch
		x.rekey(&to, &from)
		if x.block != [48]byte{} {
			t.Error("the key is still in the scratch")
		}
		var got, expected [20]byte
		to.Seal(got[:], &x.nonce, []byte("same"), nil)
		want.Seal(expected[:], &x.nonce, []byte("same"), nil)
		wantBytes(t, "sealed with the next key", got[:], expected[:])
	}
}

// TestDataVectors seals each data message at its counter, and opens it in a channel that is there.
func TestDataVectors(t *testing.T) {
	v := readVectors(t)
	first := v.Data[0].Key.key()
	kinds := map[string]Kind{"payload": KindPayload, "close": KindClose}
	for _, c := range v.Data {
		var s Sealer
		var o Opener
		s.Init(&first)
		o.Init(&first)
		for s.Counter() < c.Nonce {
			var b [Overhead]byte
			must(t, s.Seal(b[:], nil))
			_, err := o.Open(b[:])
			must(t, err)
		}
		got := make([]byte, len(c.Plaintext)+Overhead)
		must(t, s.Seal(got, c.Plaintext))
		wantBytes(t, "sealed", got, c.Wire)
		plain, err := o.Open(append([]byte(nil), c.Wire...))
		must(t, err)
		wantBytes(t, "opened", plain, c.Plaintext)
		if kind, _, err := ParsePlaintext(plain); err != nil || kind != kinds[c.Kind] {
			t.Errorf("%x: kind %d, %v, want %s", plain, kind, err, c.Kind)
		}
		if o.Last() != c.Nonce {
			t.Errorf("last counter %d, want %d", o.Last(), c.Nonce)
		}
		// The bucket's own key, without the schedule before it.
		own := c.Key.key()
		o.InitKeyExchangeOnly(&own)
		plain, err = o.Open(append([]byte(nil), c.Wire...))
		must(t, err)
		wantBytes(t, "opened with its key", plain, c.Plaintext)
	}
}

func TestWindowVectors(t *testing.T) {
	v := readVectors(t)
	if len(v.Window.Steps) != 77 {
		t.Fatalf("%d steps", len(v.Window.Steps))
	}
	var w tracker
	for i, step := range v.Window.Steps {
		highest, bitmap, ok := w.slide(step.Nonce)
		if ok != step.Accepted {
			t.Fatalf("step %d, counter %d: accepted %v, want %v", i, step.Nonce, ok, step.Accepted)
		}
		if ok {
			w.highest, w.bitmap = highest, bitmap
		}
	}
}

func TestKeyTrackerVectors(t *testing.T) {
	v := readVectors(t)
	results := map[string]which{"current": currentKey, "derive next": nextKey, "previous": previousKey, "error": noKey}
	if len(v.Tracker.Cases) != 17 {
		t.Fatalf("%d cases", len(v.Tracker.Cases))
	}
	for _, c := range v.Tracker.Cases {
		var n uint64
		must(t, json.Unmarshal([]byte(c.Nonce), &n))
		w := tracker{rekeys: c.Rekeys, every: c.Interval}
		if c.Max {
			w.rekeys = lastCounter / c.Interval
		}
		want, known := results[c.Result]
		if got := w.choose(n); !known || got != want {
			t.Errorf("%d rekeys, counter %d: %d, want %s", w.rekeys, n, got, c.Result)
		}
	}
}

// capture is a channel with the reference. Private keys are of the side that was our own.
type capture struct {
	IS   raw `json:"initiator_static_private"`
	IE   raw `json:"initiator_ephemeral_private"`
	RS   raw `json:"responder_static_private"`
	RE   raw `json:"responder_ephemeral_private"`
	RPub raw `json:"responder_static_public"`
	M1   raw `json:"message1"`
	M2   raw `json:"message2"`
	M3   raw `json:"message3"`
	P2   raw `json:"message2_payload"`
	P3   raw `json:"message3_payload"`
	Hash raw `json:"handshake_hash"`
	K1   raw `json:"k1"`
	K2   raw `json:"k2"`
	Data []struct {
		Dir        string `json:"dir"`
		Nonce      uint64 `json:"nonce"`
		Plaintext  raw    `json:"plaintext"`
		Ciphertext raw    `json:"ciphertext"`
	} `json:"data"`
}

type captures struct {
	Handshakes map[string]capture  `json:"handshakes"`
	Window     [][]json.RawMessage `json:"nonce_window"`
}

func readCaptures(t testing.TB) (c captures) {
	t.Helper()
	load(t, "04-captures.json", &c)
	return c
}

// TestCaptures replays recorded channels with the reference: our side's messages come out the same, the reference's are understood.
func TestCaptures(t *testing.T) {
	c := readCaptures(t)
	if len(c.Handshakes) != 9 {
		t.Fatalf("%d handshakes", len(c.Handshakes))
	}
	for name, h := range c.Handshakes {
		t.Run(name, func(t *testing.T) {
			keys, initiator := h.replay(t)
			send, receive := h.K1, h.K2
			if initiator {
				send, receive = h.K2, h.K1
			}
			wantBytes(t, "send key", keys.Send[:], send)
			wantBytes(t, "receive key", keys.Receive[:], receive)
			wantBytes(t, "hash", keys.Hash[:], h.Hash)
			h.data(t)
		})
	}
}

func (h *capture) replay(t *testing.T) (keys Keys, initiator bool) {
	var heard []byte
	if h.RE != nil {
		r := NewResponder(side(t, h.RS, h.RE, h.P2, &heard))
		m2, _, err := r.Handle(h.M1)
		must(t, err)
		wantBytes(t, "message 2", m2, h.M2)
		_, done, err := r.Handle(h.M3)
		if must(t, err); !done {
			t.Fatal("not done")
		}
		wantBytes(t, "payload 3", heard, h.P3)
		return r.Keys(), false
	}
	cfg := side(t, h.IS, h.IE, h.P3, nil)
	cfg.VerifyPeer = func(static [32]byte, payload []byte) error {
		wantBytes(t, "static key", static[:], h.RPub)
		heard = payload
		return nil
	}
	i := NewInitiator(cfg)
	m1, err := i.Start()
	must(t, err)
	wantBytes(t, "message 1", m1, h.M1)
	m3, done, err := i.Handle(h.M2)
	if must(t, err); !done {
		t.Fatal("not done")
	}
	wantBytes(t, "message 3", m3, h.M3)
	wantBytes(t, "payload 2", heard, h.P2)
	return i.Keys(), true
}

// data opens the data messages in their order, and seals the same plaintexts.
func (h *capture) data(t *testing.T) {
	for dir, key := range map[string]raw{"initiator->responder": h.K2, "responder->initiator": h.K1} {
		first := key.key()
		var o Opener
		o.Init(&first)
		for _, d := range h.Data {
			if d.Dir != dir {
				continue
			}
			plain, err := o.Open(append([]byte(nil), d.Ciphertext...))
			if err != nil {
				t.Errorf("%s %d: %v", dir, d.Nonce, err)
				continue
			}
			wantBytes(t, "plaintext", plain, d.Plaintext)
			_, body, err := ParsePlaintext(plain)
			if err != nil {
				t.Errorf("%s %d: %v", dir, d.Nonce, err)
			} else if plain[2] == byte(KindPayload) && body[0] != 0x83 {
				t.Errorf("%s %d: body %x", dir, d.Nonce, body)
			}

			var s Sealer
			for s.Init(&first); s.Counter() < d.Nonce; {
				var b [Overhead]byte
				must(t, s.Seal(b[:], nil))
			}
			sealed := make([]byte, len(d.Plaintext)+Overhead)
			must(t, s.Seal(sealed, d.Plaintext))
			wantBytes(t, "sealed", sealed, d.Ciphertext)
		}
	}
}

// TestObservedWindow sends what was sent to a running reference, in the same order.
func TestObservedWindow(t *testing.T) {
	c := readCaptures(t)
	if len(c.Window) != 12 {
		t.Fatalf("%d counters", len(c.Window))
	}
	p := newPair(t, 100)
	p.open(t, 0, nil)
	p.open(t, 1, nil)
	for _, w := range c.Window {
		var n uint64
		var result string
		must(t, json.Unmarshal(w[0], &n))
		must(t, json.Unmarshal(w[1], &result))
		var want error
		if !strings.HasPrefix(result, "accepted") {
			want = ErrCounter
		}
		p.open(t, n, want)
		p.open(t, n, ErrCounter)
	}
}
