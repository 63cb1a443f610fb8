package authority_test

import (
	"path/filepath"
	"testing"

	"sallyport/authority"
	"sallyport/internal/storetest"
)

// TestEmbeddedStore: the embedded store passes the tests of all stores.
func TestEmbeddedStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB) authority.Store {
		s, err := authority.OpenStore(filepath.Join(t.TempDir(), "authority.db"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func BenchmarkEmbeddedStore(b *testing.B) {
	storetest.Benchmark(b, func(t testing.TB) authority.Database {
		db, err := authority.OpenDatabase(filepath.Join(t.TempDir(), "authority.db"))
		if err != nil {
			t.Fatal(err)
		}
		return db
	})
}
