//go:build !small

package node

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sallyport/internal/exposition"
	"sallyport/internal/histogram"
)

// metricsHandler answers with the node's metrics and those of its process.
func (n *Node) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(n.Collector(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Collector returns the node's metrics for a Prometheus registry.
func (n *Node) Collector() prometheus.Collector { return &promCollector{from: collector{n}} }

// promCollector is a node's collector for Prometheus' library.
type promCollector struct {
	from  collector
	known sync.Map // *prometheus.Desc by *exposition.Metric
}

// Describe implements prometheus.Collector: the set of metrics is fixed, so none is announced one by one.
func (p *promCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (p *promCollector) Collect(out chan<- prometheus.Metric) { p.from.collect(promSink{p, out}) }

func (p *promCollector) desc(m *exposition.Metric) *prometheus.Desc {
	d, ok := p.known.Load(m)
	if !ok {
		d, _ = p.known.LoadOrStore(m, prometheus.NewDesc(m.Name, m.Help, m.Labels, nil))
	}
	return d.(*prometheus.Desc)
}

// promSink hands values to the library.
type promSink struct {
	*promCollector
	out chan<- prometheus.Metric
}

// Value implements exposition.Sink.
func (s promSink) Value(m *exposition.Metric, k exposition.Kind, v float64, labels ...string) {
	kind := prometheus.GaugeValue
	if k == exposition.Counter {
		kind = prometheus.CounterValue
	}
	s.out <- prometheus.MustNewConstMetric(s.desc(m), kind, v, labels...)
}

// Histogram implements exposition.Sink, with the connection that took long as an exemplar.
func (s promSink) Histogram(m *exposition.Metric, h *histogram.Histogram, labels ...string) {
	n, sum, buckets := h.Counts()
	metric := prometheus.MustNewConstHistogram(s.desc(m), n, sum, buckets, labels...)
	if e := h.Exemplar(); e != nil {
		with, err := prometheus.NewMetricWithExemplars(metric, prometheus.Exemplar{Value: e.Value.Seconds(), Labels: prometheus.Labels{"id": e.ID}, Timestamp: e.At})
		if err == nil {
			metric = with
		}
	}
	s.out <- metric
}
