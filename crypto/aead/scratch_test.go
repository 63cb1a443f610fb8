package aead

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestMin(t *testing.T) {
	if os.Getenv("MIN") == "" {
		t.Skip()
	}
	names := Kernels()
	for _, op := range []string{"seal", "open"} {
		for _, n := range []int{16, 64, 256, 512, 1024, 1400, 4096, 16384, 49152, 131072} {
			best := make([]float64, len(names))
			reps := 1 + 60000/(n+200)
			keys := make([]Key, len(names))
			for j, name := range names {
				Select(name)
				keys[j].Init(new([32]byte))
			}
			buf := make([]byte, n+16)
			out := make([]byte, n+16)
			var nonce [12]byte
			keys[0].Seal(buf, &nonce, buf[:n], nil)
			for r := 0; r < 400; r++ {
				for j := range names {
					k := &keys[j]
					s := time.Now()
					for i := 0; i < reps; i++ {
						if op == "seal" {
							k.Seal(out, &nonce, out[:n], nil)
						} else {
							k.Open(out, &nonce, buf, nil)
						}
					}
					d := float64(time.Since(s).Nanoseconds()) / float64(reps)
					if r == 0 || d < best[j] {
						best[j] = d
					}
				}
			}
			fmt.Printf("%s %6d", op, n)
			for j, name := range names {
				fmt.Printf("  %s %8.1fns %5.2fGB/s x%.2f", name, best[j], float64(n)/best[j], best[len(names)-1]/best[j])
			}
			fmt.Println()
		}
	}
}
