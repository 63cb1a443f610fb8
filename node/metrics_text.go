package node

import (
	"net/http"

	"sallyport/internal/exposition"
)

// serveMetricsText answers with the node's metrics alone, in the text format.
func (n *Node) serveMetricsText(w http.ResponseWriter, _ *http.Request) {
	var text exposition.Text
	collector{n}.collect(&text)
	w.Header().Set("Content-Type", exposition.ContentType)
	_, _ = text.WriteTo(w) // who asked has gone
}
