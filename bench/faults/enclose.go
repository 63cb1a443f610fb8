package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// firstVar marks the run that is the first process of its namespace.
const firstVar = "SALLYPORT_FAULTS_FIRST"

// isFirst reports whether this is the first process of a namespace that enclose has made.
func isFirst() bool {
	first := os.Getenv(firstVar) != "" && os.Getpid() == 1
	_ = os.Unsetenv(firstVar)
	return first
}

// enclose runs this program again as the first process of a namespace, and returns its exit code. The kernel ends whatever was started there with it, in
// whichever way it ends, and it with this process.
func enclose() (int, error) {
	runtime.LockOSThread() // the thread that starts it must not end before it does
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), firstVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, ending...)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("make a process namespace: %w", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// ownProc mounts the /proc of this process's namespace.
func ownProc() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to this namespace: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}
