package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/fair"
	"sallyport/routing/rpc"
)

// TestInletAsksWhoIsThere: the policy of an inlet decides about the outlet's node, at once when it changes.
func TestInletAsksWhoIsThere(t *testing.T) {
	bank, client := newMember(t), newMember(t)
	target, heard := listening(t)
	if _, err := bank.CreateOutlet(within(t), resource.Outlet{Name: "db", To: target}); err != nil {
		t.Fatal(err)
	}
	in, err := client.CreateInlet(within(t), resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: bank.route() + "/secure/api/service/db", Allow: only(client)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		c, err := net.Dial("tcp", in.Bind)
		if err != nil {
			return err
		}
		defer c.Close()
		return says(c)
	}
	if ask() == nil || heard.Load() != 0 {
		t.Errorf("a node that the policy does not name has got %d bytes", heard.Load())
	}
	if err := client.SetPolicy(within(t), resource.Policy{Resource: "in", Expression: only(bank)}); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Errorf("the one that it names: %v", err)
	}
}

// TestClosedPortalsAreNotDecidedAbout: what was deleted, or could not be opened, is not told of changes any more.
func TestClosedPortalsAreNotDecidedAbout(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	guards := func() int { return len(m.access.guardsNow()) }
	before := guards()
	to := m.route() + "/secure/api/service/out"
	for what, c := range map[string]struct{ create, end func() error }{
		"outlet": {func() error { return second(m.CreateOutlet(ctx, resource.Outlet{Name: "x", To: "127.0.0.1:1"})) }, func() error { return m.DeleteOutlet(ctx, "x") }},
		"inlet": {func() error {
			return second(m.CreateInlet(ctx, resource.Inlet{Alias: "x", From: "127.0.0.1:0", To: to, NoConnectionWait: true}))
		}, func() error { return m.DeleteInlet(ctx, "x") }},
		"UDP outlet": {func() error {
			return second(m.udpOutlets.Create(ctx, resource.UDPOutlet{Name: "x", To: "127.0.0.1:1"}))
		}, func() error { return m.udpOutlets.Delete(ctx, "x") }},
		"UDP inlet": {func() error {
			return second(m.udpInlets.Create(ctx, resource.UDPInlet{Name: "x", From: "127.0.0.1:0", To: to, NoConnectionWait: true}))
		}, func() error { return m.udpInlets.Delete(ctx, "x") }},
	} {
		if err := c.create(); err != nil || guards() == before {
			t.Errorf("%s: %v, %d guards", what, err, guards()-before)
		}
		if err := c.end(); err != nil || guards() != before {
			t.Errorf("%s: %v, %d guards are left", what, err, guards()-before)
		}
	}
	w, err := m.StartWorker(ctx, "w", "", func(context.Context, *ProgramWorker, Mail) {})
	if err != nil || guards() != before+1 {
		t.Fatal(err)
	}
	if err := w.Close(ctx); err != nil || guards() != before {
		t.Errorf("worker: %v, %d guards are left", err, guards()-before)
	}
	for what, r := range map[string]resource.Inlet{
		"token": {InfluxDB: &resource.InfluxInlet{LeaseManager: "nowhere"}}, "rate": {Rate: "fast"}, "hold": {Hold: "long"}, "header": {HTTPHeaders: []string{"nonsense"}},
		"provider": {TLSProvider: "nowhere"}, "proxy": {AcceptProxyProtocol: []string{"nowhere"}}, "identity": {Identity: "nobody"},
	} {
		r.Alias, r.From, r.To, r.NoConnectionWait = "bad", "127.0.0.1:0", to, true
		if _, err := m.CreateInlet(ctx, r); err == nil || guards() != before {
			t.Errorf("%s: %v, %d guards are left", what, err, guards()-before)
		}
	}
}

// TestWhoConnects: a request names who the node is to be on a channel, and whom it expects there; who is not known is refused.
func TestWhoConnects(t *testing.T) {
	n := plainNode(t, "n", "127.0.0.1:0")
	n.opts.IdentityName = "own"
	for _, name := range []string{"", "own"} {
		if o, err := n.connectOptions(t.Context(), name, ours.String()+", "+theirs.String()); err != nil || o.self != n.opts.Self || len(o.authorized) != 2 || o.authorized[0] != ours || o.authorized[1] != theirs {
			t.Errorf("%q: %+v, %v", name, o, err)
		}
	}
	if _, err := n.connectOptions(t.Context(), "nobody", ""); !errors.Is(err, admin.ErrNotFound) {
		t.Error(err)
	}
	for text, want := range map[string]int{"": 0, "x": -1, ours.String() + ",": -1, ours.String(): 1} {
		list, err := authorizedOf(text)
		if (err != nil) != (want < 0) || err == nil && len(list) != want || err != nil && !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%q: %v, %v", text, list, err)
		}
	}
	if n.identitiesOf(numbered(5)) != n.opts.Identities {
		t.Error("the node's own keys are not used")
	}
	others, _ := newIdentities(t)
	n.others.Store(numbered(5), others)
	if n.identitiesOf(numbered(5)) != others || n.identitiesOf(numbered(6)) != n.opts.Identities {
		t.Error("whose keys")
	}
	o := n.channelOptions(numbered(5), []identity.Identifier{ours})
	if o.Self != numbered(5) || o.Identities != others || o.Credential != nil || o.Accept != nil || o.Trust(ours) != nil || o.Trust(theirs) == nil {
		t.Errorf("%+v", o)
	}
	n.creds = newCredentials(n)
	if n.channelOptions(numbered(5), nil).Credential != nil || n.channelOptions(n.opts.Self, nil).Credential == nil {
		t.Error("who presents the node's credential")
	}
}

// TestProxiesInFront: what is said of proxies in front of the node is about its listener if that is the only one.
func TestProxiesInFront(t *testing.T) {
	ids, self := newIdentities(t)
	for what, change := range map[string]func(*Options){
		"header": func(o *Options) { o.AcceptProxyProtocol = []string{"nonsense"} }, "field": func(o *Options) { o.TrustedProxies = []string{"nonsense"} },
	} {
		for _, others := range [][]resource.TCPListener{nil, {{Address: "127.0.0.1:0"}}} {
			o := Options{Name: "n", Self: self, Identities: ids, Store: forgetful{}, Listen: "127.0.0.1:0", Listeners: others, Shards: 1, Log: testLog}
			change(&o)
			n, err := Start(t.Context(), o)
			if (err != nil) != (others == nil) {
				t.Errorf("%s, %d others: %v", what, len(others), err)
			}
			if err == nil {
				n.Stop()
			}
		}
	}
}

// TestOwnerAcceptsAnother: the owner accepts another node at the end of an inlet, of one for UDP by its name apart, and deletes channel listeners.
func TestOwnerAcceptsAnother(t *testing.T) {
	m := newMember(t)
	c, _ := administered(t, m.Node)
	for _, name := range []string{"x", udpPins + "x"} {
		pinAt(m.Node, name).keep(ours)
	}
	for _, path := range []string{admin.PathUDPInlets, admin.PathInlets} {
		for again := range 2 {
			var got admin.Accepted
			err := c.Do(within(t), http.MethodPost, path+"/x/accept", struct{}{}, &got)
			if again == 0 && (err != nil || got.Before != ours.String()) || again == 1 && statusOf(err) != http.StatusNotFound {
				t.Errorf("%s, %d: %+v, %v", path, again, got, err)
			}
		}
	}
	if _, err := m.CreateListener(within(t), resource.Listener{Address: "l"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(within(t), admin.PathListeners, "l"); err != nil || m.router.HasNamed("l") {
		t.Errorf("%v, it listens", err)
	}
}

// TestProgramThatIsTheSame: a program that is to take over is the one that was asked, to the file, and can be executed.
func TestProgramThatIsTheSame(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "program"), filepath.Join(dir, "other")
	at := time.Unix(1_700_000_000, 0)
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o700), os.Chmod(path, 0o700), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	for what, c := range map[string]struct {
		change func() error
		ok     bool
	}{
		"nothing": {func() error { return nil }, true}, "another file": {func() error { return os.Rename(other, path) }, false},
		"longer": {func() error { return errors.Join(os.WriteFile(path, []byte("12345"), 0o700), os.Chtimes(path, at, at)) }, false},
		"newer":  {func() error { return os.Chtimes(path, at, at.Add(time.Nanosecond)) }, false}, "gone": {func() error { return os.Remove(path) }, false},
	} {
		write(path, "1234")
		write(other, "1234")
		s := successor{program: path}
		var err error
		if s.file, err = os.Stat(path); err == nil {
			err = c.change()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.same(); (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNodeThatEndsIsNotUpgraded: no program takes over from a node that was told to end, and nothing waits for what cannot be carried.
func TestNodeThatEndsIsNotUpgraded(t *testing.T) {
	m := newMember(t)
	m.opts.Upgrade.Command = func(program string, _ int) []string { t.Error("executed"); return []string{program} }
	m.Ending()
	m.Ending()
	if _, begin, err := m.Upgrade(within(t), admin.UpgradeRequest{Program: answering(t, `{"version":"2","format":1}`)}); !errors.Is(err, errEnding) || begin != nil {
		t.Error(err)
	}
	if err := m.replace(successor{}, 0); !errors.Is(err, errEnding) {
		t.Error(err)
	}
}

// TestWordsOfTheAuthority: all who listen are told of news, once; that there is nothing new is told to those alone that want to hear it, when it is time.
func TestWordsOfTheAuthority(t *testing.T) {
	p := newProject(t, 0)
	r := newNewsroom(p.Node, p.auth)
	words := make(chan authority.News, 100)
	ear := routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) {
		resp, err := rpc.DecodeResponse(append([]byte(nil), m.Payload()...))
		if err == nil {
			var news authority.News
			if news, err = authority.DecodeNews(resp.Body); err == nil {
				words <- news
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err := p.router.StartNamed(t.Context(), "ear", func(*routing.Shard) routing.Worker { return ear }); err != nil {
		t.Fatal(err)
	}
	for key, beats := range map[string]bool{"beats": true, "silent": false} {
		sub := &subscriber{back: routing.LocalRoute("ear"), query: authority.Query{Beats: beats}, re: rpc.NewRequest(rpc.Get, "/", nil), until: time.Now().Add(time.Hour)}
		sub.place, _, _ = r.places.Take(fair.Source{key}, key)
		r.subscribers[key] = sub
	}
	expect := func(what string, beat bool, told, statements int, wants ...uint64) {
		t.Helper()
		if got := r.speak(beat); got != told {
			t.Errorf("%s: told %d", what, got)
		}
		var sum, want uint64
		for _, beat := range wants {
			news := <-words
			if sum, want = sum+news.Beat, want+beat; len(news.Statements) != statements {
				t.Errorf("%s: %d statements", what, len(news.Statements))
			}
		}
		if sum != want || len(words) != 0 {
			t.Errorf("%s: beats of %d, %d more words", what, sum, len(words))
		}
	}
	beat := uint64(newsBeat.Milliseconds())
	expect("the first time", false, 2, 0, 0, beat)
	expect("nothing new", false, 0, 0)
	expect("nothing new, and it is time", true, 0, 0, beat)
	if err := p.client().AddMember(within(t), numbered(100), nil); err != nil {
		t.Fatal(err)
	}
	expect("a new member", false, 0, 0)
	if err := p.client().DeleteMember(within(t), numbered(100)); err != nil {
		t.Fatal(err)
	}
	expect("one was revoked", true, 2, 1, 0, beat)
	expect("it was told", true, 0, 0, beat)
}
