// Package backup is the file format of backups: named files, compressed and encrypted, with what they are in front. What goes into a backup and
// where it comes back to is for others (package state) to say.
//
// A backup is one line of text, then an age file (age-encryption.org/v1, with a passphrase as its only recipient), in which is a tar archive
// compressed with gzip. The archive's first entry is the manifest, JSON; all others are regular files.
//
//	sallyport backup VERSION KIND \n
//
// VERSION is 1, KIND says what the passphrase is: passphrase, or key for a key file in base64. So the backup of a machine on which this program
// does not run any more can be opened by age alone.
package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	"sallyport/crypto/vault"
	"sallyport/state"
)

// Version is that of the format.
const Version = 1

const (
	magic        = "sallyport backup "
	manifestName = "manifest.json"
	// Bounds of what is read, in bytes.
	maxHead     = 64
	maxManifest = 1 << 20
	maxName     = 1024
	maxPadding  = 1 << 20 // zeros behind the end of a tar archive
	// MaxFiles bounds the files of a backup. A node may have 100,000 keys of Kafka producers.
	MaxFiles = 1 << 20
	// Work of scrypt, as powers of two: age's own for passphrases (256 MiB of memory, about a second), little for random keys, and the most that
	// a file may ask for (1 GiB).
	passphraseWork = 18
	keyWork        = 10
	maxWork        = 20
)

var (
	// ErrFormat reports a file that is no backup.
	ErrFormat = errors.New("backup: it is not a backup")
	// ErrVersion reports a backup of a later program.
	ErrVersion = errors.New("backup: it was written by a later version")
	// ErrSecret reports a passphrase or key that does not open a backup.
	ErrSecret = errors.New("backup: wrong passphrase or key")
	// ErrDamaged reports a backup that was cut short or changed.
	ErrDamaged = errors.New("backup: it was cut short or changed")
)

// Manifest says what a backup is.
type Manifest struct {
	// Version is that of the program that made it, in its own words.
	Program string `json:"program"`
	// Made is when the state was read.
	Made time.Time `json:"made"`
	// Node is the only node that it holds; empty if it is a whole state directory.
	Node string `json:"node,omitempty"`
	// From is where the state was.
	From string `json:"from"`
	// Elsewhere is what the state needs and the backup does not hold.
	Elsewhere []state.Elsewhere `json:"elsewhere,omitempty"`
}

// passphrase is the secret as age takes it.
func passphrase(s vault.Secret) (kind, text string, err error) {
	switch {
	case s.Random && len(s.Bytes) < vault.MinKey:
		return "", "", fmt.Errorf("%w: a key has at least %d random bytes, this one %d", vault.ErrKey, vault.MinKey, len(s.Bytes))
	case s.Random:
		return "key", base64.StdEncoding.EncodeToString(s.Bytes), nil
	case len(s.Bytes) == 0:
		return "", "", fmt.Errorf("%w: the passphrase is empty", vault.ErrKey)
	}
	return "passphrase", string(s.Bytes), nil
}

// Writer writes a backup.
type Writer struct {
	out    io.WriteCloser // encrypts
	packed *gzip.Writer
	tar    *tar.Writer
	made   time.Time
}

// NewWriter begins a backup. What it writes to w is worth nothing before Close has returned without error.
func NewWriter(w io.Writer, s vault.Secret, m Manifest) (*Writer, error) {
	kind, text, err := passphrase(s)
	if err != nil {
		return nil, err
	}
	recipient, err := age.NewScryptRecipient(text)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	recipient.SetWorkFactor(passphraseWork)
	if s.Random {
		recipient.SetWorkFactor(keyWork)
	}
	if _, err := fmt.Fprintf(w, "%s%d %s\n", magic, Version, kind); err != nil {
		return nil, err
	}
	b := &Writer{made: m.Made}
	if b.out, err = age.Encrypt(w, recipient); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	b.packed = gzip.NewWriter(b.out)
	b.tar = tar.NewWriter(b.packed)
	content, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return b, b.Add(manifestName, int64(len(content)), bytes.NewReader(content))
}

// Add adds a file with so many bytes of r.
func (b *Writer) Add(name string, size int64, r io.Reader) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: b.made, Format: tar.FormatPAX})
	if err != nil {
		return fmt.Errorf("backup: %s: %w", name, err)
	}
	if _, err := io.CopyN(b.tar, r, size); err != nil {
		return fmt.Errorf("backup: %s: %w", name, err)
	}
	return nil
}

// Close ends the backup.
func (b *Writer) Close() error {
	return errors.Join(b.tar.Close(), b.packed.Close(), b.out.Close())
}

// checkName refuses every name that could lead out of the directory that a backup is restored to, or that has two spellings.
func checkName(name string) error {
	if name == "" || len(name) > maxName || path.Clean(name) != name || path.IsAbs(name) || name == "." || name == ".." || strings.HasPrefix(name, "../") ||
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f || r == '\uFFFD' }) {
		return fmt.Errorf("%w: it has a file with the name %q", ErrFormat, name)
	}
	return nil
}

// Reader reads a backup.
type Reader struct {
	plain io.ReaderAt
	size  int64
	// Manifest says what the backup is.
	Manifest Manifest
}

// Open opens a backup of so many bytes with its secret. The error matches ErrFormat, ErrVersion, ErrSecret or ErrDamaged.
func Open(f io.ReaderAt, size int64, s vault.Secret) (*Reader, error) {
	kind, head, err := readHead(io.NewSectionReader(f, 0, size))
	if err != nil {
		return nil, err
	}
	given, text, err := passphrase(s)
	if err != nil {
		return nil, err
	}
	if given != kind {
		return nil, fmt.Errorf("%w: it was made with a %s, not a %s", ErrSecret, noun(kind), noun(given))
	}
	id, err := age.NewScryptIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	id.SetMaxWorkFactor(maxWork)
	b := &Reader{}
	b.plain, b.size, err = age.DecryptReaderAt(io.NewSectionReader(f, head, size-head), size-head, id)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, ErrSecret
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	there := false
	err = b.walk(0, func(name string, size int64, r io.Reader) error {
		if name != manifestName || size > maxManifest {
			return fmt.Errorf("%w: it does not begin with a manifest", ErrFormat)
		}
		if err := json.NewDecoder(r).Decode(&b.Manifest); err != nil {
			return fmt.Errorf("%w: its manifest: %w", ErrFormat, err)
		}
		there = true
		return errStop
	})
	if err == nil && !there {
		err = fmt.Errorf("%w: it is empty", ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func noun(kind string) string {
	if kind == "key" {
		return "key file"
	}
	return kind
}

// Kind tells without its secret what opens a backup: passphrase or key.
func Kind(f io.ReaderAt, size int64) (string, error) {
	kind, _, err := readHead(io.NewSectionReader(f, 0, size))
	return kind, err
}

func readHead(f io.Reader) (kind string, length int64, err error) {
	line, err := bufio.NewReaderSize(io.LimitReader(f, maxHead), maxHead).ReadString('\n')
	if errors.Is(err, io.EOF) && strings.HasPrefix(magic, line) {
		return "", 0, fmt.Errorf("%w: it has %d bytes", ErrDamaged, len(line))
	}
	rest, ok := strings.CutPrefix(line, magic)
	if !ok {
		return "", 0, ErrFormat
	}
	if err != nil {
		return "", 0, fmt.Errorf("%w: its first line does not end", ErrDamaged)
	}
	number, kind, _ := strings.Cut(strings.TrimSuffix(rest, "\n"), " ")
	version, err := strconv.ParseUint(number, 10, 16)
	switch {
	case err != nil || version == 0:
		return "", 0, fmt.Errorf("%w: its first line is %q", ErrFormat, strings.TrimSuffix(line, "\n"))
	case version > Version:
		return "", 0, fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, version, Version)
	case kind != "passphrase" && kind != "key":
		return "", 0, fmt.Errorf("%w: its first line is %q", ErrFormat, strings.TrimSuffix(line, "\n"))
	}
	return kind, int64(len(line)), nil
}

var errStop = errors.New("enough")

// Each calls f for every file, in order; r has its content, which f need not read. What was read before an error may be worth nothing: restore only
// what a call without one has gone through.
func (b *Reader) Each(f func(name string, size int64, r io.Reader) error) error { return b.walk(1, f) }

// walk skips so many entries. Whatever else than a regular file is there is an error, and so is what follows the archive.
func (b *Reader) walk(skip int, f func(name string, size int64, r io.Reader) error) error {
	plain := bufio.NewReaderSize(io.NewSectionReader(b.plain, 0, b.size), 64<<10)
	packed, err := gzip.NewReader(plain)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	packed.Multistream(false)
	archive := tar.NewReader(packed)
	seen := map[string]bool{}
	for n := 0; ; n++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		switch {
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%w: %q is not a regular file", ErrFormat, h.Name)
		case n > MaxFiles:
			return fmt.Errorf("%w: it has more than %d files", ErrFormat, MaxFiles)
		case seen[h.Name]:
			return fmt.Errorf("%w: %q is there twice", ErrFormat, h.Name)
		}
		if err := checkName(h.Name); err != nil {
			return err
		}
		seen[h.Name] = true
		content := &counted{r: archive}
		if n >= skip {
			if err := f(h.Name, h.Size, content); err != nil {
				if errors.Is(err, errStop) {
					return nil
				}
				return content.damage(err)
			}
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			return content.damage(err)
		}
	}
	// To the end, whose checksum gzip checks.
	if _, err := io.Copy(io.Discard, io.LimitReader(packed, maxPadding)); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if _, err := packed.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its archive", ErrDamaged)
	}
	if _, err := plain.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its archive", ErrDamaged)
	}
	return nil
}

// counted remembers that reading failed, so that it can be told from an error of who read.
type counted struct {
	r   io.Reader
	err error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

func (c *counted) damage(err error) error {
	if c.err != nil && errors.Is(err, c.err) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}
