//go:build !small

package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/crypto/identity"
)

// followPause is how often --follow asks for more.
const followPause = time.Second

// auditLine is an entry as a line of JSON. Previous, hash and content let anybody check the chain: hash is SHA-256 of "sallyport audit 1",
// previous and content.
type auditLine struct {
	Seq        uint64            `json:"seq"`
	Time       string            `json:"time"`
	Event      string            `json:"event"`
	Actor      string            `json:"actor,omitempty"`
	Subject    string            `json:"subject,omitempty"`
	Ticket     string            `json:"ticket,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Source     string            `json:"source,omitempty"`
	Count      uint64            `json:"count,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Previous   string            `json:"previous"`
	Hash       string            `json:"hash"`
	Content    string            `json:"content"`
}

func lineOf(e authority.AuditEntry) auditLine {
	name := func(id identity.Identifier) string {
		if id == (identity.Identifier{}) {
			return ""
		}
		return id.String()
	}
	return auditLine{
		Seq: e.Seq, Time: e.Time.UTC().Format(time.RFC3339Nano), Event: e.Event, Actor: name(e.Actor), Subject: name(e.Subject), Ticket: e.Ticket,
		Reason: e.Reason, Source: e.Source, Count: e.Count, Attributes: e.Attributes, Previous: hex.EncodeToString(e.Previous[:]),
		Hash: hex.EncodeToString(e.Hash[:]), Content: hex.EncodeToString(e.Content()),
	}
}

func (l auditLine) text() string {
	parts := []string{l.Time, l.Event}
	for _, p := range []struct{ name, value string }{
		{"actor", l.Actor}, {"subject", l.Subject}, {"ticket", l.Ticket}, {"reason", l.Reason}, {"source", l.Source}, {"attributes", attributesText(l.Attributes)},
	} {
		if p.value != "" {
			parts = append(parts, p.name+"="+p.value)
		}
	}
	if l.Count > 1 {
		parts = append(parts, fmt.Sprintf("count=%d", l.Count))
	}
	return strings.Join(parts, " ")
}

// entry reads a line back. What it says in clear must be what its content says.
func (l auditLine) entry() (authority.AuditEntry, error) {
	previous, err1 := hex.DecodeString(l.Previous)
	content, err2 := hex.DecodeString(l.Content)
	if err := errors.Join(err1, err2); err != nil {
		return authority.AuditEntry{}, err
	}
	e, err := authority.ReadAuditEntry(l.Seq, previous, content)
	if err == nil && !reflect.DeepEqual(lineOf(e), l) {
		err = fmt.Errorf("%w: entry %d does not say what its content says", authority.ErrTrail, l.Seq)
	}
	return e, err
}

// sinceTime reads a time, or a duration back from now.
func sinceTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, usageError("invalid value '%s' for '--since': give a time such as 2026-11-29T08:00:00Z or how long ago, such as 2h", text)
	}
	return time.Now().Add(-d), nil
}

// trail calls f with every entry of an authority's trail, and with those that come if follow is set.
func (a *app) trail(ctx context.Context, t trustFlags, follow bool, f func(authority.AuditEntry) error) error {
	return a.askAuthority(ctx, t, func(ctx context.Context, c *authority.Client, _ *self) error {
		for after := uint64(0); ; {
			asked, cancel := context.WithTimeout(ctx, answersIn)
			list, err := c.Audit(asked, after)
			err = ofOurs(ctx, asked, err)
			cancel()
			if err != nil {
				return err
			}
			for _, e := range list {
				if err := f(e); err != nil {
					return err
				}
				after = e.Seq
			}
			if len(list) > 0 {
				continue
			}
			if !follow {
				return nil
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(followPause):
			}
		}
	})
}

func authorityAudit(a *app) *cobra.Command {
	var t trustFlags
	var follow bool
	var since string
	cmd := &cobra.Command{Use: "audit [flags]", Short: "Print what happened at a project's authority: who did what, when and from where", Example: `  sallyport authority audit --since 24h
  sallyport authority audit --follow --output json`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := sinceTime(since)
			if err != nil {
				return err
			}
			out := a.stdout
			return a.trail(cmd.Context(), t, follow, func(e authority.AuditEntry) error {
				if e.Time.Before(from) {
					return nil
				}
				line := lineOf(e)
				if a.output == "json" || a.compact {
					return json.NewEncoder(out).Encode(line)
				}
				_, err := fmt.Fprintln(out, line.text())
				return err
			})
		}}
	t.add(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	cmd.Flags().StringVar(&since, "since", "", "only since a `TIME`, or so long ago: 2026-11-29T08:00:00Z, 2h")
	cmd.AddCommand(auditVerify(a))
	return cmd
}

func auditVerify(a *app) *cobra.Command {
	var t trustFlags
	var head string
	cmd := &cobra.Command{Use: "verify [FILE] [flags]", Short: "Check that nothing in an audit trail was changed or left out", Example: `  sallyport authority audit verify
  sallyport authority audit verify trail.jsonl --head "$HASH"`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var chain authority.Chain
			seen := head == ""
			next := func(e authority.AuditEntry) error {
				seen = seen || strings.EqualFold(head, hex.EncodeToString(e.Hash[:]))
				return chain.Next(e)
			}
			var err error
			if len(args) == 1 {
				err = verifyFile(args[0], next)
			} else {
				err = a.trail(cmd.Context(), t, false, next)
			}
			if err != nil {
				return err
			}
			if !seen {
				return withHint(fmt.Errorf("no entry of the trail has the hash %s", head), "the trail was replaced, or that entry was longer ago than it is kept")
			}
			hash := hex.EncodeToString(chain.Head[:])
			return a.print(result{human: fields("Entries", fmt.Sprint(chain.Entries), "From", fmt.Sprint(chain.First), "To", fmt.Sprint(chain.Last), "Head", hash),
				machine: hash, json: map[string]any{"entries": chain.Entries, "first": chain.First, "last": chain.Last, "head": hash}})
		}}
	t.add(cmd)
	cmd.Flags().StringVar(&head, "head", "", "the `HASH` of an entry that was noted before and must still be there")
	return cmd
}

// verifyFile reads a trail that was exported as lines of JSON.
func verifyFile(path string, next func(authority.AuditEntry) error) error {
	var in io.Reader = os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var l auditLine
		err := json.Unmarshal(lines.Bytes(), &l)
		if err == nil {
			var e authority.AuditEntry
			if e, err = l.entry(); err == nil {
				err = next(e)
			}
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return lines.Err()
}
