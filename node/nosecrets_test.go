package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/internal/logtext"
	"sallyport/node/resource"
	"sallyport/portal"
	"sallyport/records"
)

// heardRecords is a records.Sink.
type heardRecords struct{ to *logtext.Text }

func (s heardRecords) Write(_ []*records.Record, lines []byte) error {
	_, err := s.to.Write(lines)
	return err
}

func (heardRecords) Close() error { return nil }

// shapes are the ways in which a secret may be written.
func shapes(secret []byte) []string {
	return []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)), base64.RawStdEncoding.EncodeToString(secret),
		base64.RawURLEncoding.EncodeToString(secret), fmt.Sprint(secret), fmt.Sprintf("%q", secret)}
}

// TestNoResumptionSecrets: what proves that somebody may take up a connection is in no log at debug level, no record, no metric, not on the page and not
// among the events, of neither end: not when the connection is opened, nor when it goes on over another path, nor when it ends.
func TestNoResumptionSecrets(t *testing.T) {
	ctx := within(t)
	var text logtext.Text // what a log and a sink of records have got
	loud := func() *member {
		m := newMember(t)
		m.Stop()
		n, err := Start(context.Background(), Options{Name: "n", Self: m.self, Identities: m.ids, Store: NewHome(m.dir, "n", true), Listen: "127.0.0.1:0", Shards: 2,
			Log: slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})), Records: &RecordOptions{Sink: heardRecords{&text}}})
		if err != nil {
			t.Fatal(err)
		}
		m.Node = n
		return m
	}
	bank, client := loud(), loud()
	if _, err := bank.CreateOutlet(ctx, resource.Outlet{Name: "db", To: echoServer(t)}); err != nil {
		t.Fatal(err)
	}
	f := newFreezer(t, bank.Listening())
	in, err := client.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: f.route() + "/secure/api/service/db"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", in.Bind)
	if err == nil {
		err = says(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{}
	for name, m := range map[string]*member{"the bank": bank, "the client": client} {
		k, release, err := m.writeDown(ctx, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range append(append([]portal.CarriedPortal{}, k.Portals.Inlets...), k.Portals.Outlets...) {
			for _, c := range p.Conns {
				secrets[name] = bytes.Clone(c.Secret)
			}
		}
		release()
	}
	if len(secrets) != 2 || len(secrets["the bank"]) != 16 || !bytes.Equal(secrets["the bank"], secrets["the client"]) {
		t.Fatalf("the secrets are %x", secrets)
	}
	secrets["the client's process"], secrets["the bank's process"] = client.portals.Process[:], bank.portals.Process[:]
	f.mu.Lock()
	for _, c := range f.open {
		_ = c.Close()
	}
	f.mu.Unlock()
	if err := says(c); err != nil {
		t.Fatalf("the connection does not go on: %v", err)
	}
	for _, m := range []*member{bank, client} {
		at, err := m.ServeStatus(ctx, "127.0.0.1:0", false)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/metrics", "/show", "/page/now", "/page/past"} {
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+path, nil)
			req.Header.Set("Accept", "application/openmetrics-text")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(&text, resp.Body)
			_ = resp.Body.Close()
		}
		b, err := json.Marshal([]any{m.Events(), m.Stats(ctx), m.Describe(), m.set.Resources()})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = text.Write(b)
	}
	http.DefaultClient.CloseIdleConnections()
	_ = c.Close()
	for end := time.Now().Add(40 * time.Second); strings.Count(text.String(), `"resumed":1`) < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no records of both ends:\n%s", text.String())
		}
	}
	all := text.String()
	for whose, secret := range secrets {
		for _, s := range shapes(secret) {
			if strings.Contains(all, s) {
				t.Errorf("the secret of %s is told as %q", whose, s)
			}
		}
	}
	for _, must := range []string{"level=DEBUG", "sallyport_portal_setup_seconds", `"stories"`} {
		if !strings.Contains(all, must) {
			t.Errorf("there is no %q: the test sees nothing", must)
		}
	}
}
