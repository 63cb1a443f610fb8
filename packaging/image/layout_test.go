package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestImage: the same programs make the same bytes, every digest and size is that of the blob, and the user of the image can change nothing in it but its
// state directory.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	var made [2][]byte
	for n := range made {
		program := filepath.Join(dir, "program"+strconv.Itoa(n)) // the path is not part of the image
		must(t, os.WriteFile(program, []byte("a program"), 0o600))
		out := filepath.Join(dir, "image"+strconv.Itoa(n))
		must(t, run(out, "v1.2.3", "abc", "", []string{"amd64=" + program, "armv7=" + program}))
		b, err := os.ReadFile(out)
		must(t, err)
		made[n] = b
	}
	if !bytes.Equal(made[0], made[1]) {
		t.Fatal("the same program made other bytes")
	}
	for _, platform := range []string{"amd64", "arm"} {
		c, files := unpack(t, made[0], platform)
		if c.Config.User != "65532:65532" || c.OS != "linux" || c.Config.Labels["org.opencontainers.image.version"] != "v1.2.3" {
			t.Errorf("%s: configuration %+v", platform, c)
		}
		found := false
		for _, f := range files {
			found = found || f.Name == "usr/bin/sallyport" && string(f.bytes) == "a program" && f.Mode == 0o755
			switch {
			case f.Uid == 65532 && f.Name != "var/lib/sallyport/":
				t.Errorf("%s: %s belongs to the user", platform, f.Name)
			case f.Uid != 65532 && f.Mode&0o022 != 0 && f.Name != "tmp/":
				t.Errorf("%s: %s can be written by others: %o", platform, f.Name, f.Mode)
			}
		}
		if !found {
			t.Errorf("%s: no program", platform)
		}
	}
	for _, args := range [][]string{{}, {"amd64"}, {"s390x=/dev/null"}, {"amd64=" + dir + "/none"}} {
		if err := run(filepath.Join(dir, "x"), "", "", "", args); err == nil {
			t.Errorf("%v made an image", args)
		}
	}
}

// TestImageRuns: what is in the image runs without root in a root that cannot be written, and its health check says whether it works.
func TestImageRuns(t *testing.T) {
	path := os.Getenv("IMAGE")
	if path == "" || os.Getuid() != 0 {
		t.Skip("IMAGE names no image, or this is not root: make test-operate does both")
	}
	b, err := os.ReadFile(path)
	must(t, err)
	c, files := unpack(t, b, "amd64")
	root := filepath.Join(t.TempDir(), "root")
	must(t, os.Mkdir(root, 0o755))
	for _, f := range files {
		at := filepath.Join(root, f.Name)
		if f.Typeflag == tar.TypeDir {
			must(t, os.Mkdir(at, 0o700))
		} else {
			must(t, os.WriteFile(at, f.bytes, 0o600))
		}
		must(t, os.Chown(at, f.Uid, f.Gid))
		must(t, syscall.Chmod(at, uint32(f.Mode)))
	}
	// A node of the image, without a network, and its health check before and after.
	script := `
log=$(dirname "$0")/log
mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"
mount -t proc proc "$0/proc"; mount -t tmpfs -o uid=65532,gid=65532,mode=700 tmpfs "$0/var/lib/sallyport"
ip link set lo up
in="env -i $ENVIRONMENT $(command -v chroot) --userspec=$USERSPEC $0"
$in $HEALTH && { echo "healthy before it runs"; exit 1; }
$in $ENTRYPOINT node create n1 --foreground >"$log" 2>&1 &
node=$!
n=0
until $in $HEALTH; do n=$((n + 1)); [ $n -lt 120 ] || { cat "$log"; exit 1; }; sleep 0.5; done
$in $ENTRYPOINT node show n1 --output json | grep -q '"running"'
grep -q '^Uid:.65532' /proc/$node/status
! touch "$0/tmp/x" 2>/dev/null || { echo "the root can be written"; exit 1; }
kill -TERM $node
wait $node`
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-euc", script, root)
	cmd.Env = append(os.Environ(), "ENVIRONMENT="+strings.Join(c.Config.Env, " "), "USERSPEC="+c.Config.User, "ENTRYPOINT="+strings.Join(c.Config.Entrypoint, " "),
		"HEALTH="+strings.Join(c.Config.Healthcheck.Test[1:], " "))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%d KiB, %d files; runs as %s with a root that cannot be written, and its health check holds", len(b)>>10, len(files), c.Config.User)
}

type file struct {
	tar.Header
	bytes []byte
}

// unpack reads an archive as programs that load images do, checks every digest and size on the way, and returns one platform's configuration and files.
func unpack(t *testing.T, archive []byte, architecture string) (config, []file) {
	t.Helper()
	blobs := map[string][]byte{}
	for _, f := range untar(t, archive) {
		blobs[f.Name] = f.bytes
	}
	get := func(d descriptor) []byte {
		b, ok := blobs["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if !ok || digest(b) != d.Digest || len(b) != d.Size {
			t.Fatalf("blob %s: %d bytes of %d, digest %s", d.Digest, len(b), d.Size, digest(b))
		}
		return b
	}
	if string(blobs["oci-layout"]) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Fatalf("oci-layout: %s", blobs["oci-layout"])
	}
	var x index
	must(t, json.Unmarshal(blobs["index.json"], &x))
	if len(x.Manifests) != 1 {
		t.Fatalf("index.json has %d entries", len(x.Manifests))
	}
	if x.Manifests[0].MediaType == typeIndex {
		must(t, json.Unmarshal(get(x.Manifests[0]), &x))
	}
	for _, d := range x.Manifests {
		if d.Platform == nil || d.Platform.Architecture != architecture {
			continue
		}
		var m manifest
		must(t, json.Unmarshal(get(d), &m))
		var c config
		must(t, json.Unmarshal(get(m.Config), &c))
		if len(m.Layers) != 1 || len(c.RootFS.DiffIDs) != 1 {
			t.Fatalf("%d layers, %d differences", len(m.Layers), len(c.RootFS.DiffIDs))
		}
		z, err := gzip.NewReader(bytes.NewReader(get(m.Layers[0])))
		must(t, err)
		plain, err := io.ReadAll(z)
		must(t, err)
		if digest(plain) != c.RootFS.DiffIDs[0] {
			t.Fatal("the layer is not the one of the configuration")
		}
		return c, untar(t, plain)
	}
	t.Fatalf("no image for %s", architecture)
	return config{}, nil
}

func untar(t *testing.T, b []byte) (files []file) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		files = append(files, file{*h, content})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
