package fair

import "sync"

// Turns runs jobs, a few at a time, and takes them from their sources in turn: a source with a thousand waiting costs another one the
// time of one job. It is safe for concurrent use.
type Turns struct {
	workers int

	mu      sync.Mutex
	running int
	queues  map[Source]*queue
	ring    []*queue // those with jobs, the next one first
}

type queue struct {
	from Source
	jobs []func()
}

// NewTurns makes turns for a number of jobs at a time.
func NewTurns(workers int) *Turns { return &Turns{workers: workers, queues: map[Source]*queue{}} }

// Do runs a job when it is its turn, on another goroutine.
func (t *Turns) Do(from Source, job func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.queues[from]
	if q == nil {
		q = &queue{from: from}
		t.queues[from] = q
		t.ring = append(t.ring, q)
	}
	q.jobs = append(q.jobs, job)
	if t.running < t.workers {
		t.running++
		go t.work()
	}
}

func (t *Turns) work() {
	for {
		t.mu.Lock()
		if len(t.ring) == 0 {
			t.running--
			t.mu.Unlock()
			return
		}
		q := t.ring[0]
		t.ring = t.ring[1:]
		job := q.jobs[0]
		q.jobs[0] = nil
		q.jobs = q.jobs[1:]
		if len(q.jobs) == 0 {
			delete(t.queues, q.from)
		} else {
			t.ring = append(t.ring, q)
		}
		t.mu.Unlock()
		job()
	}
}

// Idle reports that no job runs or waits.
func (t *Turns) Idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running == 0 && len(t.queues) == 0
}
