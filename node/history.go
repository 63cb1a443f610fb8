package node

import (
	"context"
	"sync"
	"time"

	"sallyport/portal"
)

// What is remembered of portals for the page: an hour, in pieces. That is 1.5 MB at most.
const (
	historyEvery   = 5 * time.Second
	historyLength  = int(time.Hour / historyEvery)
	historyPortals = 128
)

// history remembers what portals carried in the last hour.
type history struct {
	mu      sync.Mutex
	at      time.Time // of the last look
	portals map[[2]string]*past
}

// past is what one portal carried: rings of bytes a second and open connections, the newest before next.
type past struct {
	in, out, open [historyLength]float32
	next, length  int

	bytesIn, bytesOut uint64 // at the last look
	looked            bool   // at this look
}

// run looks until ctx ends.
func (h *history) run(ctx context.Context, meters func() []*portal.Meter) {
	tick := time.NewTicker(historyEvery)
	defer tick.Stop()
	h.look(meters(), time.Now())
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			h.look(meters(), now)
		}
	}
}

// look takes down what the portals carried since the last look.
func (h *history) look(meters []*portal.Meter, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	span := max(now.Sub(h.at).Seconds(), 0.1)
	h.at = now
	if h.portals == nil {
		h.portals = map[[2]string]*past{}
	}
	for _, p := range h.portals {
		p.looked = false
	}
	for _, m := range meters {
		key := [2]string{m.End(), m.Name()}
		in, out := m.BytesIn.Load(), m.BytesOut.Load()
		p := h.portals[key]
		if p == nil {
			if len(h.portals) == historyPortals {
				continue
			}
			h.portals[key] = &past{bytesIn: in, bytesOut: out, looked: true}
			continue
		}
		p.looked = true
		if in < p.bytesIn || out < p.bytesOut { // another portal of that name
			p.bytesIn, p.bytesOut = in, out
		}
		p.in[p.next], p.out[p.next] = float32(float64(in-p.bytesIn)/span), float32(float64(out-p.bytesOut)/span)
		p.open[p.next] = float32(m.Open.Load())
		p.bytesIn, p.bytesOut = in, out
		p.next, p.length = (p.next+1)%historyLength, min(p.length+1, historyLength)
	}
	for key, p := range h.portals {
		if !p.looked {
			delete(h.portals, key)
		}
	}
}

// pastPortal is what the page draws of a portal, the oldest first.
type pastPortal struct {
	End  string    `json:"end"`
	Name string    `json:"name"`
	In   []float32 `json:"in"`
	Out  []float32 `json:"out"`
	Open []float32 `json:"open"`
}

// pastView is what the page gets of the last hour.
type pastView struct {
	At      time.Time    `json:"at"`
	Every   float64      `json:"every_seconds"`
	Portals []pastPortal `json:"portals"`
}

// view returns what was taken down.
func (h *history) view() pastView {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := pastView{At: h.at.UTC(), Every: historyEvery.Seconds(), Portals: []pastPortal{}}
	for key, p := range h.portals {
		v.Portals = append(v.Portals, pastPortal{key[0], key[1], p.ring(&p.in), p.ring(&p.out), p.ring(&p.open)})
	}
	return v
}

// ring returns a ring in order.
func (p *past) ring(r *[historyLength]float32) []float32 {
	list := make([]float32, 0, p.length)
	for i := range p.length {
		v := r[(p.next-p.length+i+historyLength)%historyLength]
		list = append(list, float32(int64(v*10))/10) // short in JSON
	}
	return list
}
