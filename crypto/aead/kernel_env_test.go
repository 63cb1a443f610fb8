package aead

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestKernelOfTheEnvironment: the variable chooses the kernel; a name that is none is reported by whoever asks, and the fastest is used.
func TestKernelOfTheEnvironment(t *testing.T) {
	if os.Getenv("AEAD_TEST_CHILD") != "" {
		os.Stdout.WriteString("kernel " + Kernel() + "\n")
		if err := SelectionError(); err != nil {
			os.Stdout.WriteString("error " + err.Error() + "\n")
		}
		return
	}
	fast := kernelNames[fastest()]
	for value, want := range map[string]string{"go": "kernel go\n", "": "kernel " + fast + "\n", "nonsense": "kernel " + fast + "\nerror " + Env + ": "} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKernelOfTheEnvironment$")
		cmd.Env = append(os.Environ(), "AEAD_TEST_CHILD=1", Env+"="+value)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || !strings.HasPrefix(value, "n") && strings.Contains(string(out), "error") {
			t.Errorf("%s=%s: %s, %v", Env, value, out, err)
		}
	}
}
