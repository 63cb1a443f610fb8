// Command image writes an OCI image as an archive (an image layout in a tar file), which docker load, podman load and skopeo read. It has the program
// and nothing else: no shell, no packages. Nobody has to run a daemon for it, and the same programs make the same bytes.
//
//	go run ./packaging/image --version v0.2.0 --out sallyport.oci.tar amd64=dist/sallyport-linux-amd64 armv7=dist/sallyport-linux-armv7
//
// The format is that of https://github.com/opencontainers/image-spec, version 1.1.
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	version := flag.String("version", "", "the version that the image is labelled with")
	revision := flag.String("revision", "", "the revision of the source")
	out := flag.String("out", "", "the archive to write")
	notices := flag.String("notices", "", "a file with the licences of what is in the program")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: image --out FILE [flags] PLATFORM=PROGRAM...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*out, *version, *revision, *notices, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(out, version, revision, notices string, args []string) error {
	if out == "" || len(args) == 0 {
		return fmt.Errorf("--out FILE and at least one PLATFORM=PROGRAM are needed")
	}
	i := image{version: version, revision: revision}
	if s := os.Getenv("SOURCE_DATE_EPOCH"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		i.created = time.Unix(n, 0).UTC()
	} else {
		i.created = time.Unix(0, 0).UTC()
	}
	if notices != "" {
		b, err := os.ReadFile(notices)
		if err != nil {
			return err
		}
		i.notices = b
	}
	for _, a := range args {
		name, path, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("%q is not PLATFORM=PROGRAM", a)
		}
		p, ok := platforms[name]
		if !ok {
			return fmt.Errorf("%q is no platform: amd64, arm64, armv7 or riscv64", name)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		i.programs = append(i.programs, program{p, b})
	}
	b, err := i.archive()
	if err != nil {
		return err
	}
	return os.WriteFile(out, b, 0o644)
}
