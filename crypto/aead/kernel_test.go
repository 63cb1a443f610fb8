package aead

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestKernels(t *testing.T) {
	names := Kernels()
	if names[len(names)-1] != "go" {
		t.Errorf("the last kernel is not the one that runs everywhere: %q", names)
	}
	if !slices.Contains(names, Kernel()) {
		t.Errorf("the selected kernel %q is not among %q", Kernel(), names)
	}
	t.Logf("this CPU runs %q", names)
}

func TestSelect(t *testing.T) {
	was := Kernel()
	for _, name := range []string{"", "avx", "GO", "vaes-avx5120"} {
		err := Select(name)
		if !errors.Is(err, ErrUnknownKernel) {
			t.Errorf("Select(%q): %v", name, err)
		} else if !strings.Contains(err.Error(), "go") || !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Errorf("Select(%q): %v does not name the choice", name, err)
		}
	}
	for k := kernelGo; k < kernelCount; k++ {
		if name := kernelNames[k]; !slices.Contains(Kernels(), name) {
			if err := Select(name); !errors.Is(err, ErrUnsupportedKernel) {
				t.Errorf("Select(%q): %v", name, err)
			}
		}
	}
	if Kernel() != was {
		t.Errorf("a failed Select changed the kernel to %q", Kernel())
	}
	eachKernel(t, func(t *testing.T) {
		var k Key
		k.Init(new([KeySize]byte))
		if kernelNames[k.kernel] != Kernel() {
			t.Errorf("a key got kernel %q", kernelNames[k.kernel])
		}
		name := Kernel()
		selectKernel(t, "go")
		if kernelNames[k.kernel] != name {
			t.Error("Select changed an existing key")
		}
	})
}

// TestEnvironment starts this test program again with the variable set.
func TestEnvironment(t *testing.T) {
	if os.Getenv("AEAD_TEST_CHILD") != "" {
		os.Stdout.WriteString("kernel=" + Kernel() + "\n")
		if err := SelectionError(); err != nil {
			os.Stdout.WriteString("error=" + err.Error() + "\n")
		}
		return
	}
	child := func(value string) (kernel, problem string) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestEnvironment$")
		cmd.Env = append(os.Environ(), "AEAD_TEST_CHILD=1", Env+"="+value)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if v, ok := strings.CutPrefix(line, "kernel="); ok {
				kernel = strings.TrimSpace(v)
			}
			if v, ok := strings.CutPrefix(line, "error="); ok {
				problem = strings.TrimSpace(v)
			}
		}
		return kernel, problem
	}
	fastest := Kernels()[0]
	for _, name := range Kernels() {
		if kernel, problem := child(name); kernel != name || problem != "" {
			t.Errorf("%s=%s selected %q: %s", Env, name, kernel, problem)
		}
	}
	if kernel, problem := child(""); kernel != fastest || problem != "" {
		t.Errorf("an empty %s selected %q: %s", Env, kernel, problem)
	}
	kernel, problem := child("warp")
	if kernel != fastest || !strings.Contains(problem, Env) || !strings.Contains(problem, `"warp"`) {
		t.Errorf("%s=warp selected %q: %s", Env, kernel, problem)
	}
}

// TestAssemblyForAVX2 looks for instructions in the AVX2 functions that only an AVX-512 CPU has. A CPU with AVX-512, on which
// these tests may run, would not mind them; those that the kernel is for would die.
func TestAssemblyForAVX2(t *testing.T) {
	text, err := os.ReadFile("gcm_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	foreign := regexp.MustCompile(`\b([XYZ](1[6-9]|2[0-9]|3[01])|Z[0-9]+|K[0-7])\b|^\s+(VPTERNLOG|VPXOR[DQ]|VMOVDQ[AU](8|16|32|64)|` +
		`V(BROADCAST|EXTRACT|INSERT|SHUF)I(32|64)X|VPSRAQ|VPRO[LR])`)
	legacy := regexp.MustCompile(`^\s+(AES|PCLMUL|PXOR|PSHUF|MOVO|MOVU|MOVDQ|PINSR|PADD)`)
	functions, inside := 0, false
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "TEXT ") {
			inside = strings.Contains(line, "AVX2")
			if inside {
				functions++
			}
		}
		if inside && !strings.HasPrefix(line, "TEXT ") && foreign.MatchString(line) {
			t.Errorf("line %d needs AVX-512: %s", i+1, line)
		}
		if legacy.MatchString(line) {
			t.Errorf("line %d mixes SSE with AVX: %s", i+1, line)
		}
	}
	if functions != 3 {
		t.Errorf("%d AVX2 functions, want 3", functions)
	}
}
