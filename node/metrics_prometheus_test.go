//go:build !small

package node

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"testing"

	"sallyport/internal/exposition"
)

// TestTextIsPrometheus: what a small program writes of its metrics is what Prometheus' library writes of them.
func TestTextIsPrometheus(t *testing.T) {
	m := newMember(t)
	ours := func(h http.Handler) (list []string, kind string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		// Values may change from one scrape to the next.
		list = regexp.MustCompile(`(?m)^(# (?:HELP|TYPE) sallyport_.*|sallyport_.* )`).FindAllString(w.Body.String(), -1)
		return list, w.Header().Get("Content-Type")
	}
	eventually(t, func() error {
		text, kind := ours(http.HandlerFunc(m.serveMetricsText))
		library, _ := ours(m.metricsHandler())
		if kind != exposition.ContentType || len(text) < 200 {
			return fmt.Errorf("%d lines of %s", len(text), kind)
		}
		for i := range text {
			if i >= len(library) || text[i] != library[i] {
				return fmt.Errorf("line %d is %q, the library has %q", i, text[i], slices.Concat(library, []string{"no more"})[min(i, len(library))])
			}
		}
		if len(text) != len(library) {
			return fmt.Errorf("%d lines, the library has %d", len(text), len(library))
		}
		return nil
	})
}
