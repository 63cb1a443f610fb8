package limits

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "17": 17, "17B": 17, "64MiB": 64 << 20, "64 mib": 64 << 20, "1G": 1 << 30, "500MB": 500e6, "2KiB": 2048} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "9999999999GiB", "1 TiBB", "1e3"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
	for b, want := range map[Bytes]string{0: "0B", 17: "17B", 64 << 20: "64MiB", 1 << 30: "1GiB", 1536: "1536B"} {
		if got := b.String(); got != want {
			t.Errorf("%d: %s", int64(b), got)
		}
	}
}

// TestDefaults: every limit has a value, those of a small machine are within it, and the memory of parts follows the whole.
func TestDefaults(t *testing.T) {
	for _, m := range []machine{{64, 64 << 20}, {256, 0}, {1024, 512 << 20}, {1 << 20, 0}} {
		l := Limits{}.complete(m)
		for _, f := range l.List() {
			if f.Value <= 0 && (f.Name != "memory" || m.memory != 0) {
				t.Errorf("%+v: %s is %d", m, f.Name, f.Value)
			}
		}
		if used := l.Connections + l.PortalConnections + l.Descriptors; used > m.descriptors {
			t.Errorf("%+v: %d descriptors are given away", m, used)
		}
		if m.memory > 0 && l.Unfinished+l.Windows+l.Kept+l.Backlog+l.Interceptors > 5*m.memory/8 {
			t.Errorf("%+v: %s, %s, %s, %s and %s", m, l.Unfinished, l.Windows, l.Kept, l.Backlog, l.Interceptors)
		}
		if err := l.Validate(); err != nil {
			t.Error(err)
		}
	}
	if l := (Limits{Connections: 7}).complete(machine{1024, 0}); l.Connections != 7 {
		t.Errorf("%d connections", l.Connections)
	}
}

// TestSmall: what a small node gives to others fits in its memory and its descriptors, is no more than usual, and gives way to what is said.
func TestSmall(t *testing.T) {
	for _, m := range []machine{{64, 0}, {1024, 0}, {1 << 20, 0}, {1024, 512 << 20}} {
		small := Limits{}.small(m)
		if err := small.Validate(); err != nil {
			t.Fatal(err)
		}
		small, usual := small.complete(m), Limits{}.complete(m)
		if used := small.Connections + small.PortalConnections + small.Descriptors; used > m.descriptors {
			t.Errorf("%+v: %d descriptors are given away", m, used)
		}
		if sum := small.Unfinished + small.Windows + small.Kept + small.Backlog + small.Interceptors; sum > MinMemory {
			t.Errorf("%+v: %s are given away", m, sum)
		}
		for i, f := range small.List() {
			if most := usual.List()[i]; f.Value > most.Value && (f.Name != "memory" || m.memory > 0) {
				t.Errorf("%+v: %s is %d, usually %d", m, f.Name, f.Value, most.Value)
			}
		}
	}
	if l := (Limits{Channels: 7, Memory: 64 << 20}).Small(); l.Channels != 7 || l.Memory != 64<<20 || l.ChannelsPerPeer != 64 {
		t.Errorf("%+v", l)
	}
}

// TestNames: a limit's name in lists is its name in a configuration.
func TestNames(t *testing.T) {
	var tags []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Limits]()) {
		tags = append(tags, strings.TrimSuffix(f.Tag.Get("json"), ",omitempty"))
	}
	list := Limits{}.List()
	if len(list) != len(tags) {
		t.Fatalf("%d fields, %d names", len(tags), len(list))
	}
	for _, f := range list {
		found := false
		for _, tag := range tags {
			found = found || tag == f.Name
		}
		if !found {
			t.Errorf("no field has the name %s", f.Name)
		}
	}
}

func TestValidate(t *testing.T) {
	err := Limits{Connections: -1, Names: -5, Message: 1 << 30, Memory: 1 << 20, Route: 65}.Validate()
	for _, want := range []string{"connections is -1", "names is -5", "message is 1GiB", "memory is 1MiB", "route is 65"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestJSON(t *testing.T) {
	var l Limits
	if err := json.Unmarshal([]byte(`{"connections": 5, "memory": "1GiB", "unfinished": 4096, "frame-timeout": "3s"}`), &l); err != nil {
		t.Fatal(err)
	}
	if l != (Limits{Connections: 5, Memory: 1 << 30, Unfinished: 4096, FrameTimeout: Duration(3 * time.Second)}) {
		t.Errorf("%+v", l)
	}
	b, err := json.Marshal(l)
	var back Limits
	if err != nil || json.Unmarshal(b, &back) != nil || back != l {
		t.Errorf("%s, %v", b, err)
	}
}

// TestGroupMemory: the least limit on the way up counts, in both versions of control groups.
func TestGroupMemory(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("list2", "0::/a/b\n")
	write("v2/a/memory.max", "67108864\n")
	write("v2/a/b/memory.max", "max\n")
	write("list1", "5:cpu,cpuacct:/x\n4:memory:/c\n")
	write("v1/memory/memory.limit_in_bytes", "9223372036854771712\n")
	write("v1/memory/c/memory.limit_in_bytes", "1048576\n")
	write("list0", "0::/\n")
	for _, c := range []struct {
		list, root string
		want       int64
		ok         bool
	}{{"list2", "v2", 64 << 20, true}, {"list1", "v1", 1 << 20, true}, {"list0", "v2", 0, false}, {"none", "v2", 0, false}} {
		got, ok := groupMemory(filepath.Join(root, c.list), filepath.Join(root, c.root))
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %d, %v", c.list, got, ok)
		}
	}
}
