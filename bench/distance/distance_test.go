package main

import (
	"strings"
	"testing"
	"time"
)

func TestSNMP(t *testing.T) {
	table := "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm RetransSegs InErrs\nTcp: 1 4711 0\nUdp: A\nUdp: 1\n"
	if got := snmpTCP(table, "RetransSegs"); got != 4711 {
		t.Errorf("%v", got)
	}
	if got := snmpTCP(table, "Nothing"); got != 0 {
		t.Errorf("%v", got)
	}
}

func TestLegs(t *testing.T) {
	for _, sc := range scenarios() {
		if sum := 2 * (sc.leg(0).Delay + sc.leg(1).Delay); sum != sc.trip {
			t.Errorf("%s: the legs make %v", sc.name, sum)
		}
	}
}

func TestFirstAbove(t *testing.T) {
	var totals []float64
	for k := range 100 { // nothing for 0.4 s, then 1 MB/s in bursts of one round trip
		totals = append(totals, float64(max(k-20, 0)/5)*100_000)
	}
	if got := firstAbove(totals, 500_000, 100*time.Millisecond); got < 480 || got > 560 {
		t.Errorf("half of the rate after %v ms", got)
	}
	if got := firstAbove(totals, 5e6, 100*time.Millisecond); got != 0 {
		t.Errorf("a rate that was never reached is reached after %v ms", got)
	}
}

func TestTable(t *testing.T) {
	tab := &table{Paths: []string{pathPlain, pathOurs}}
	sc := scenarios()[0]
	for _, v := range []float64{100, 300, 200} {
		tab.addFigures(sc, "1 down", pathPlain, figures{Down: v, P99: 10, Fair: 1})
	}
	tab.addFigures(sc, "1 down", pathOurs, figures{Down: 150, P99: 20, Fair: 1})
	var b strings.Builder
	tab.markdown(&b)
	for _, want := range []string{"| 1 ms | 1 down | down, Mbit/s | 200 | 150 | 0.75 |", "| request p99, ms | 10.0 | 20.0 | 0.50 |"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if err := tab.check(); err != nil {
		t.Error(err)
	}
	tab.addFigures(sc, "8 down", pathPlain, figures{Down: 500})
	if err := tab.check(); err == nil || !strings.Contains(err.Error(), "not measured") {
		t.Errorf("a load that ours does not carry: %v", err)
	}
	tab.addFigures(sc, "8 down", pathOurs, figures{Down: 200})
	if err := tab.check(); err == nil || !strings.Contains(err.Error(), "0.40") {
		t.Errorf("a load that is far behind: %v", err)
	}
	if !strings.Contains(tab.svg(), "polyline") {
		t.Error("nothing is drawn")
	}
}

func TestJainAndPercentile(t *testing.T) {
	if v := jain([]float64{1, 1, 1, 1}); v != 1 {
		t.Errorf("%v", v)
	}
	if v := jain([]float64{4, 0, 0, 0}); v != 0.25 {
		t.Errorf("%v", v)
	}
	list := []time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond, 100 * time.Millisecond}
	if v := percentile(list, 0.99); v != 100 {
		t.Errorf("%v", v)
	}
}
