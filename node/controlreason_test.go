package node

import (
	"strings"
	"testing"

	"sallyport/routing/control"
)

// TestReasonIsRead: whatever an error says, the node that asked reads the answer.
func TestReasonIsRead(t *testing.T) {
	for _, reason := range []string{"", "connection refused", "open /srv/\xff\xfe: no such file", strings.Repeat("é", control.MaxReason), strings.Repeat("\xff", control.MaxReason),
		"x" + strings.Repeat("é", control.MaxReason/2)} {
		m := control.Message{Answer: true, Fields: control.Fields{Reason: saidReason(reason)}}
		got, err := control.Parse(m.Append(nil))
		if err != nil || len(reason) > 0 && got.Reason == "" {
			t.Errorf("%q: %+v, %v", reason, got, err)
		}
	}
}
