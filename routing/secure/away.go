package secure

import "sallyport/routing"

// wayWatcher is a responder's Channel as the watcher of what it runs on: that may end while the channel stays, since the initiator may come
// by another way. Who relies on the channel is told at once.
type wayWatcher Channel

// TerminalClosed implements routing.Watcher.
func (w *wayWatcher) TerminalClosed() {
	way := w.way
	w.way = nil
	(*Channel)(w).severed(way)
	w.watchers.TellAway(true)
}

// TerminalAway implements routing.AwayWatcher.
func (w *wayWatcher) TerminalAway(away bool) { w.watchers.TellAway(away) }

// watchWay watches what the channel runs on now, and tells who relies on the channel when it is there again.
func (c *Channel) watchWay() {
	t := c.shard.FirstTerminal(c.remote)
	if c.Initiator || t == c.way {
		return
	}
	before := c.way
	c.unwatchWay()
	if c.way = t; t == nil {
		return
	}
	t.Watch((*wayWatcher)(c))
	if before == nil {
		c.watchers.TellAway(routing.IsAway(c.shard, t))
	}
}

func (c *Channel) unwatchWay() {
	if c.way != nil {
		c.way.Unwatch((*wayWatcher)(c))
		c.way = nil
	}
}

// Away implements routing.Away.
func (e *encryptor) Away(s *routing.Shard) bool {
	t := s.FirstTerminal(e.remote)
	return t == nil || routing.IsAway(s, t)
}
