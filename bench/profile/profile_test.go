package profile

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// script is what perf prints, with a frame whose name is markup.
const script = `sallyport
	ffffffff81d7f7d2 rep_movs_alternative
	ffffffff816d5e6b tcp_recvmsg
	ffffffff81000130 entry_SYSCALL_64_after_hwframe
	          4f82ad sallyport/dataplane.(*Conn).read
	          4f82ff main.main

sallyport
	          4f1000 sallyport/crypto/aead.sealVAES512
	          4f82ad sallyport/routing/secure.(*encryptor).HandleMessage

sallyport
	ffffffff81d00000 _raw_spin_unlock
	ffffffff81d00001 ep_poll
	          4f82ad runtime.netpoll

sallyport
	          4f82ad runtime.mallocgc
	          4f82ae sallyport/portal.<b>&"x"

sallyport
	          7f0000 [unknown]

sallyport
	ffffffff81d00000 tcp_ack
	ffffffff81d00000 net_rx_action
`

// TestRead: each sample has its frames, and belongs to the stage of what it does or on whose behalf.
func TestRead(t *testing.T) {
	all, err := Read(strings.NewReader(script))
	if err != nil || len(all) != 6 {
		t.Fatalf("%d samples, %v", len(all), err)
	}
	for i, want := range []string{StageCopy, StageSeal, StageWake, StageRuntime, StageOther, StageTCP} {
		if got := all[i].Stage(); got != want {
			t.Errorf("sample %d is %q, want %q", i, got, want)
		}
	}
	if n := ByStage(all); len(n) != 6 || n[StageSeal] != 1 {
		t.Errorf("%v", n)
	}
	for stage := range ByStage(all) {
		found := false
		for _, s := range Stages {
			found = found || s == stage
		}
		if !found {
			t.Errorf("%q is not in the list", stage)
		}
	}
	deep := "x\n" + strings.Repeat("\t 1 f\n", 5000)
	if all, err := Read(strings.NewReader(deep)); err != nil || len(all) != 1 || len(all[0]) != maxDepth {
		t.Errorf("%d %v", len(all), err)
	}
}

// TestFlame: the graph is well-formed whatever functions are called, every function is there, and nobody is wider than who called it.
func TestFlame(t *testing.T) {
	all, err := Read(strings.NewReader(script))
	if err != nil {
		t.Fatal(err)
	}
	for _, stacks := range [][]Stack{all, nil} {
		out := Flame("up & <down>", stacks)
		rects, text := 0, strings.Builder{}
		for d := xml.NewDecoder(strings.NewReader(string(out))); ; {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			switch e := tok.(type) {
			case xml.StartElement:
				if e.Name.Local == "rect" {
					rects++
				}
			case xml.CharData:
				text.Write(e)
			}
		}
		frames := 0
		for _, s := range stacks {
			frames += len(s)
		}
		if rects != 1+frames { // no two of these share a beginning
			t.Errorf("%d rectangles for %d frames", rects, frames)
		}
		if len(stacks) > 0 && (!strings.Contains(text.String(), "sallyport/crypto/aead.sealVAES512: 16.7 %") || !strings.Contains(text.String(), `sallyport/portal.<b>&"x"`)) {
			t.Error(text.String())
		}
	}
}

// TestMachine: the limits of this machine are figures that can be.
func TestMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	if _, err := os.Stat("/proc/cpuinfo"); err != nil {
		t.Skip("no /proc/cpuinfo")
	}
	m, err := Measure()
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]float64{"copy": m.CopyNS, "seal": m.SealNS, "loopback": m.LoopNS, "system call": m.SyscallNS, "message": m.MessageNS, "wake-up": m.WakeNS} {
		if v <= 0 || v > 1e8 {
			t.Errorf("%s: %v ns", name, v)
		}
	}
}
