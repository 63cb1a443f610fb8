package dataplane

import (
	"bytes"
	"io"
	"testing"
)

// TestHandOver: what a connection could not send yet goes on with it to another loop; who only looks gets a copy, or none of the bytes.
func TestHandOver(t *testing.T) {
	from, to := newLoop(t), newLoop(t)
	stream := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB: more than the kernel takes while nobody reads
	fd, peer := pair(t, "tcp")
	var h Handover
	on(t, from, func() {
		c, err := from.Adopt(fd, newRecorder())
		if err != nil {
			t.Error(err)
			return
		}
		c.Write(stream)
		c.flush()
		pending := c.Pending()
		if pending == 0 {
			t.Error("the kernel took all")
		}
		if bare, ok := c.Copy(false); !ok || bare.FD != fd || bare.Output != nil || bare.ShutWrite {
			t.Errorf("without data: %v, descriptor %d of %d, %d bytes", ok, bare.FD, fd, len(bare.Output))
		}
		if whole, ok := c.Copy(true); !ok || !bytes.Equal(whole.Output, stream[len(stream)-pending:]) {
			t.Errorf("with data: %v, %d bytes of %d", ok, len(whole.Output), pending)
		}
		var ok bool
		if h, ok = c.HandOver(); !ok || len(h.Output) != pending {
			t.Errorf("%v, %d bytes of %d", ok, len(h.Output), pending)
		}
	})
	if t.Failed() {
		return
	}
	on(t, to, func() {
		c, err := to.TakeOver(h, newRecorder())
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
		if _, ok := c.HandOver(); ok {
			t.Error("a connection that is being closed was handed over")
		}
		if closing, ok := c.Copy(true); !ok || !closing.ShutWrite || len(closing.Output) == 0 {
			t.Errorf("of one that is being closed: %v, %+v", ok, closing.ShutWrite)
		}
	})
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, stream) {
		t.Errorf("%d of %d bytes, %v", len(got), len(stream), err)
	}
}
