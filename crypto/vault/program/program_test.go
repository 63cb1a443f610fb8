package program

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

type message struct {
	Op   string `json:"op"`
	Data []byte `json:"data"`
}

func TestMessages(t *testing.T) {
	var b bytes.Buffer
	want := message{Op: "sign", Data: []byte("text")}
	if err := WriteMessage(&b, want); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(b.Bytes())
	var got message
	if err := ReadMessage(&b, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := ReadMessage(&b, &got); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	for n := 1; n < len(whole); n++ {
		if err := ReadMessage(bytes.NewReader(whole[:n]), &got); err == nil {
			t.Errorf("%d bytes are a message", n)
		}
	}
	if err := ReadMessage(bytes.NewReader(binary.BigEndian.AppendUint32(nil, MaxMessage+1)), &got); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a length without bound: %v", err)
	}
	if err := WriteMessage(io.Discard, message{Data: make([]byte, MaxMessage)}); err == nil {
		t.Error("a message without bound is written")
	}
}

// TestMain is the other program too, where it is started as one.
func TestMain(m *testing.M) {
	if os.Getenv("HELPER_TEST") == "" {
		code := m.Run()
		var left error
		for end := time.Now().Add(30 * time.Second); code == 0; { // a helper that hangs is killed after a while
			if left = goleak.Find(); left == nil || time.Now().After(end) {
				break
			}
		}
		if left != nil {
			fmt.Fprintln(os.Stderr, left)
			code = 1
		}
		os.Exit(code)
	}
	for {
		var req message
		if err := ReadMessage(os.Stdin, &req); err != nil {
			os.Exit(0)
		}
		switch req.Op {
		case "crash":
			os.Exit(3)
		case "hang":
			time.Sleep(time.Hour)
		case "env":
			req.Data = []byte(strings.Join(os.Environ(), " "))
		case "pid":
			req.Data = binary.BigEndian.AppendUint32(nil, uint32(os.Getpid()))
		}
		if err := WriteMessage(os.Stdout, req); err != nil {
			os.Exit(1)
		}
	}
}

// program is one made of this test.
func program(t *testing.T) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "test-program")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("HELPER_TEST", "1")
	p := &Process{Program: "test-program", Made: "make it", Wait: 30 * time.Second, Env: func(name string) bool { return name != "SECRET" }}
	t.Cleanup(p.Stop)
	return p
}

// TestProcess: it is started when it is needed, and again after it crashed, hung or was idle; it is given only the environment it may have.
func TestProcess(t *testing.T) {
	ctx := context.Background()
	t.Setenv("SECRET", "s1")
	t.Setenv("SALLYPORT_X", "s2")
	t.Setenv("OCKAM_X", "s3")
	t.Setenv("ENROLLMENT_TICKET", "s4")
	p := program(t)
	ask := func(op string) []byte {
		t.Helper()
		var resp message
		if err := p.Ask(ctx, message{Op: op}, &resp); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		return resp.Data
	}
	env := string(ask("env"))
	for _, secret := range []string{"s1", "s2", "s3", "s4"} {
		if strings.Contains(env, "="+secret) {
			t.Errorf("it is given %s: %s", secret, env)
		}
	}
	first := ask("pid")
	if !bytes.Equal(ask("pid"), first) {
		t.Error("it is started for each request")
	}
	if err := p.Ask(ctx, message{Op: "crash"}, &message{}); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a crash: %v", err)
	}
	second := ask("pid")
	if bytes.Equal(second, first) {
		t.Error("it was not started again")
	}
	p.Wait = 10 * time.Millisecond
	if err := p.Ask(ctx, message{Op: "hang"}, &message{}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("one that hangs: %v", err)
	}
	p.Wait = 30 * time.Second
	gone, cancel := context.WithCancel(ctx)
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := p.Ask(gone, message{Op: "hang"}, &message{}); !errors.Is(err, context.Canceled) {
		t.Errorf("one that nobody waits for: %v", err)
	}
	p.Idle = 10 * time.Millisecond
	ask("pid")
	for {
		p.mu.Lock()
		ended := p.cmd == nil
		p.mu.Unlock()
		if ended {
			break
		}
		time.Sleep(time.Millisecond)
	}
	ask("pid")
	none := &Process{Program: "no-such-program", Made: "make it"}
	if err := none.Start(); err == nil || !strings.Contains(err.Error(), "make it") {
		t.Errorf("one that is not installed: %v", err)
	}
}
