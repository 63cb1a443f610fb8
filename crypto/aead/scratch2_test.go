package aead

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestMax(t *testing.T) {
	if os.Getenv("MAX") == "" {
		t.Skip()
	}
	for _, op := range []string{"seal", "open"} {
		for _, n := range []int{64,1024, 16384} {
			best := 1e9
			reps := 1 + 60000/(n+200)
			var k Key
			Select(os.Getenv("MAX"))
			k.Init(new([32]byte))
			buf := make([]byte, n+16)
			out := make([]byte, n+16)
			var nonce [12]byte
			k.Seal(buf, &nonce, buf[:n], nil)
			for r := 0; r < 2000; r++ {
				s := time.Now()
				for i := 0; i < reps; i++ {
					if op == "seal" {
						k.Seal(out, &nonce, out[:n], nil)
					} else {
						k.Open(out, &nonce, buf, nil)
					}
				}
				d := float64(time.Since(s).Nanoseconds()) / float64(reps)
				if d < best {
					best = d
				}
			}
			fmt.Printf("%s %d %.1fns %.2fGB/s; ", op, n, best, float64(n)/best)
		}
	}
	fmt.Println()
}
