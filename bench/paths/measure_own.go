package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// measureMemory reads the nodes' memory idle and with many idle connections open.
func measureMemory(ctx context.Context, b *bench, i *instance) (sample, error) {
	// What only starting needed goes back first: ours gives it back when it is two seconds old.
	if err := sleep(ctx, time.Until(i.started.Add(b.d.rest))); err != nil {
		return nil, err
	}
	idle, err := memory(i.nodes())
	if err != nil {
		return nil, err
	}
	conns, err := openIdle(ctx, i.front[svcUtil], b.d.idle)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, b.d.settle); err != nil {
		return nil, err
	}
	with, err := memory(i.nodes())
	if err != nil {
		return nil, err
	}
	// A connection has no pages of programs, which come and go by megabytes.
	return sample{"rss_idle": idle.rss / 1024, "pss_idle": idle.pss / 1024, "kib_conn": (with.own - idle.own) / float64(b.d.idle)}, nil
}

// measureBulk compares the 99th percentile of PING alone with that beside a bulk
// transfer through the same nodes.
func measureBulk(ctx context.Context, b *bench, i *instance) (sample, error) {
	port := i.front[svcRedis]
	alone, err := pingFor(ctx, port, b.d.load)
	if err != nil {
		return nil, err
	}
	bulkCtx, endBulk := context.WithCancel(ctx)
	defer endBulk()
	server, err := b.iperfServer(ctx)
	if err != nil {
		return nil, err
	}
	defer server()
	// The transfer lasts longer than the pings, and is cut off after them.
	seconds := int(b.d.load.Seconds()*3) + 10
	failed := make(chan error, 1)
	go func() {
		_, err := b.tool(bulkCtx, time.Duration(seconds+15)*time.Second, "iperf3", "-c", "127.0.0.1",
			"-p", fmt.Sprint(i.front[svcIperf]), "-t", fmt.Sprint(seconds), "--connect-timeout", "5000")
		failed <- err
	}()
	err = sleep(ctx, time.Second)
	var beside float64
	if err == nil {
		beside, err = pingFor(ctx, port, b.d.load)
	}
	select {
	case bulkErr := <-failed:
		return nil, errors.Join(errors.New("the bulk transfer ended too early"), bulkErr, err)
	default:
	}
	endBulk()
	<-failed
	if err != nil {
		return nil, err
	}
	return sample{"p99_alone": alone, "p99_bulk": beside, "p99_ratio": ratio(beside, alone)}, nil
}

// stallBytes bounds what the server pours at the reader that does not read, and
// with it the memory that a path without backpressure takes.
const stallBytes = 1 << 30

// measureStall measures the throughput of two connections before, beside and
// after a third one that has stopped reading, all through one inlet, and the
// nodes' memory at the end of the stall.
func measureStall(ctx context.Context, b *bench, i *instance) (sample, error) {
	port := i.front[svcUtil]
	neighbours, err := startReaders(ctx, port, 2)
	if err != nil {
		return nil, err
	}
	defer neighbours.stop()
	if err := sleep(ctx, time.Second/2); err != nil {
		return nil, err
	}
	before, err := neighbours.rate(ctx, b.d.window)
	if err != nil {
		return nil, err
	}

	stalled, err := dialUtil(ctx, port, cmdPour, stallBytes)
	if err != nil {
		return nil, err
	}
	defer stalled.Close()
	start := time.Now()
	// Time for every buffer on the way to fill.
	if err := sleep(ctx, min(3*time.Second, b.d.stall/3)); err != nil {
		return nil, err
	}
	during, err := neighbours.rate(ctx, b.d.window)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, time.Until(start.Add(b.d.stall))); err != nil {
		return nil, err
	}
	s := sample{}
	if !noNodes(i) {
		m, err := memory(i.nodes())
		if err != nil {
			return nil, err
		}
		s["stall_rss"] = m.rss / 1024
	}
	stalled.Close()
	if err := sleep(ctx, time.Second); err != nil {
		return nil, err
	}
	after, err := neighbours.rate(ctx, b.d.window)
	if err != nil {
		return nil, err
	}
	s["stall_loss"], err = stallLoss(before, during, after)
	return s, err
}

// stallLoss is the loss in per cent. The machine's speed drifts, so the base is
// the mean of before and after, unless the path has not recovered.
func stallLoss(before, during, after float64) (float64, error) {
	if before <= 0 {
		return 0, errors.New("nothing arrived before the stall")
	}
	base := before
	if after > before/2 {
		base = (before + after) / 2
	}
	return max(0, 100*(1-during/base)), nil
}

// measureCommand times the commands one asks a running node with, start of the
// process to its end.
func measureCommand(ctx context.Context, b *bench, i *instance) (sample, error) {
	times := map[string][]float64{}
	for range b.d.repeat {
		for key, c := range map[string]*command{"cmd_list": i.listInlets, "cmd_show": i.showNode} {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			start := time.Now()
			_, err := run(ctx, i.dir, c.env, c.name, c.args...)
			cancel()
			if err != nil {
				return nil, err
			}
			times[key] = append(times[key], float64(time.Since(start))/float64(time.Millisecond))
		}
	}
	s := sample{}
	for key, v := range times {
		s[key] = median(v)
	}
	return s, nil
}
