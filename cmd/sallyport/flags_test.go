package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRetry(t *testing.T) {
	a := newApp(strings.NewReader(""), new(strings.Builder), new(strings.Builder))
	count := func(r retry, env ...string) int {
		t.Helper()
		for i := 0; i+1 < len(env); i += 2 {
			t.Setenv(env[i], env[i+1])
		}
		calls := 0
		err := a.retrying(t.Context(), r, func() error { calls++; return fmt.Errorf("failure %d", calls) })
		if err == nil || err.Error() != fmt.Sprintf("failure %d", calls) {
			t.Errorf("%+v: %v after %d calls", r, err, calls)
		}
		return calls
	}
	for _, c := range []struct {
		r    retry
		want int
	}{
		{retry{}, 1}, {retry{delay: 1}, 3}, {retry{tries: 4, delay: 1}, 4}, {retry{tries: 4, delay: 1, never: true}, 1}, {retry{tries: 1}, 1},
	} {
		if got := count(c.r); got != c.want {
			t.Errorf("%+v: %d calls, want %d", c.r, got, c.want)
		}
	}
	if got := count(retry{}, "OCKAM_COMMAND_RETRY_COUNT", "2", "OCKAM_COMMAND_RETRY_DELAY", "1ms"); got != 2 {
		t.Errorf("from the environment: %d calls", got)
	}
	if tries, delay, err := (&retry{tries: 7}).plan(); tries != 7 || delay != time.Millisecond || err != nil {
		t.Errorf("a flag and the environment: %d, %v, %v", tries, delay, err)
	}
	calls := 0
	if err := a.retrying(t.Context(), retry{tries: 5, delay: 1}, func() error { calls++; return usageError("x") }); calls != 1 || err == nil {
		t.Errorf("a usage error was tried %d times", calls)
	}
	if err := a.retrying(t.Context(), retry{tries: 5, delay: 1}, func() error {
		if calls++; calls < 4 {
			return fmt.Errorf("not yet")
		}
		return nil
	}); err != nil || calls != 4 {
		t.Errorf("in the end it worked: %v after %d calls", err, calls)
	}
}
