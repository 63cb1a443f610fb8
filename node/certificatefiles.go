package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"sallyport/node/resource"
)

// lookEvery is how often the files of a certificate are looked at, when somebody connects.
const lookEvery = time.Second

// certificateFiles are a listener's certificate in two files, which may be replaced: they are read again when one of them has changed. While
// what is there cannot be used, what was read before is.
type certificateFiles struct {
	chain, key string
	log        *slog.Logger

	mu     sync.Mutex
	cert   *tls.Certificate
	seen   [2]fileMark
	looked time.Time
	failed string // why the last attempt did not bring another one
}

// fileMark tells one content of a file from another.
type fileMark struct {
	size     int64
	modified time.Time
	inode    os.FileInfo
}

func markOf(path string) (fileMark, error) {
	s, err := os.Stat(path)
	if err != nil {
		return fileMark{}, err
	}
	return fileMark{s.Size(), s.ModTime(), s}, nil
}

func (m fileMark) same(o fileMark) bool {
	return m.inode != nil && o.inode != nil && m.size == o.size && m.modified.Equal(o.modified) && os.SameFile(m.inode, o.inode)
}

// get returns the certificate; see tls.Config.GetCertificate.
func (c *certificateFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= lookEvery {
		if err := c.look(); err != nil && err.Error() != c.failed {
			c.failed = err.Error()
			c.log.Warn("the certificate stays as it is", "file", c.chain, "reason", c.failed)
		}
	}
	return c.cert, nil
}

// load reads the files.
func (c *certificateFiles) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.look()
}

// look reads the files if they are not those that were read.
func (c *certificateFiles) look() error {
	c.looked = time.Now()
	chain, err1 := markOf(c.chain)
	key, err2 := markOf(c.key)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if chain.same(c.seen[0]) && key.same(c.seen[1]) {
		return nil
	}
	pair, err := readPair(resource.Certificate{Certificate: c.chain, Key: c.key})
	if err != nil {
		return err
	}
	cert, err := tls.X509KeyPair(pair.Chain, pair.Key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.chain, c.key, err)
	}
	if c.cert != nil {
		c.log.Info("another certificate", "file", c.chain, "until", cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	c.cert, c.seen, c.failed = &cert, [2]fileMark{chain, key}, ""
	return nil
}
