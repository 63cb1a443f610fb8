package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// ticketRows has an authority, a relay and an admin of program a make tickets of
// every form, which members running program b use. That a member is in is shown
// by the relay node's echo, which its default policy keeps for members.
func ticketRows(ctx context.Context, r *rowRun) {
	st := r.story(ctx, seats{r.a, r.a, r.b, r.b, r.a}, storyOptions{}, func(ctx context.Context, st *story) error {
		return st.startOperator(ctx, nil)
	})
	if st == nil {
		return
	}
	defer st.close(r.keep)
	const echo = "/project/" + projectName + "/service/echo"
	newMember := func(name string) (*box, error) { return newBox(r.procs, st.dir, name, r.b) }
	used := ""
	for _, form := range []struct {
		name string
		args []string
	}{
		{"plain", nil},
		{"hex", []string{"--hex"}},
		{"json", []string{"--output", "json"}},
		{"legacy", []string{"--legacy"}},
	} {
		r.check("ticket, "+form.name, func() (string, error) {
			t, err := st.ticket(ctx, append([]string{"--attribute", "form=" + form.name}, form.args...)...)
			if err != nil {
				return "", err
			}
			member, err := newMember("member-" + form.name)
			if err != nil {
				return "", err
			}
			if _, err := member.cli(ctx, "project", "enroll", t); err != nil {
				return "", err
			}
			used = t
			return "", send(ctx, member, echo, "in", "in")
		})
	}
	r.check("used ticket refused", func() (string, error) {
		late, err := newMember("late")
		if err != nil {
			return "", err
		}
		if out, err := late.cli(ctx, "project", "enroll", used); err == nil {
			return "", fmt.Errorf("a ticket for one use served twice: %q", firstLine([]byte(out)))
		}
		return "", nil
	})
	r.check("stranger gets no echo", func() (string, error) {
		stranger, err := newMember("stranger")
		if err != nil {
			return "", err
		}
		if _, err := stranger.cli(ctx, "project", "import", "--project-file", st.projectFile); err != nil {
			return "", err
		}
		if out, err := stranger.cli(ctx, "message", "send", "--timeout", "2s", "--to", echo, "in"); err == nil {
			return "", fmt.Errorf("got an answer: %q", out)
		}
		return "", nil
	})
	r.check("ticket for three, and no more", func() (string, error) {
		t, err := st.ticket(ctx, "--usage-count", "3")
		if err != nil {
			return "", err
		}
		for i := range 4 {
			member, err := newMember(fmt.Sprintf("multi%d", i))
			if err != nil {
				return "", err
			}
			_, err = member.cli(ctx, "project", "enroll", t)
			if i < 3 && err != nil {
				return "", fmt.Errorf("use %d: %w", i+1, err)
			}
			if i == 3 && err == nil {
				return "", fmt.Errorf("use 4 of 3 was accepted")
			}
		}
		return "", nil
	})
	r.check("ticket past its time", func() (string, error) {
		t, err := st.admin.cli(ctx, "project", "ticket", "--identity", "admin", "--expires-in", "1s")
		if err != nil {
			return "", err
		}
		time.Sleep(2500 * time.Millisecond)
		member, err := newMember("slow")
		if err != nil {
			return "", err
		}
		if _, err := member.cli(ctx, "project", "enroll", t); err == nil {
			return "", fmt.Errorf("it was accepted")
		}
		return "", nil
	})
}

// adminRows is the story with all seats of program a and an admin running the other one.
func adminRows(ctx context.Context, r *rowRun) {
	s := seats{authority: r.a, relay: r.a, outlet: r.a, inlet: r.a, admin: r.b}
	o := storyOptions{pgPort: r.pg.port, xferTarget: r.xfer.address()}
	st := r.story(ctx, s, o, func(ctx context.Context, st *story) error { return st.start(ctx) })
	if st == nil {
		return
	}
	defer st.close(r.keep)
	r.check("psql", func() (string, error) { return "", r.pg.query(ctx, st.pgInlet) })
	r.check("select", func() (string, error) { return r.pg.bench(ctx, st.pgInlet, 2*time.Second, true) })
	r.check("upload", func() (string, error) { return transfer(ctx, st.xferInlet, modeUpload, 16<<20) })
	r.check("download", func() (string, error) { return transfer(ctx, st.xferInlet, modeDownload, 16<<20) })
}

// identityRows exports an identity of program a and imports it with program b.
func identityRows(ctx context.Context, r *rowRun) {
	dir := filepath.Join(r.root, fmt.Sprintf("s%d", storyCount.Add(1)))
	var from, to *box
	var identifier, history string
	ok := r.check("export", func() (string, error) {
		var err error
		if from, err = newBox(r.procs, dir, "from", r.a); err != nil {
			return "", err
		}
		if to, err = newBox(r.procs, dir, "to", r.b); err != nil {
			return "", err
		}
		if identifier, err = from.cli(ctx, "identity", "create", "alice"); err != nil {
			return "", err
		}
		history, err = from.cli(ctx, "identity", "show", "alice", "--full", "--encoding", "hex")
		return "", err
	})
	if !ok {
		return
	}
	r.check("import gives the identifier", func() (string, error) {
		if _, err := to.cli(ctx, "identity", "create", "alice", "--identity", history); err != nil {
			return "", err
		}
		out, err := to.cli(ctx, "identity", "show", "alice")
		if err == nil && out != identifier {
			err = fmt.Errorf("imported as %q, is %q", out, identifier)
		}
		return "", err
	})
	r.check("exported again unchanged", func() (string, error) {
		out, err := to.cli(ctx, "identity", "show", "alice", "--full", "--encoding", "hex")
		if err == nil && out != history {
			err = fmt.Errorf("got %d digits of another history than the %d exported", len(out), len(history))
		}
		return "", err
	})
	r.check("forged history refused", func() (string, error) {
		forged := []byte(history)
		// The last byte belongs to the signature.
		if last := len(forged) - 1; forged[last] == '0' {
			forged[last] = '1'
		} else {
			forged[last] = '0'
		}
		if out, err := to.cli(ctx, "identity", "create", "mallory", "--identity", string(forged)); err == nil {
			return "", fmt.Errorf("it was accepted as %q", out)
		}
		return "", nil
	})
}
