package main

import (
	"context"
	"os"
	"regexp"
	"strings"
	"time"
)

// about says what each path is made of, and why it is there.
var about = map[string]string{
	pathDirect:    "nothing: the client talks to the server",
	pathPlain:     "three haproxy in a row, mode tcp, no encryption: what three processes cost that only pass bytes on",
	pathTLS:       "stunnel at both ends, a haproxy between them that decrypts and encrypts again: what one builds of stock parts",
	pathSSH:       "ssh -L through a jump host (ssh -J), two sshd, aes256-gcm: what is there already",
	pathSpiped:    "spiped at both ends, one hop: two processes that encrypt with a key that both know, for each service",
	pathRathole:   "rathole with Noise, one hop: a server where clients connect, a client beside the servers that connects to it",
	pathRef:       "the reference: authority, relay, enrolled members, default policies",
	pathRefOpen:   "the reference without an authority",
	pathOurs:      "Sallyport: the same commands, three nodes, three channels, default policies",
	pathOursOpen:  "Sallyport without an authority: one channel from end to end through a relay",
	pathOurs1ch:   "Sallyport with one channel between two nodes, no relay: to compare with programs of one hop",
	pathNoHold:    "ours with connections that do not outlive their path",
	pathNoRecords: "ours without records of connections",
	pathOursWS:    "ours with WebSocket between members and relay",
	pathOursOTLS:  "ours with TLS between members and relay",
	pathOursWSS:   "ours with WebSocket over TLS between members and relay",
	pathBefore:    "another build of ours",
}

// versionArgs are what makes a program say what it is.
var versionArgs = map[string][]string{
	"haproxy": {"-v"}, "stunnel": {"-version"}, "ssh": {"-V"}, "spiped": {"-v"}, "rathole": {"--version"}, "redis-server": {"--version"}, "nginx": {"-v"}, "iperf3": {"--version"}, "ab": {"-V"}, "redis-benchmark": {"--version"},
}

// describe notes the machine's load, what the paths are, and the versions of what takes part.
func (b *bench) describe(ctx context.Context, reference, ours string) {
	r := b.result
	r.Load, r.About, r.Versions = loadAverage(), map[string]string{}, map[string]string{}
	version := func(name, program string, args ...string) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if text := versionLine(ctx, b.dir, program, args...); text != "" {
			r.Versions[name] = text
		}
	}
	tools := map[string]bool{}
	for _, m := range b.paths {
		r.About[m.name] = about[m.name]
		switch {
		case strings.HasPrefix(m.name, pathRef):
			version("reference", reference, "--version")
		case strings.HasPrefix(m.name, pathOurs):
			version("sallyport", ours, "--version")
		}
		for _, t := range m.needs {
			tools[t.program] = true
		}
	}
	for _, p := range b.probes {
		for _, t := range p.needs {
			tools[t.program] = true
		}
	}
	for program := range tools {
		if args, ok := versionArgs[program]; ok {
			if path, err := lookTool(program); err == nil {
				version(program, path, args...)
			}
		}
	}
	if bin, err := pgBin(); err == nil && tools[toolPG.program] {
		version("postgres", bin+"/postgres", "--version")
	}
}

// colours are escape sequences of terminals, which some print to files too.
var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// versionLine returns the first line with a figure that a program prints on either output; some say their version on the error output, or something else first. Empty if it fails.
func versionLine(ctx context.Context, dir, program string, args ...string) string {
	out, err := run(ctx, dir, childEnv(dir), "/bin/sh", append([]string{"-c", `exec "$0" "$@" 2>&1`, program}, args...)...)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(colours.ReplaceAllString(out, "")) {
		if strings.ContainsAny(line, "0123456789") {
			return abbreviate(strings.TrimSpace(line), 120)
		}
	}
	return ""
}

// loadAverage is that of the last minute.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
