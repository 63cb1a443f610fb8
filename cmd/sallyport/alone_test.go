package main

import (
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// aloneMark tells a test that it runs in namespaces of its own.
const aloneMark = "SALLYPORT_TEST_ALONE"

// relayHost and authorityHost are the names that help and documents give to two machines. In alone's namespaces they are this machine.
const (
	relayHost     = "relay.example.com"
	authorityHost = "authority.example.com"
)

// alone runs the calling test again in a process with a network of its own, where every port is free and relayHost and authorityHost are this machine. It
// reports true in that process, and false in the process that waited for it, whose test is over then. Where the kernel does not
// give namespaces away, the test runs on the machine's network if the ports that it needs are free, and is skipped otherwise.
func alone(t *testing.T, ports ...string) bool {
	t.Helper()
	if os.Getenv(aloneMark) != "" {
		if err := loopbackUp(); err != nil {
			t.Fatal(err)
		}
		if err := nameThisMachine(t); err != nil {
			t.Fatal(err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		(&program{dir: dir}).killAll(t) // should the other process have ended early
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if os.Getuid() == 0 { // PostgreSQL's user passes through
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	run := "^" + t.Name() + "$"
	if asked := flag.Lookup("test.run").Value.String(); strings.Contains(asked, "/") { // a part of the test
		run = asked
	}
	cmd := exec.Command(self, "-test.run="+run, "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), aloneMark+"=1", "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		t.Logf("in a network of its own:\n%s", out)
		if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
			t.Skip("skipped there")
		}
		return false
	case errors.As(err, &exit):
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	}
	for _, port := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Skipf("no network namespace, and port %s is taken", port)
		}
		_ = l.Close()
	}
	for _, host := range []string{relayHost, authorityHost} {
		if _, err := net.LookupHost(host); err != nil {
			t.Skipf("no network namespace, and %s is nobody", host)
		}
	}
	return true
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// nameThisMachine gives this machine the names relayHost and authorityHost, in this mount namespace.
func nameThisMachine(t *testing.T) error {
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost "+relayHost+" "+authorityHost+"\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	t.Cleanup(func() { _ = unix.Unmount("/etc/hosts", unix.MNT_DETACH) })
	return unix.Mount(hosts, "/etc/hosts", "", unix.MS_BIND, "")
}
