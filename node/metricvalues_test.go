package node

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/internal/exposition"
	"sallyport/internal/histogram"
	"sallyport/node/resource"
)

// values is a sink that keeps values by name and labels, as they come.
type values map[string]float64

func (v values) Value(m *exposition.Metric, _ exposition.Kind, value float64, labels ...string) {
	labels = slices.Clone(labels)
	slices.Sort(labels)
	v[strings.Join(append([]string{strings.TrimPrefix(m.Name, "sallyport_")}, labels...), " ")] = value
}

func (v values) Histogram(m *exposition.Metric, _ *histogram.Histogram, labels ...string) {
	v.Value(m, exposition.Counter, 0, labels...)
}

// metricsOf returns the values of a node's metrics by name and labels.
func metricsOf(t *testing.T, n *Node) map[string]float64 {
	t.Helper()
	all := values{}
	collector{n}.collect(all)
	return all
}

// TestEveryCountIsShown: what is counted is shown under its own name, and nothing else is.
func TestEveryCountIsShown(t *testing.T) {
	p := newProject(t, 2*time.Hour)
	m := p.join(authority.Attributes{"a": "b"}, "p")
	if _, err := m.creds.get(within(t)); err != nil {
		t.Fatal(err)
	}
	settles(t, "it hears its authority", func() bool { return m.AuthorityState().State == AuthorityUp })
	if s := m.AuthorityState(); s.Grace != 2*time.Hour { // the life of its credentials
		t.Errorf("without --authority-grace it may be silent for %v", s.Grace)
	}
	c, u, ch, ctl, drops := &m.tcp.Stats, &m.udp.Stats, &m.channels.Stats, &m.control.Stats, &m.router.Shards()[1].Drops
	counts := map[string]*atomic.Uint64{
		"transport_messages_total in": &c.MessagesIn, "transport_messages_total out": &c.MessagesOut, "transport_bytes_total in": &c.BytesIn, "transport_bytes_total out": &c.BytesOut,
		"transport_stalls_total": &c.Stalled, "transport_tls_failed_total": &c.TLSFailed, "transport_proxy_headers_failed_total": &c.PrefaceFailed,
		"udp_messages_total in": &u.MessagesIn, "udp_messages_total out": &u.MessagesOut, "udp_datagrams_total in": &u.In, "udp_datagrams_total out": &u.Out,
		"udp_dropped_total malformed": &u.Malformed, "udp_dropped_total foreign": &u.Foreign, "udp_dropped_total duplicate": &u.Duplicates, "udp_dropped_total late": &u.Late,
		"udp_dropped_total incomplete": &u.Incomplete, "udp_dropped_total no_room": &u.NoRoom, "udp_dropped_total truncated": &u.Truncated, "udp_dropped_total overflow": &u.Overflow,
		"udp_dropped_total refused": &u.Failed, "udp_dropped_total unroutable": &u.Unroutable, "udp_dropped_total unheard": &u.Unheard, "udp_dropped_total unproven": &u.Unproven,
		"udp_link_datagrams_lost_total": &u.LooseLost, "udp_link_datagrams_dropped_total": &u.LooseDropped,
		"udp_link_resent_total": &u.Resent, "udp_punctures_total opened": &u.Opened, "udp_punctures_total lost": &u.Lost,
		"messages_dropped_total no_worker": &drops.NoWorker, "messages_dropped_total not_local": &drops.NotLocal, "messages_dropped_total flow_control": &drops.Flow,
		"messages_dropped_total loop": &drops.Loop, "messages_dropped_total malformed": &drops.Malformed, "messages_dropped_total overflow": &drops.Overflow, "messages_dropped_total not_member": &drops.NotMember,
		"secure_channels_opened_total": &ch.Opened, "secure_channel_handshakes_failed_total failed": &ch.HandshakeFailed, "secure_channel_handshakes_failed_total busy": &ch.Refused,
		"secure_channels_ended_total silent": &ch.Silent, "secure_channel_messages_refused_total": &ch.OpenFailed, "secure_channel_gaps_total": &ch.Gaps,
		"keys_failed_total": &m.counters.keysFailed, "credentials_total peer_refused": &m.counters.credentialsRefused, "credentials_total fetched": &m.counters.credentialsFetched,
		"credentials_total fetch_failed": &m.counters.credentialsFailed, "revocations_total revoked": &m.counters.revoked, "revocations_total channel_refused": &m.counters.revokedRefused,
		"revocations_total authority_late": &m.counters.lateRefused,
		"control_requests_total answered":  &ctl.Answered, "control_requests_total denied": &ctl.Denied, "control_requests_total busy": &ctl.Busy, "control_requests_total malformed": &ctl.Malformed,
		"control_requests_total unknown": &ctl.Unknown,
	}
	// Much more than the node counts meanwhile by itself.
	step, want := 1e6, map[string]float64{}
	for name, at := range counts {
		step += 1e6
		at.Add(uint64(step))
		want[name] = step
	}
	ch.Evicted.Add(3e9)
	ch.TooMany.Add(4e9)
	c.Malformed.Add(3e9)
	c.TooLarge.Add(4e9)
	want["secure_channels_ended_total limit"], want["transport_malformed_total"] = 7e9, 7e9
	got := metricsOf(t, m.Node)
	for name, value := range want {
		if v, ok := got[name]; !ok || v < value || v >= value+5e5 {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, value)
		}
	}
	for name, value := range map[string]float64{
		"authority_reachable up": 1, "authority_late": 0, "members_revoked": 0, "relay_names": 0, "backlog_bytes limit": float64(m.router.Backlogs.Limit()),
	} {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, value)
		}
	}
	if got["keys_valid_until_seconds"] < float64(time.Now().Unix()) || got["transport_connections tcp"] < 1 || got["secure_channels"] < 1 || got["authority_silence_seconds"] < 0 {
		t.Errorf("keys until %v, %v connections, %v channels", got["keys_valid_until_seconds"], got["transport_connections tcp"], got["secure_channels"])
	}

	// What the node was asked to have, by its state.
	ctx := within(t)
	if _, err := m.CreateOutlet(ctx, resource.Outlet{Name: "db", To: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: "/ip4/127.0.0.1/tcp/1/secure/api/service/db", ConnectionWaitMS: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateRelay(ctx, resource.Relay{Name: "down", At: "/ip4/127.0.0.1/tcp/1/secure/api", NoConnectionWait: true}); err != nil {
		t.Fatal(err)
	}
	m.until(resource.KindInlet, "in", resource.Down)
	m.until(resource.KindRelay, "down", resource.Down)
	got = metricsOf(t, m.Node)
	for name, value := range map[string]float64{"portals down inlet": 1, "portals inlet up": 0, "portals down relay": 1, "portals outlet up": 1, "resources down tcp-inlet": 1, "resources tcp-outlet up": 1} {
		if got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	// A node without an authority says nothing of one; the authority tells what it did.
	plain := newMember(t)
	for name := range metricsOf(t, plain.Node) {
		if strings.HasPrefix(name, "authority_") || strings.HasPrefix(name, "members_revoked") {
			t.Errorf("%s of a node without an authority", name)
		}
	}
	if got := metricsOf(t, p.Node); got["authority_events_total credential_issued"] < 1 && got["authority_events_total  credential_issued"] < 1 {
		t.Errorf("%v", got)
	}
}

// TestPingsAreTold apart, and from what is no ping.
func TestPingsAreTold(t *testing.T) {
	one, first := newPing()
	two, second := newPing()
	if one == two || one < 1<<32 || two < 1<<32 || pingNumber(first) != one || pingNumber(second) != two {
		t.Errorf("%x %x, %x %x", one, first, two, second)
	}
	for _, b := range [][]byte{nil, first[:8], append([]byte{0x1a}, first[1:]...), append(first[:9:9], 0)} {
		if n := pingNumber(b); n != 0 {
			t.Errorf("%x is ping %d", b, n)
		}
	}
}

// TestSilenceIsKept: when the authority was last heard of is written down often enough for a restart not to begin the grace anew, and not each time.
func TestSilenceIsKept(t *testing.T) {
	p := newProject(t, time.Hour)
	m := p.join(authority.Attributes{}, "p")
	settles(t, "it hears its authority", func() bool { return m.AuthorityState().State == AuthorityUp })
	r := m.revoked
	for _, c := range []struct {
		grace, ago time.Duration
		written    bool
	}{{0, time.Hour, false}, {time.Hour, time.Minute, false}, {time.Hour, 16 * time.Minute, true}, {time.Hour, 14 * time.Minute, false}} {
		m.opts.Trust.Grace = c.grace
		r.mu.Lock()
		before := time.Now().Add(-c.ago)
		r.kept = before
		news := authority.News{List: r.list, From: r.since, Head: r.since}
		r.mu.Unlock()
		if err := r.take(within(t), news, false); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		if written := !r.kept.Equal(before); written != c.written {
			t.Errorf("grace %v, written %v ago: written %v", c.grace, c.ago, written)
		}
		r.mu.Unlock()
	}
	m.opts.Trust.Grace = 0
}
