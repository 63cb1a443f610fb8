//go:build small

package node

import "net/http"

// metricsHandler answers with the node's metrics. Those of the process and OpenMetrics are Prometheus' library's, which this program was built without.
func (n *Node) metricsHandler() http.Handler { return http.HandlerFunc(n.serveMetricsText) }
