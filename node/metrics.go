package node

import (
	"sync/atomic"

	"sallyport/buildinfo"
	"sallyport/crypto/aead"
	"sallyport/internal/exposition"
	"sallyport/routing/tcp"
)

// counters are events of a node that are not counted elsewhere.
type counters struct {
	credentialsRefused, credentialsFetched, credentialsFailed, keysFailed atomic.Uint64
	revoked, revokedRefused, lateRefused                                  atomic.Uint64
}

// collector turns a node's counters into metrics when they are asked for: the data path only adds to integers.
type collector struct{ n *Node }

func desc(name, help string, labels ...string) *exposition.Metric {
	return &exposition.Metric{Name: "sallyport_" + name, Help: help, Labels: labels}
}

var (
	descBuild       = desc("build_info", "Constant 1, with the program's version, the revision it was built from, Go's version and the AES-GCM kernel.", "version", "revision", "goversion", "aead_kernel")
	descInfo        = desc("node_info", "Constant 1, with the node's name, identity and AES-GCM kernel.", "node", "identifier", "aead_kernel")
	descConns       = desc("transport_connections", "Open connections to and from other nodes over TCP, with what lies in between.", "layer")
	descUnprefaced  = desc("transport_proxy_headers_failed_total", "Connections of a proxy in front that did not begin with a header of the PROXY protocol.")
	descTLSFailed   = desc("transport_tls_failed_total", "Connections of others that ended in their TLS handshake.")
	descMessages    = desc("transport_messages_total", "Routing messages on the TCP transport.", "direction")
	descBytes       = desc("transport_bytes_total", "Bytes of routing messages on the TCP transport.", "direction")
	descMalformed   = desc("transport_malformed_total", "Connections closed because of a malformed or oversized message.")
	descStalled     = desc("transport_stalls_total", "Times that a connection could take no more and its sources were paused.")
	descCutOff      = desc("transport_cut_off_total", "Connections and portals cut off because they took too little of what was sent to them.")
	descFlooded     = desc("transport_dropped_total", "Messages dropped because their source sent a node more than it takes.")
	descBacklog     = desc("backlog_bytes", "Bytes kept for destinations beyond their high water marks, and how many may be.", "kind")
	descUDPMessages = desc("udp_messages_total", "Routing messages on the UDP transport.", "direction")
	descUDPDatagram = desc("udp_datagrams_total", "Datagrams of the UDP transport.", "direction")
	descUDPDropped  = desc("udp_dropped_total", "Datagrams and messages that were dropped.", "reason")
	descLooseLost   = desc("udp_link_datagrams_lost_total", "Packets of datagrams that a link of a puncture lost; they are not sent again.")
	descLooseDrop   = desc("udp_link_datagrams_dropped_total", "Messages of datagrams for which a link of a puncture had no room.")
	descUDPResent   = desc("udp_link_resent_total", "Packets that a link of a puncture sent again.")
	descPunctures   = desc("udp_punctures_total", "UDP punctures opened, and ended because the peer fell silent.", "event")
	descDropped     = desc("messages_dropped_total", "Messages not delivered.", "reason")
	descChannels    = desc("secure_channels", "Open secure channels.")
	descOpened      = desc("secure_channels_opened_total", "Secure channels opened.")
	descHandshakes  = desc("secure_channel_handshakes_failed_total", "Handshakes that failed or were refused.", "reason")
	descTook        = desc("secure_channel_handshake_seconds", "How long handshakes took that led to a channel: as initiator until the channel could be used, as responder until the last message had come.", "role")
	descRekeys      = desc("secure_channel_rekeys_total", "Keys for sending that were replaced, each after 32 messages.")
	descChanEnded   = desc("secure_channels_ended_total", "Secure channels that this node ended, not their users.", "reason")
	descUndecrypted = desc("secure_channel_messages_refused_total", "Messages that failed decryption, were replayed or came too late.")
	descGaps        = desc("secure_channel_gaps_total", "Messages out of order, which show that others were lost.")
	descKeysUntil   = desc("keys_valid_until_seconds", "Unix time until which channels can be opened without the identity's primary key.")
	descKeysFailed  = desc("keys_failed_total", "Times that the primary key was asked to attest a key for channels and did not.")
	descCredentials = desc("credentials_total", "Credentials of peers refused, and own ones fetched or not.", "event")
	descAuthUp      = desc("authority_reachable", "1 if the authority tells this node of revocations.", "state")
	descAuthHeard   = desc("authority_silence_seconds", "Time since the authority last answered, or since the node started.")
	descAuthLate    = desc("authority_late", "1 if the authority has been silent for longer than --authority-grace, or the life of credentials.")
	descRevoked     = desc("members_revoked", "Members that are revoked.")
	descRevocations = desc("revocations_total", "Members revoked, and channels refused to them.", "event")
	descAuthority   = desc("authority_events_total", "Tickets and credentials of the authority.", "event", "reason")
	descStore       = desc("authority_store_up", "1 if the authority's store is there.", "store")
	descControl     = desc("control_requests_total", "Requests of other nodes to the control service.", "result")
	descWaiting     = desc("control_waiting", "Requests to the control service that wait for an event.")
	descWorkers     = desc("relay_names", "Names registered at this node's relay service.")
)

// collect gives every value to a sink.
func (c collector) collect(to exposition.Sink) {
	n := c.n
	gauge := func(m *exposition.Metric, v float64, labels ...string) { to.Value(m, exposition.Gauge, v, labels...) }
	count := func(m *exposition.Metric, v uint64, labels ...string) {
		to.Value(m, exposition.Counter, float64(v), labels...)
	}
	build := buildinfo.Get()
	gauge(descBuild, 1, build.Version, build.Revision, build.Go, build.AEADKernel)
	gauge(descInfo, 1, n.opts.Name, n.opts.Self.String(), aead.Kernel())
	t := &n.tcp.Stats
	open := map[tcp.Layer]int{tcp.Plain: 0, tcp.TLS: 0, tcp.WebSocket: 0, tcp.SecureWS: 0}
	for _, c := range n.tcp.Connections() {
		open[c.Layer]++
	}
	for layer, count := range open {
		gauge(descConns, float64(count), string(layer))
	}
	count(descUnprefaced, t.PrefaceFailed.Load())
	count(descTLSFailed, t.TLSFailed.Load())
	count(descMessages, t.MessagesIn.Load(), "in")
	count(descMessages, t.MessagesOut.Load(), "out")
	count(descBytes, t.BytesIn.Load(), "in")
	count(descBytes, t.BytesOut.Load(), "out")
	count(descMalformed, t.Malformed.Load()+t.TooLarge.Load())
	count(descStalled, t.Stalled.Load())
	count(descCutOff, uint64(n.router.Backlogs.Cut()))
	count(descFlooded, uint64(n.router.Backlogs.Dropped()))
	gauge(descBacklog, float64(n.router.Backlogs.Used()), "used")
	gauge(descBacklog, float64(n.router.Backlogs.Limit()), "limit")
	u := &n.udp.Stats
	count(descUDPMessages, u.MessagesIn.Load(), "in")
	count(descUDPMessages, u.MessagesOut.Load(), "out")
	count(descUDPDatagram, u.In.Load(), "in")
	count(descUDPDatagram, u.Out.Load(), "out")
	for _, d := range []struct {
		reason string
		n      uint64
	}{
		{"malformed", u.Malformed.Load()}, {"foreign", u.Foreign.Load()}, {"duplicate", u.Duplicates.Load()}, {"late", u.Late.Load()},
		{"incomplete", u.Incomplete.Load()}, {"no_room", u.NoRoom.Load()}, {"truncated", u.Truncated.Load()}, {"overflow", u.Overflow.Load()},
		{"refused", u.Failed.Load()}, {"unroutable", u.Unroutable.Load()}, {"unheard", u.Unheard.Load()}, {"unproven", u.Unproven.Load()},
	} {
		count(descUDPDropped, d.n, d.reason)
	}
	count(descUDPResent, u.Resent.Load())
	count(descLooseLost, u.LooseLost.Load())
	count(descLooseDrop, u.LooseDropped.Load())
	count(descPunctures, u.Opened.Load(), "opened")
	count(descPunctures, u.Lost.Load(), "lost")
	drops := map[string]uint64{}
	for _, s := range n.router.Shards() {
		d := &s.Drops
		drops["no_worker"] += d.NoWorker.Load()
		drops["not_local"] += d.NotLocal.Load()
		drops["flow_control"] += d.Flow.Load()
		drops["loop"] += d.Loop.Load()
		drops["malformed"] += d.Malformed.Load()
		drops["overflow"] += d.Overflow.Load()
		drops["not_member"] += d.NotMember.Load()
	}
	for _, reason := range sortedKeys(drops) {
		count(descDropped, drops[reason], reason)
	}
	ch := &n.channels.Stats
	gauge(descChannels, float64(len(n.channels.List())))
	count(descOpened, ch.Opened.Load())
	count(descHandshakes, ch.HandshakeFailed.Load()-ch.Untrusted.Load(), "failed")
	count(descHandshakes, ch.Untrusted.Load(), "not_trusted")
	count(descHandshakes, ch.Late.Load(), "timeout")
	count(descHandshakes, ch.Absent.Load(), "absent")
	count(descRekeys, ch.Rekeys.Load())
	to.Histogram(descTook, ch.Initiated, "initiator")
	to.Histogram(descTook, ch.Responded, "responder")
	count(descHandshakes, ch.Refused.Load(), "busy")
	count(descChanEnded, ch.Silent.Load(), "silent")
	count(descChanEnded, ch.Evicted.Load()+ch.TooMany.Load(), "limit")
	count(descUndecrypted, ch.OpenFailed.Load())
	count(descGaps, ch.Gaps.Load())
	count(descKeysFailed, n.counters.keysFailed.Load())
	if s, ok := n.opts.Identities.KeyState(n.opts.Self); ok {
		gauge(descKeysUntil, float64(s.ValidUntil.Unix()))
	}
	count(descCredentials, n.counters.credentialsRefused.Load(), "peer_refused")
	count(descCredentials, n.counters.credentialsFetched.Load(), "fetched")
	count(descCredentials, n.counters.credentialsFailed.Load(), "fetch_failed")
	if n.revoked != nil {
		a := n.AuthorityState()
		reachable, late := 0.0, 0.0
		if a.State == AuthorityUp {
			reachable = 1
		}
		if a.Late {
			late = 1
		}
		gauge(descAuthUp, reachable, a.State)
		gauge(descAuthHeard, a.Silence.Seconds())
		gauge(descAuthLate, late)
		gauge(descRevoked, float64(a.Revoked))
		count(descRevocations, n.counters.revoked.Load(), "revoked")
		count(descRevocations, n.counters.revokedRefused.Load(), "channel_refused")
		count(descRevocations, n.counters.lateRefused.Load(), "authority_late")
	}
	c.portals(to, gauge, count)
	c.datagrams(gauge, count)
	c.paths(gauge, count)
	c.groups(gauge, count)
	c.box(to, gauge)
	if n.opts.Authority != nil && n.opts.Authority.Events != nil {
		n.opts.Authority.Events.each(func(event, reason string, k uint64) { count(descAuthority, k, event, reason) })
	}
	if a := n.opts.Authority; a != nil && a.Store != nil {
		_, away := a.Store.State()
		gauge(descStore, truth(away == nil), a.Store.Name)
	}
	c.limits(gauge, count)
	if n.control != nil {
		c := &n.control.Stats
		for result, k := range map[string]uint64{
			"answered": c.Answered.Load(), "denied": c.Denied.Load(), "busy": c.Busy.Load(), "malformed": c.Malformed.Load(), "unknown": c.Unknown.Load(),
		} {
			count(descControl, k, result)
		}
		gauge(descWaiting, float64(c.Waiting.Load()))
	}
	if n.relaySvc != nil {
		gauge(descWorkers, float64(len(n.relaySvc.Names())))
	}
}
