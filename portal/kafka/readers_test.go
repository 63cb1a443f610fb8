package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/portal/interceptor"
)

// audience records what is published and withdrawn.
type audience struct {
	mu  sync.Mutex
	has map[string]bool
	log []string
}

func (a *audience) options(linger, idle time.Duration) InletOptions {
	a.has = map[string]bool{}
	return InletOptions{Cipher: &mask{}, Linger: linger, Idle: idle, Withdraw: func(topic string, n int32) { a.note(topic, n, false) }}
}

func (a *audience) note(topic string, n int32, there bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := fmt.Sprintf("%s/%d", topic, n)
	a.has[name] = there
	a.log = append(a.log, fmt.Sprintf("%s %v", name, there))
}

func (a *audience) now() (list []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, there := range a.has {
		if there {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// becomes waits until what is published is want.
func (a *audience) becomes(t *testing.T, want ...string) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !slices.Equal(a.now(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("published %v, want %v (%v)", a.now(), want, a.log)
		}
	}
}

// reading is a connection of a consumer.
type reading struct {
	up   interceptor.Filter
	end  context.CancelFunc
	ctx  context.Context
	test *testing.T
}

func (a *audience) inlet(linger, idle time.Duration) *Inlet {
	o := a.options(linger, idle)
	in, _ := newTestInletWith(o)
	in.opts.Publish = func(_ context.Context, topic string, n int32) { a.note(topic, n, true) }
	return in
}

func connect(t *testing.T, in *Inlet) *reading {
	up, _ := in.Filters(interceptor.Conn{})
	r := &reading{up: up, test: t}
	r.ctx, r.end = context.WithCancel(context.Background())
	t.Cleanup(r.end)
	return r
}

// fetch reads partitions of the topic t; gone are those that the session forgets.
func (r *reading) fetch(epoch int32, partitions, gone []int32) error {
	m := kmsg.NewPtrFetchRequest()
	m.SetVersion(11)
	m.SessionEpoch = epoch
	m.Topics = []kmsg.FetchRequestTopic{{Topic: "t"}}
	for _, p := range partitions {
		m.Topics[0].Partitions = append(m.Topics[0].Partitions, kmsg.FetchRequestTopicPartition{Partition: p})
	}
	if gone != nil {
		m.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{Topic: "t", Partitions: gone}}
	}
	message := asRequest(m, 11)
	if step, n, err := r.up.Next(message); step != interceptor.Work || n != len(message) || err != nil {
		return fmt.Errorf("step %d, %d bytes, %w", step, n, err)
	}
	_, err := r.up.Work(r.ctx, message)
	return err
}

func (r *reading) mustFetch(epoch int32, partitions, gone []int32) {
	r.test.Helper()
	if err := r.fetch(epoch, partitions, gone); err != nil {
		r.test.Fatal(err)
	}
}

// TestPublishedWhileRead: a partition is published with its first reader and withdrawn after its last one.
func TestPublishedWhileRead(t *testing.T) {
	var a audience
	in := a.inlet(time.Millisecond, time.Hour)
	defer in.Close()
	one, two := connect(t, in), connect(t, in)
	one.mustFetch(0, []int32{1, 2}, nil)
	one.mustFetch(1, nil, nil)
	two.mustFetch(-1, []int32{2, 3}, nil)
	a.becomes(t, "t/1", "t/2", "t/3")
	one.end()
	a.becomes(t, "t/2", "t/3")
	two.end()
	a.becomes(t)
	three := connect(t, in)
	three.mustFetch(-1, []int32{3}, nil)
	a.becomes(t, "t/3")
	three.end()
	a.becomes(t)
	if err := three.fetch(-1, []int32{4}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a request of an ended connection: %v", err)
	}
	if got := a.now(); len(got) > 0 {
		t.Errorf("published for an ended connection: %v", got)
	}
}

// TestComesBack: a client that connects again soon does not change what is published.
func TestComesBack(t *testing.T) {
	var a audience
	in := a.inlet(time.Hour, time.Hour)
	one := connect(t, in)
	one.mustFetch(-1, []int32{1}, nil)
	one.end()
	p := partition{"t", 1}
	for ending := false; !ending; time.Sleep(time.Millisecond) {
		in.readers.mu.Lock()
		ending = in.readers.of[p].ending != nil
		in.readers.mu.Unlock()
	}
	two := connect(t, in)
	two.mustFetch(-1, []int32{1}, nil)
	in.readers.mu.Lock()
	s := in.readers.of[p]
	if s.ending != nil || len(s.by) != 1 {
		t.Errorf("readership %+v", s)
	}
	in.readers.mu.Unlock()
	in.readers.withdraw(p, s) // the timer that was stopped too late
	if got := a.now(); len(a.log) != 1 || len(got) != 1 {
		t.Errorf("published %v, %v", got, a.log)
	}
	in.Close()
	if two.mustFetch(-1, []int32{2}, nil); len(a.now()) != 1 {
		t.Errorf("published after Close: %v", a.now())
	}
}

// TestReadings: a session reads what it has not forgotten, however long ago that was named; without a session, what was asked for lately.
func TestReadings(t *testing.T) {
	const idle = time.Minute
	start := time.Now()
	parts := func(numbers ...int32) (list []partition) {
		for _, n := range numbers {
			list = append(list, partition{"t", n})
		}
		return list
	}
	var r readings
	for i, step := range []struct {
		epoch        int32
		listed, gone []partition
		after        time.Duration
		left         []partition
	}{
		{0, parts(1, 2, 3), nil, 0, nil},
		{1, nil, nil, idle, nil},               // the session has them all
		{2, parts(4), parts(2), idle + 1, nil}, // forgotten a moment ago
		{3, nil, nil, 2*idle - 1, nil},
		{4, nil, nil, 2 * idle, parts(2)}, // last asked for when the session still had it
		{-1, parts(1), nil, 3*idle - 1, nil},
		{-1, parts(1), nil, 4 * idle, parts(3, 4)},
		{0, parts(5), nil, 5 * idle, parts(1)}, // a session that begins anew has nothing else
	} {
		left := r.note(step.epoch, step.listed, step.gone, start.Add(step.after), idle)
		slices.SortFunc(left, func(a, b partition) int { return int(a.number - b.number) })
		if !slices.Equal(left, step.left) {
			t.Errorf("step %d: left %v, want %v", i, left, step.left)
		}
	}
	if all := r.all(); !slices.Equal(all, parts(5)) {
		t.Errorf("in the end %v", all)
	}
}

// TestIdleReader: what a client has not asked for for long is withdrawn though it stays.
func TestIdleReader(t *testing.T) {
	var a audience
	in := a.inlet(time.Millisecond, time.Millisecond)
	defer in.Close()
	c := connect(t, in)
	c.mustFetch(-1, []int32{1, 2}, nil)
	for end := time.Now().Add(90 * time.Second); len(a.now()) != 1; time.Sleep(time.Millisecond) {
		if c.mustFetch(-1, []int32{1}, nil); time.Now().After(end) {
			t.Fatalf("published %v", a.now())
		}
	}
	a.becomes(t, "t/1")
}

// fetchByID is fetch in a version where topics have ids.
func (r *reading) fetchByID(epoch int32, listed, gone map[topicID][]int32) {
	r.test.Helper()
	m := kmsg.NewPtrFetchRequest()
	m.SetVersion(13)
	m.SessionEpoch = epoch
	for id, numbers := range listed {
		topic := kmsg.FetchRequestTopic{TopicID: id}
		for _, p := range numbers {
			topic.Partitions = append(topic.Partitions, kmsg.FetchRequestTopicPartition{Partition: p})
		}
		m.Topics = append(m.Topics, topic)
	}
	for id, numbers := range gone {
		m.ForgottenTopics = append(m.ForgottenTopics, kmsg.FetchRequestForgottenTopic{TopicID: id, Partitions: numbers})
	}
	if _, err := run(r.up, asRequest(m, 13), 1000); err != nil {
		r.test.Fatal(err)
	}
}

// TestNamedLater: a consumer that was there before this node lists its partitions by topics' ids, once for its session. They are published as soon as the name is
// known, unless the session has them no more.
func TestNamedLater(t *testing.T) {
	for what, c := range map[string]struct {
		next func(r *reading) // before the name is known
		want []string
	}{
		"nothing":                  {func(*reading) {}, []string{"t/1", "t/2", "t/3"}},
		"one is gone":              {func(r *reading) { r.fetchByID(1, nil, map[topicID][]int32{{1}: {2}}) }, []string{"t/1", "t/3"}},
		"another session":          {func(r *reading) { r.fetchByID(0, map[topicID][]int32{{1}: {4}}, nil) }, []string{"t/4"}},
		"a request without one":    {func(r *reading) { r.fetchByID(-1, map[topicID][]int32{{1}: {5}}, nil) }, nil},
		"another topic meanwhile":  {func(r *reading) { r.fetchByID(1, map[topicID][]int32{{2}: {1}}, nil) }, []string{"t/1", "t/2", "t/3"}},
		"more of the same session": {func(r *reading) { r.fetchByID(1, map[topicID][]int32{{1}: {7}}, nil) }, []string{"t/1", "t/2", "t/3", "t/7"}},
	} {
		var a audience
		in := a.inlet(time.Hour, time.Hour)
		r := connect(t, in)
		r.fetchByID(0, map[topicID][]int32{{1}: {1, 2, 3}}, nil)
		c.next(r)
		if got := a.now(); len(got) > 0 {
			t.Errorf("%s: published without a name: %v", what, got)
		}
		if err := in.learn(topicID{1}, "t"); err != nil {
			t.Fatal(err)
		}
		r.fetchByID(2, nil, nil)
		if got := a.now(); !slices.Equal(got, c.want) {
			t.Errorf("%s: published %v, want %v", what, got, c.want)
		}
		r.fetchByID(3, nil, nil)
		if len(a.log) != len(c.want) {
			t.Errorf("%s: published twice: %v", what, a.log)
		}
		in.Close()
	}
}

// TestUnnamedBound: what a client lists of topics that nobody knows is remembered up to a bound.
func TestUnnamedBound(t *testing.T) {
	var r readings
	ask := fetchAsk{epoch: 1, listed: make([]fetchPart, maxUnnamed+10)}
	for i := range ask.listed {
		ask.listed[i].number = int32(i)
	}
	r.named(ask, func(topicRef) string { return "" })
	if len(r.unnamed) != maxUnnamed {
		t.Errorf("%d are remembered", len(r.unnamed))
	}
	if listed, _, _ := r.named(fetchAsk{epoch: 2}, func(topicRef) string { return "t" }); len(listed) != maxUnnamed || len(r.unnamed) != 0 {
		t.Errorf("%d got a name, %d have none", len(listed), len(r.unnamed))
	}
}
