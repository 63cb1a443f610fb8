// Package chromium drives a headless Chromium through its DevTools protocol, over a pair of pipes, for tests of pages.
package chromium

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// ErrAbsent reports that there is no Chromium.
var ErrAbsent = errors.New("no chromium here (apt-get install chromium)")

// Page is an open page. Its methods are for one goroutine.
type Page struct {
	cmd     *exec.Cmd
	to      io.WriteCloser
	from    io.ReadCloser
	dir     string
	session string
	number  int

	mu       sync.Mutex
	answers  map[int]chan answer
	problems []string
	ended    chan struct{}
}

type answer struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// Open starts a Chromium with an empty page, which Close ends.
func Open(ctx context.Context) (_ *Page, err error) {
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err = exec.LookPath(name); err == nil {
			break
		}
	}
	if path == "" {
		return nil, ErrAbsent
	}
	p := &Page{answers: map[int]chan answer{}, ended: make(chan struct{})}
	if p.dir, err = os.MkdirTemp("", "browser"); err != nil {
		return nil, err
	}
	hear, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	from, say, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.to, p.from = to, from
	p.cmd = exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--force-color-profile=srgb", "--hide-scrollbars",
		"--font-render-hinting=none", "--user-data-dir="+p.dir, "--remote-debugging-pipe", "about:blank")
	p.cmd.ExtraFiles = []*os.File{hear, say}
	p.cmd.Env = append(os.Environ(), "HOME="+p.dir)
	err = p.cmd.Start()
	_, _ = hear.Close(), say.Close()
	if err != nil {
		_, _, _ = to.Close(), from.Close(), os.RemoveAll(p.dir)
		return nil, err
	}
	go p.read()
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	var target struct{ TargetID, SessionID string }
	if err := p.call(ctx, "Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return nil, err
	}
	if err := p.call(ctx, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target); err != nil {
		return nil, err
	}
	p.session = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		if err := p.call(ctx, domain+".enable", nil, nil); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Close ends the browser and removes what it wrote.
func (p *Page) Close() {
	_ = p.cmd.Process.Kill()
	_ = p.to.Close()
	_ = p.cmd.Wait()
	_ = p.from.Close()
	<-p.ended
	for range 50 { // its children are still about to end
		if os.RemoveAll(p.dir) == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (p *Page) read() {
	defer close(p.ended)
	in := bufio.NewReader(p.from)
	for {
		b, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var a answer
		if json.Unmarshal(b[:len(b)-1], &a) != nil {
			continue
		}
		p.mu.Lock()
		if ch := p.answers[a.ID]; a.ID != 0 && ch != nil {
			ch <- a
			delete(p.answers, a.ID)
		}
		switch a.Method {
		case "Runtime.exceptionThrown":
			p.problems = append(p.problems, string(a.Params))
		case "Runtime.consoleAPICalled", "Log.entryAdded":
			var e struct {
				Type  string `json:"type"`
				Entry struct {
					Level string `json:"level"`
				} `json:"entry"`
			}
			_ = json.Unmarshal(a.Params, &e)
			if e.Type == "error" || e.Type == "warning" || e.Type == "assert" || e.Entry.Level == "error" || e.Entry.Level == "warning" {
				p.problems = append(p.problems, string(a.Params))
			}
		}
		p.mu.Unlock()
	}
}

// Problems returns what the page and the browser have complained of, and forgets it.
func (p *Page) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.problems
	p.problems = nil
	return list
}

func (p *Page) call(ctx context.Context, method string, params map[string]any, result any) error {
	p.number++
	message := map[string]any{"id": p.number, "method": method}
	if params != nil {
		message["params"] = params
	}
	if p.session != "" {
		message["sessionId"] = p.session
	}
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	ch := make(chan answer, 1)
	p.mu.Lock()
	p.answers[p.number] = ch
	p.mu.Unlock()
	if _, err := p.to.Write(append(b, 0)); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case a := <-ch:
		if a.Error != nil {
			return fmt.Errorf("%s: %s", method, a.Error.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-p.ended:
		return fmt.Errorf("%s: the browser has ended", method)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// Look makes the window width by height pixels, and light or dark.
func (p *Page) Look(ctx context.Context, width, height int, scheme string) error {
	if err := p.call(ctx, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil); err != nil {
		return err
	}
	return p.call(ctx, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Go opens a URL.
func (p *Page) Go(ctx context.Context, url string) error {
	var said struct{ ErrorText string }
	err := p.call(ctx, "Page.navigate", map[string]any{"url": url}, &said)
	if err == nil && said.ErrorText != "" {
		err = errors.New(said.ErrorText)
	}
	return err
}

// Eval runs a script in the page and decodes what comes of it.
func (p *Page) Eval(ctx context.Context, script string, result any) error {
	var said struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		ExceptionDetails json.RawMessage `json:"exceptionDetails"`
	}
	if err := p.call(ctx, "Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "awaitPromise": true}, &said); err != nil {
		return err
	}
	if said.ExceptionDetails != nil {
		return fmt.Errorf("%s: %s", script, said.ExceptionDetails)
	}
	if result == nil || said.Result.Value == nil {
		return nil
	}
	return json.Unmarshal(said.Result.Value, result)
}

// Key presses a key, such as Tab or Enter.
func (p *Page) Key(ctx context.Context, key, text string, code int) error {
	for _, kind := range []string{"keyDown", "keyUp"} {
		m := map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
		if kind == "keyDown" && text != "" {
			m["text"] = text
		}
		if err := p.call(ctx, "Input.dispatchKeyEvent", m, nil); err != nil {
			return err
		}
	}
	return nil
}

// Picture returns the window as a PNG.
func (p *Page) Picture(ctx context.Context) ([]byte, error) {
	var said struct {
		Data string `json:"data"`
	}
	if err := p.call(ctx, "Page.captureScreenshot", map[string]any{"format": "png"}, &said); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(said.Data)
}
