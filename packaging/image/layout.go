package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Media types of the image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// user is whom the program runs as, by number, as Kubernetes wants it for runAsNonRoot. It is nobody of the machine outside.
const (
	user  = 65532
	state = "/var/lib/sallyport"
)

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

var platforms = map[string]platform{
	"amd64":   {"amd64", "linux", ""},
	"arm64":   {"arm64", "linux", "v8"},
	"armv7":   {"arm", "linux", "v7"},
	"riscv64": {"riscv64", "linux", ""},
}

type program struct {
	platform platform
	bytes    []byte
}

type image struct {
	version, revision string
	created           time.Time
	notices           []byte // may be nil
	programs          []program
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type config struct {
	Created time.Time `json:"created"`
	platform
	Config runConfig `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

type runConfig struct {
	User       string
	Env        []string
	Entrypoint []string
	Cmd        []string
	Volumes    map[string]struct{}
	WorkingDir string
	Labels     map[string]string
	StopSignal string
	// Healthcheck is Docker's, which the specification lets be: the times are in nanoseconds.
	Healthcheck healthcheck
}

type healthcheck struct {
	Test                           []string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

// archive returns the image layout with everything in an order that does not change.
func (i *image) archive() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	put := func(name string, b []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(b)), ModTime: i.created}); err != nil {
			return err
		}
		_, err := w.Write(b)
		return err
	}
	blob := func(mediaType string, b []byte) (descriptor, error) {
		d := descriptor{MediaType: mediaType, Digest: digest(b), Size: len(b)}
		return d, put("blobs/sha256/"+d.Digest[len("sha256:"):], b)
	}
	labels := map[string]string{
		"org.opencontainers.image.title":    "sallyport",
		"org.opencontainers.image.version":  i.version,
		"org.opencontainers.image.revision": i.revision,
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.created":  i.created.Format(time.RFC3339),
	}
	if err := put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return nil, err
	}
	all := index{2, typeIndex, nil}
	for _, p := range i.programs {
		d, err := i.one(p, labels, blob)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.platform.Architecture, err)
		}
		all.Manifests = append(all.Manifests, d)
	}
	// Programs that load one image want one descriptor with a name.
	top := index{2, typeIndex, all.Manifests}
	if len(all.Manifests) > 1 {
		b, err := json.Marshal(all)
		if err != nil {
			return nil, err
		}
		d, err := blob(typeIndex, b)
		if err != nil {
			return nil, err
		}
		top.Manifests = []descriptor{d}
	}
	top.Manifests[0].Annotations = map[string]string{"org.opencontainers.image.ref.name": "sallyport:" + i.version}
	b, err := json.Marshal(top)
	if err != nil {
		return nil, err
	}
	if err := put("index.json", b); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// one writes layer, configuration and manifest for one platform.
func (i *image) one(p program, labels map[string]string, blob func(string, []byte) (descriptor, error)) (descriptor, error) {
	plain, err := i.layer(p.bytes)
	if err != nil {
		return descriptor{}, err
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return descriptor{}, err
	}
	if _, err := z.Write(plain); err != nil {
		return descriptor{}, err
	}
	if err := z.Close(); err != nil {
		return descriptor{}, err
	}
	layer, err := blob(typeLayer, packed.Bytes())
	if err != nil {
		return descriptor{}, err
	}
	c := config{Created: i.created, platform: p.platform, History: []history{{i.created, "packaging/image"}}, Config: runConfig{
		User:       fmt.Sprintf("%d:%d", user, user),
		Env:        []string{"PATH=/usr/bin", "HOME=" + state, "SALLYPORT_HOME=" + state},
		Entrypoint: []string{"/usr/bin/sallyport"},
		Cmd:        []string{"help"},
		Volumes:    map[string]struct{}{state: {}},
		WorkingDir: state,
		Labels:     labels,
		StopSignal: "SIGTERM",
		Healthcheck: healthcheck{Test: []string{"CMD", "/usr/bin/sallyport", "node", "ready"}, Interval: 15 * time.Second, Timeout: 10 * time.Second,
			StartPeriod: 30 * time.Second, Retries: 3},
	}}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{digest(plain)}
	b, err := json.Marshal(c)
	if err != nil {
		return descriptor{}, err
	}
	cd, err := blob(typeConfig, b)
	if err != nil {
		return descriptor{}, err
	}
	if b, err = json.Marshal(manifest{2, typeManifest, cd, []descriptor{layer}, labels}); err != nil {
		return descriptor{}, err
	}
	d, err := blob(typeManifest, b)
	d.Platform = &p.platform
	return d, err
}

// layer is the file system: the program, its user, a directory for its state, and the mount points that a root that cannot be written must have.
func (i *image) layer(program []byte) ([]byte, error) {
	type entry struct {
		name  string
		mode  int64
		owner int
		bytes []byte
	}
	passwd := fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\nsallyport:x:%d:%d:Sallyport nodes:%s:/sbin/nologin\n", user, user, state)
	group := fmt.Sprintf("root:x:0:\nsallyport:x:%d:\n", user)
	entries := []entry{
		{"dev/", 0o755, 0, nil},
		{"etc/", 0o755, 0, nil},
		{"etc/group", 0o644, 0, []byte(group)},
		{"etc/passwd", 0o644, 0, []byte(passwd)},
		{"etc/sallyport/", 0o755, 0, nil},
		{"etc/ssl/", 0o755, 0, nil},
		{"etc/ssl/certs/", 0o755, 0, nil},
		{"proc/", 0o755, 0, nil},
		{"sys/", 0o755, 0, nil},
		{"tmp/", 0o1777, 0, nil},
		{"usr/", 0o755, 0, nil},
		{"usr/bin/", 0o755, 0, nil},
		{"usr/bin/sallyport", 0o755, 0, program},
		{"usr/share/", 0o755, 0, nil},
		{"usr/share/doc/", 0o755, 0, nil},
		{"usr/share/doc/sallyport/", 0o755, 0, nil},
		{"usr/share/doc/sallyport/THIRD-PARTY", 0o644, 0, i.notices},
		{"var/", 0o755, 0, nil},
		{"var/lib/", 0o755, 0, nil},
		{state[1:] + "/", 0o700, user, nil},
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := tar.Header{Name: e.name, Typeflag: tar.TypeReg, Mode: e.mode, Uid: e.owner, Gid: e.owner, Size: int64(len(e.bytes)), ModTime: i.created, Format: tar.FormatUSTAR}
		if e.name[len(e.name)-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.bytes); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

func digest(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}
