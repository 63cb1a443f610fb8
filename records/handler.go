package records

import (
	"context"
	"encoding/hex"
	"log/slog"
)

// Handler is a Sink that makes a record of the log of each, in the log's form. It writes by itself, past the log's rates.
type Handler struct{ H slog.Handler }

// Write implements Sink.
func (s Handler) Write(batch []*Record, _ []byte) (err error) {
	for _, r := range batch {
		out := slog.NewRecord(r.Ended, slog.LevelInfo, "portal connection", 0)
		text := func(key, value string) {
			if value != "" {
				out.AddAttrs(slog.String(key, value))
			}
		}
		text("end", r.End)
		text("portal", r.Portal)
		if r.ID != ([16]byte{}) {
			text("id", hex.EncodeToString(r.ID[:]))
		}
		text("client", r.Client)
		if r.HasPeer {
			text("peer", "I"+hex.EncodeToString(r.Peer[:]))
		}
		if len(r.Attributes) > 0 {
			out.AddAttrs(slog.Any("attributes", r.Attributes))
		}
		text("target", r.Target)
		out.AddAttrs(slog.Uint64("bytes_to_target", r.ToTarget), slog.Uint64("bytes_to_client", r.ToClient))
		if r.Setup >= 0 {
			out.AddAttrs(slog.Float64("setup_seconds", r.Setup.Seconds()))
		}
		if r.FirstByte >= 0 {
			out.AddAttrs(slog.Float64("first_byte_seconds", r.FirstByte.Seconds()))
		}
		out.AddAttrs(slog.Float64("duration_seconds", r.Ended.Sub(r.Began).Seconds()))
		text("outcome", r.Outcome)
		text("ended_by", r.By)
		out.AddAttrs(slog.Int("resumed", r.Resumed))
		if e := s.H.Handle(context.Background(), out); e != nil {
			err = e
		}
	}
	return err
}

// Close implements Sink.
func (Handler) Close() error { return nil }
