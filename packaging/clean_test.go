package packaging

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCleanDebian installs the package in Debian roots of their own, each as clean as debootstrap makes it, and has scripts there show what holds: the
// story of two companies, an upgrade while a connection is open, removal and purge; without a service manager, and with systemd as process 1.
func TestCleanDebian(t *testing.T) {
	archive := os.Getenv("DEBIAN_ROOT")
	if archive == "" {
		t.Skip("DEBIAN_ROOT names no archive of a Debian root: make test-operate makes one")
	}
	if os.Getuid() != 0 {
		t.Skip("not root")
	}
	dir := t.TempDir()
	old, next := packageOf(t, dir, "v0.2.0", "one"), packageOf(t, dir, "v0.2.1", "two")
	t.Run("lintian", func(t *testing.T) {
		lintian, err := exec.LookPath("lintian")
		if err != nil {
			t.Skip("lintian is not installed")
		}
		out, err := exec.Command(lintian, "--fail-on", "error", old).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		t.Logf("no errors; %d warnings", strings.Count(string(out), "\nW: "))
	})
	t.Run("without systemd", func(t *testing.T) {
		root := debian(t, archive, old, next)
		// Namespaces of its own: no network but loopback, and everything that was started ends with the script.
		cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec",
			`mount -t proc proc "$0/proc"; mount -t sysfs sysfs "$0/sys"; mount --rbind /dev "$0/dev"; mount -t tmpfs tmpfs "$0/run"; exec chroot "$0" sh /packages/chroot.sh`, root)
		shows(t, cmd, 8)
	})
	t.Run("with systemd", func(t *testing.T) {
		nspawn, err := exec.LookPath("systemd-nspawn")
		if err != nil {
			t.Skip("systemd-nspawn (package systemd-container) is not installed")
		}
		shows(t, enter(t, nspawn, debian(t, archive, old, next), "sh", "/packages/boot.sh"), 9)
	})
}

// packageOf makes the deb with a version and a revision.
func packageOf(t *testing.T, dir, version, revision string) string {
	t.Helper()
	dist := filepath.Join(dir, revision)
	cmd := exec.Command("make", "-C", "..", "packages", "VERSION="+version, "REVISION="+revision, "DIST="+dist, "PROGRAM="+filepath.Join(dist, "sallyport"), "DEBEMAIL=maintainers@example.org")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make packages: %v: %s", err, out)
	}
	made, err := filepath.Glob(filepath.Join(dist, "*.deb"))
	if err != nil || len(made) != 1 {
		t.Fatalf("make packages made %v: %v", made, err)
	}
	return made[0]
}

// debian unpacks a root and puts the two packages and the scripts into it.
func debian(t *testing.T, archive, old, next string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	scripts, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", `mkdir "$1"; tar -C "$1" -xf "$2"; mkdir "$1/packages"; cp "$3" "$1/packages/old.deb"; cp "$4" "$1/packages/new.deb"; cp "$5"/*.sh "$5"/*.py "$1/packages"`,
		"sh", root, archive, old, next, scripts)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("a Debian root: %v: %s", err, out)
	}
	return root
}

// shows runs a script, logs each "shown:" of its output, and wants as many as it has.
func shows(t *testing.T, cmd *exec.Cmd, points int) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	n := 0
	for _, line := range strings.Split(string(out), "\n") {
		if point, ok := strings.CutPrefix(line, "shown: "); ok {
			t.Log(point)
			n++
		}
	}
	if err != nil || n != points {
		t.Errorf("%d of %d points were shown: %v\n%s", n, points, err, out)
	}
}

// enter boots a root with systemd as process 1 and returns a command that will run in it. The machine ends with the test.
func enter(t *testing.T, nspawn, root string, args ...string) *exec.Cmd {
	t.Helper()
	var console bytes.Buffer
	name := fmt.Sprintf("sallyport-test-%d", os.Getpid())
	// There is no machined to register with, and no manager outside that could make a unit for it.
	machine := exec.Command(nspawn, "--quiet", "--directory="+root, "--machine="+name, "--private-network", "--boot", "--register=no", "--keep-unit", "--console=pipe")
	machine.Stdout, machine.Stderr = &console, &console
	machine.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := machine.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- machine.Wait() }()
	leader := 0
	t.Cleanup(func() {
		if leader != 0 {
			_ = syscall.Kill(leader, syscall.SIGKILL) // process 1: all others of the machine end with it
		}
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = machine.Process.Kill()
			<-ended
		}
		propagate := "/run/systemd/nspawn/propagate/" + name
		_ = syscall.Unmount(propagate, syscall.MNT_DETACH)
		_ = os.Remove(propagate)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		select {
		case err := <-ended:
			ended <- err
			t.Skipf("systemd-nspawn cannot boot a root here: %v: %s", err, console.String())
		case <-ctx.Done():
			t.Fatalf("the machine does not come up: %s", console.String())
		case <-time.After(200 * time.Millisecond):
		}
		pid := strconv.Itoa(machine.Process.Pid)
		for _, f := range strings.Fields(read("/proc/" + pid + "/task/" + pid + "/children")) {
			if n, err := strconv.Atoi(f); err == nil && strings.TrimSpace(read("/proc/"+f+"/comm")) == "systemd" {
				leader = n
			}
		}
		if leader == 0 {
			continue
		}
		in := func(args ...string) *exec.Cmd {
			return exec.Command("nsenter", append([]string{"--target", strconv.Itoa(leader), "--all", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, args...)...)
		}
		out, _ := in("systemctl", "is-system-running").Output()
		if s := strings.TrimSpace(string(out)); s == "running" || s == "degraded" {
			return in(args...)
		}
	}
}

func read(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}
