package dataplane

// progress is how far a connection had come at some time.
type progress struct {
	frame uint64 // where in the stream the unfinished frame began
	got   uint64
}

// Expect sets the times within which the peer must begin and go on. On the loop, at most once, before the first input.
func (f *Framed) Expect(d Deadlines) {
	f.frameTime = d.Frame
	if d.Preamble > 0 {
		f.late = f.loop.After(d.Preamble, func() {
			f.late = nil
			if !f.begun {
				f.loop.uses.latePreamble.Add(1)
				(*framedConn)(f).fail(ErrLatePreamble)
			} else if (*framedConn)(f).partial() {
				(*framedConn)(f).unfinished()
			}
		})
	}
}

// unfinished is called when a frame has begun that is not whole: it sees to it that the frame makes progress, and that there is memory for
// it. It reports false when the connection has ended.
func (f *framedConn) unfinished() bool {
	if f.late == nil && f.frameTime > 0 && f.begun {
		f.before = f.now()
		f.delayed = false
		f.late = f.loop.After(f.frameTime, f.checkProgress)
	}
	if f.loop.crowded() && !f.loop.makeRoom(f) {
		f.fail(ErrNoRoom)
	}
	return !f.closed
}

// now returns how far the connection is. There must be an unfinished frame.
func (f *framedConn) now() progress {
	before, _ := f.framing.Kept()
	if f.part != nil {
		before += uint64(f.part.pending())
	}
	return progress{frame: f.got - before, got: f.got}
}

// checkProgress ends a connection that has brought next to nothing of the same frame since the last check, though it was read all the
// time. The timer runs only while there is an unfinished frame now and then, so an idle connection has none.
func (f *framedConn) checkProgress() {
	f.late = nil
	if f.closed || !f.partial() {
		return
	}
	before, now := f.before, f.now()
	if now.frame == before.frame && now.got-before.got < minProgress && !f.delayed && !f.paused && !f.readable {
		f.loop.uses.lateFrame.Add(1)
		f.fail(ErrLateFrame)
		return
	}
	f.before, f.delayed = now, false
	f.late = f.loop.After(f.frameTime, f.checkProgress)
}
