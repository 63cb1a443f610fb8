package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sallyport/node/resource"
	"sallyport/project"
)

func TestIdentities(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	_, err := d.NamedIdentity("")
	wantError(t, err, ErrNotFound, "there is no default identity")
	_, err = d.CreateNamed(ctx, "a", own(t, 1).Identifier().String(), "")
	wantError(t, err, ErrNotFound, `there is no change history "I84502ce0`)
	_, err = d.CreateNamed(ctx, "a", "../../x", "")
	wantError(t, err, ErrNotFound, "there is no change history")
	must(t, d.Store().PutIdentity(ctx, own(t, 1)))
	_, err = d.CreateNamed(ctx, "a", own(t, 1).Identifier().String(), "")
	wantError(t, err, ErrNotFound, "there is no default vault")
	_, err = d.CreateNamed(ctx, "a b", own(t, 1).Identifier().String(), "")
	wantError(t, err, ErrName)

	first := withIdentity(t, d, "", 1)
	if want := (NamedIdentity{Name: "default", Identifier: own(t, 1).Identifier().String(), Vault: "default", IsDefault: true}); first != want {
		t.Errorf("first identity %+v", first)
	}
	second := withIdentity(t, d, "", 2)
	if !strings.Contains(second.Name, "-") || second.IsDefault {
		t.Errorf("second identity %+v", second)
	}
	b := withIdentity(t, d, "b", 3)
	must(t, d.Store().PutIdentity(ctx, own(t, 4)))
	_, err = d.CreateNamed(ctx, "b", own(t, 4).Identifier().String(), "")
	wantError(t, err, ErrExists, `identity "b" already exists`)
	_, err = d.CreateNamed(ctx, "c", own(t, 3).Identifier().String(), "")
	wantError(t, err, ErrExists, `already exists under the name "b"`)
	_, err = d.CreateNamed(ctx, "c", own(t, 4).Identifier().String(), "nowhere")
	wantError(t, err, ErrNotFound, `there is no vault "nowhere"`)

	must(t, d.SetDefaultIdentity(ctx, "b"))
	if got, err := d.NamedIdentity(""); err != nil || got.Name != "b" || got.Identifier != b.Identifier {
		t.Errorf("default %+v, %v", got, err)
	}
	wantError(t, d.SetDefaultIdentity(ctx, "x"), ErrNotFound, `there is no identity "x"`)
	withIdentity(t, d, "A", 5)
	list, err := d.Identities()
	must(t, err)
	var names []string
	for i, n := range list {
		names = append(names, n.Name)
		if i > 0 && list[i-1].Name >= n.Name {
			t.Errorf("not sorted: %v", names)
		}
		if n.IsDefault != (n.Name == "b") {
			t.Errorf("default mark of %s is %v", n.Name, n.IsDefault)
		}
	}
	if len(list) != 4 {
		t.Errorf("list %v", names)
	}

	_, err = d.CreateNode(ctx, Node{Name: "n1", IdentityName: "b", Identifier: b.Identifier})
	must(t, err)
	wantError(t, d.RenameIdentity(ctx, "b", "A"), ErrExists)
	wantError(t, d.RenameIdentity(ctx, "x", "y"), ErrNotFound)
	wantError(t, d.RenameIdentity(ctx, "b", "y z"), ErrName)
	must(t, d.RenameIdentity(ctx, "b", "b"))
	must(t, d.RenameIdentity(ctx, "b", "authority-p"))
	if n, err := d.Node("n1"); err != nil || n.IdentityName != "authority-p" {
		t.Errorf("node %+v, %v", n, err)
	}
	wantError(t, d.DeleteIdentity(ctx, "authority-p"), ErrInUse, `identity "authority-p" is in use by node "n1"`)
	must(t, d.DeleteNode(ctx, "n1"))
	must(t, d.DeleteIdentity(ctx, "authority-p"))
	wantError(t, d.DeleteIdentity(ctx, "authority-p"), ErrNotFound)
	// Several are left: none is chosen. One is left: that one.
	_, err = d.NamedIdentity("")
	wantError(t, err, ErrNotFound, "no default identity")
	must(t, d.DeleteIdentity(ctx, "A"))
	must(t, d.DeleteIdentity(ctx, "default"))
	if got, err := d.NamedIdentity(""); err != nil || got.Name != second.Name {
		t.Errorf("default %+v, %v", got, err)
	}
	if _, err := d.ChangeHistory(b.Identifier); err != nil {
		t.Errorf("the history is gone: %v", err)
	}
}

func TestVaults(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	_, err := d.EnsureVault(ctx, "x")
	wantError(t, err, ErrNotFound, `there is no vault "x"`)
	v, err := d.EnsureVault(ctx, "")
	must(t, err)
	if want := (Vault{Name: "default", Path: d.file("vaults", "default"), IsDefault: true}); v != want {
		t.Errorf("%+v", v)
	}
	if again, err := d.EnsureVault(ctx, "default"); err != nil || again != v {
		t.Errorf("%+v, %v", again, err)
	}
	key := filepath.Join(v.Path, "sub", "key")
	must(t, os.MkdirAll(filepath.Dir(key), 0o700))
	must(t, os.WriteFile(key, []byte("secret"), 0o600))
	withIdentity(t, d, "", 1)

	_, err = d.CreateVault(ctx, "default", "", VaultHome{}, nil)
	wantError(t, err, ErrExists, `vault "default" already exists`)
	_, err = d.CreateVault(ctx, "x y", "", VaultHome{}, nil)
	wantError(t, err, ErrName)
	_, err = d.CreateVault(ctx, "x", v.Path, VaultHome{}, nil)
	wantError(t, err, ErrInUse, `vault "default" already lies in`)
	shared := t.TempDir()
	must(t, os.Chmod(shared, 0o750))
	_, err = d.CreateVault(ctx, "x", shared, VaultHome{}, nil)
	wantError(t, err, ErrUnsafe, `vault "x"`, "can be used by others")
	if list, err := d.Vaults(); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	kms, err := d.CreateVault(ctx, "", "", VaultHome{Kind: VaultAWSKMS}, nil)
	must(t, err)
	if !kms.KMS || kms.IsDefault || !strings.Contains(kms.Name, "-") {
		t.Errorf("%+v", kms)
	}
	must(t, d.SetDefaultVault(ctx, kms.Name))
	wantError(t, d.SetDefaultVault(ctx, "x"), ErrNotFound)
	if got, err := d.Vault(""); err != nil || got.Name != kms.Name {
		t.Errorf("%+v, %v", got, err)
	}

	_, err = d.DeleteVault(ctx, "default")
	wantError(t, err, ErrInUse, `vault "default" is in use by identity "default"`)
	// Rename: identities follow, and the keys, too.
	wantError(t, d.RenameVault(ctx, "default", kms.Name), ErrExists)
	wantError(t, d.RenameVault(ctx, "x", "y"), ErrNotFound)
	wantError(t, d.RenameVault(ctx, "default", "a/b"), ErrName)
	must(t, d.RenameVault(ctx, "default", "default"))
	must(t, d.RenameVault(ctx, "default", "main"))
	checkKey := func(name, dir string) {
		t.Helper()
		v, err := d.Vault(name)
		must(t, err)
		if v.Path != dir {
			t.Errorf("vault in %s, want %s", v.Path, dir)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "sub", "key")); err != nil || string(data) != "secret" {
			t.Errorf("%q, %v", data, err)
		}
	}
	checkKey("main", d.file("vaults", "main"))
	if id, err := d.NamedIdentity("default"); err != nil || id.Vault != "main" {
		t.Errorf("%+v, %v", id, err)
	}
	if list, err := d.Vaults(); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	// Relocate.
	to := filepath.Join(t.TempDir(), "a", "keys")
	wantError(t, d.MoveVault(ctx, "main", t.TempDir()), fs.ErrExist, "cannot move to")
	wantError(t, d.MoveVault(ctx, "main", kms.Path), ErrInUse)
	me, err := CurrentProcess()
	must(t, err)
	_, err = d.CreateNode(ctx, Node{Name: "n1", Identifier: own(t, 1).Identifier().String(), Process: me})
	must(t, err)
	wantError(t, d.MoveVault(ctx, "main", to), ErrInUse, `vault "main" is in use by running node "n1"`)
	must(t, d.NodeStopped(ctx, "n1", me))
	must(t, d.DeleteNode(ctx, "n1"))
	// A node of another identity that has a listener for this one.
	_, err = d.CreateNode(ctx, Node{Name: "n2", Identifier: own(t, 2).Identifier().String(), Process: me})
	must(t, err)
	give := func(request string) {
		must(t, d.UpdateResources(ctx, "n2", func([]resource.Stored) ([]resource.Stored, error) {
			return []resource.Stored{{Kind: "secure-channel-listener", Name: "l", Request: json.RawMessage(request)}}, nil
		}))
	}
	give(`{"address":"l","identity":"default"}`)
	wantError(t, d.MoveVault(ctx, "main", to), ErrInUse, `vault "main" is in use by running node "n2"`)
	give(`{"address":"l","identity":"elsewhere"}`)
	must(t, d.MoveVault(ctx, "main", to))
	must(t, d.MoveVault(ctx, "main", to)) // where it is already
	give(`{"address":"l","identity":"default"}`)
	must(t, d.NodeStopped(ctx, "n2", me))
	must(t, d.MoveVault(ctx, "main", filepath.Join(filepath.Dir(to), "later")))
	must(t, d.MoveVault(ctx, "main", to))
	must(t, d.DeleteNode(ctx, "n2"))
	checkKey("main", to)
	if _, err := os.Stat(d.file("vaults", "main")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("old place: %v", err)
	}
	must(t, d.RenameVault(ctx, "main", "other"))
	checkKey("other", to)

	must(t, d.DeleteIdentity(ctx, "default"))
	left, err := d.DeleteVault(ctx, "other")
	if err != nil || left != to {
		t.Errorf("left %q, %v", left, err)
	}
	if left, err = d.DeleteVault(ctx, kms.Name); err != nil || left != "" {
		t.Errorf("left %q, %v", left, err)
	}
	if list, err := os.ReadDir(d.file("vaults")); err != nil || len(list) != 0 {
		t.Errorf("keys stay: %v, %v", list, err)
	}
	_, err = d.DeleteVault(ctx, "other")
	wantError(t, err, ErrNotFound)
}

// fill puts a value into every field, so that a field which does not survive storage fails the test.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("text of " + v.Type().String())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(3 * time.Second))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string][]string{"flag": {"value"}}))
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte(`{}`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	default:
		panic("fill: " + v.Type().String())
	}
}

func TestNodes(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	_, err := d.Node("")
	wantError(t, err, ErrNotFound, "there is no default node")
	_, err = d.Node("../x")
	wantError(t, err, ErrNotFound, `there is no node "../x"`)
	_, err = d.CreateNode(ctx, Node{Name: "a.b"})
	wantError(t, err, ErrName)

	me, err := CurrentProcess()
	must(t, err)
	want := Node{Name: "n1", IdentityName: "i", Identifier: own(t, 1).Identifier().String(), IsAuthority: true, TCPListener: "127.0.0.1:4000", AdminSocket: "/s", StatusEndpoint: "127.0.0.1:1",
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Process: me}
	fill(reflect.ValueOf(&want.Options).Elem())
	_, err = d.CreateNode(ctx, want)
	must(t, err)
	want.IsDefault = true
	for _, name := range []string{"n1", ""} {
		got, err := d.Node(name)
		if err != nil || !sameJSON(got.Options, want.Options) {
			t.Errorf("options %+v, %v", got.Options, err)
		}
		got.Options, want.Options = NodeOptions{}, NodeOptions{}
		if !reflect.DeepEqual(got, want) || got.Status() != Running {
			t.Errorf("got %+v, want %+v", got, want)
		}
		fill(reflect.ValueOf(&want.Options).Elem())
	}
	// The same process may write its record again, another one may not take the name.
	_, err = d.CreateNode(ctx, want)
	must(t, err)
	_, err = d.CreateNode(ctx, Node{Name: "n1"})
	wantError(t, err, ErrInUse, `node "n1" is already running, as process `+fmt.Sprint(me.PID))
	wantError(t, d.DeleteNode(ctx, "n1"), ErrInUse, `node "n1" is running`, "stop it first")
	must(t, d.NodeStopped(ctx, "n1", Process{PID: 1}))
	if n, err := d.Node("n1"); err != nil || n.Status() != Running {
		t.Errorf("stopped by another process: %+v, %v", n.Process, err)
	}
	must(t, d.NodeStopped(ctx, "n1", me))
	if n, err := d.Node("n1"); err != nil || n.Status() != Stopped {
		t.Errorf("%+v, %v", n.Process, err)
	}
	// A recycled process number is not the node.
	must(t, d.UpdateNode(ctx, "n1", func(n *Node) error {
		n.Process, n.Name = Process{PID: me.PID, StartTime: 1, Boot: me.Boot}, "other"
		return nil
	}))
	must(t, d.SaveResources(ctx, "n1", []resource.Stored{hop("r")}))
	again, err := d.CreateNode(ctx, Node{Name: "n1"})
	if err != nil || !again.CreatedAt.Equal(want.CreatedAt) || !again.IsDefault {
		t.Errorf("created again %+v, %v", again, err)
	}
	if r, err := d.Resources("n1"); err != nil || len(r) != 1 {
		t.Errorf("resources of the node created again: %+v, %v", r, err)
	}

	for _, name := range []string{"n3", "n2"} {
		n, err := d.CreateNode(ctx, Node{Name: name})
		if err != nil || n.IsDefault || n.CreatedAt.IsZero() {
			t.Errorf("%+v, %v", n, err)
		}
	}
	must(t, d.SetDefaultNode(ctx, "n3"))
	wantError(t, d.SetDefaultNode(ctx, "x"), ErrNotFound)
	wantError(t, d.UpdateNode(ctx, "x", nil), ErrNotFound)
	must(t, os.MkdirAll(d.file("nodes", "only-logs"), 0o700))
	must(t, os.MkdirAll(d.file("nodes", "broken"), 0o700))
	must(t, os.WriteFile(d.file("nodes", "broken", "node.json"), []byte("x"), 0o600))
	list, err := d.Nodes()
	wantError(t, err, ErrBroken, d.file("nodes", "broken", "node.json"))
	var got []string
	for _, n := range list {
		got = append(got, fmt.Sprint(n.Name, n.IsDefault))
	}
	if s := strings.Join(got, " "); s != "n1false n2false n3true" {
		t.Error(s)
	}
	must(t, d.DeleteNode(ctx, "broken"))
	dir, err := d.NodeDir("n3")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "log"), nil, 0o600))
	must(t, d.DeleteNode(ctx, "n3"))
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory: %v", err)
	}
	if n, err := d.Node(""); err != nil || n.Name != "n1" { // the first of those left takes over
		t.Errorf("%+v, %v", n, err)
	}
	must(t, d.SetDefaultNode(ctx, "n2"))
	must(t, d.DeleteNode(ctx, "n2"))
	if n, err := d.Node(""); err != nil || n.Name != "n1" {
		t.Errorf("%+v, %v", n, err)
	}
	must(t, d.DeleteNode(ctx, "n1"))
	wantError(t, d.DeleteNode(ctx, "n1"), ErrNotFound)
	// A default that a crash left behind does not count.
	must(t, d.writeDefaultNode("gone"))
	if n, err := d.CreateNode(ctx, Node{Name: "n4"}); err != nil || !n.IsDefault {
		t.Errorf("%+v, %v", n, err)
	}
	_, err = d.NodeDir("a/b")
	wantError(t, err, ErrName)
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	var v, w any
	return errX == nil && errY == nil && json.Unmarshal(x, &v) == nil && json.Unmarshal(y, &w) == nil && reflect.DeepEqual(v, w)
}

// A node that was killed is stopped at once, although nobody changed its record.
func TestKilledNode(t *testing.T) {
	d := open(t)
	cmd := exec.Command("/bin/cat")
	_, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	p, err := FindProcess(cmd.Process.Pid)
	must(t, err)
	n, err := d.CreateNode(t.Context(), Node{Name: "n1", Process: p})
	if err != nil || n.Status() != Running {
		t.Errorf("%s, %v", n.Status(), err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if n, err := d.Node("n1"); err != nil || n.Status() != Stopped {
		t.Errorf("%s, %v", n.Status(), err)
	}
}

func TestResources(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	if r, err := d.Resources("n1"); err != nil || r != nil {
		t.Errorf("%+v, %v", r, err)
	}
	_, err := d.Resources("../n1")
	wantError(t, err, ErrName)
	wantError(t, d.SaveResources(ctx, "n1", nil), ErrNotFound, `there is no node "n1"`)
	if _, err := os.Stat(d.file("nodes")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("saving to a node that does not exist made its directory")
	}
	_, err = d.CreateNode(ctx, Node{Name: "n1"})
	must(t, err)
	want := []resource.Stored{hop("a"), {Kind: "new-kind", Name: "b", FromFile: true, Request: []byte(`{"x":[1,"2"]}`)}}
	must(t, d.SaveResources(ctx, "n1", want))
	check := func() {
		t.Helper()
		got, err := d.Resources("n1")
		must(t, err)
		for i := range got {
			var compact bytes.Buffer
			must(t, json.Compact(&compact, got[i].Request))
			got[i].Request = compact.Bytes()
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
	check()
	failed := errors.New("no")
	none := func([]resource.Stored) ([]resource.Stored, error) { return nil, failed }
	wantError(t, d.UpdateResources(ctx, "n1", none), failed)
	check()
}

// What the version before wrote is read: nothing is lost, and a policy that came with a portal is the portal's again.
func TestResourcesVersion1(t *testing.T) {
	d := open(t)
	_, err := d.CreateNode(t.Context(), Node{Name: "n1"})
	must(t, err)
	text, err := os.ReadFile("testdata/resources-v1.json")
	must(t, err)
	must(t, os.WriteFile(d.file("nodes", "n1", "resources.json"), text, 0o600))
	got, err := d.Resources("n1")
	must(t, err)
	var lines []string
	for _, r := range got {
		lines = append(lines, r.Kind+" "+r.Name+" "+string(r.Request))
	}
	want, err := os.ReadFile("testdata/resources-v2.txt")
	must(t, err)
	if text := strings.Join(lines, "\n") + "\n"; text != string(want) {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	// It is written in the newer form by the next change, and not before.
	must(t, d.UpdateResources(t.Context(), "n1", func(r []resource.Stored) ([]resource.Stored, error) { return r, nil }))
	if again, err := d.Resources("n1"); err != nil || len(again) != len(got) {
		t.Errorf("%d resources after the change, not %d: %v", len(again), len(got), err)
	}
}

func samples(t *testing.T) (a, b *project.Project) {
	t.Helper()
	data, err := os.ReadFile("testdata/02-enrollment-tickets.json")
	must(t, err)
	var v struct {
		Plain   string           `json:"plain_csv"`
		Project *project.Project `json:"project_json_sample"`
	}
	must(t, json.Unmarshal(data, &v))
	ticket, err := project.ParseTicket(v.Plain)
	must(t, err)
	return v.Project, project.ProjectFromTicket(ticket)
}

// TestLongProject: a file with projects is written with its bytes escaped and its lines indented, and read again all the same.
func TestLongProject(t *testing.T) {
	d := open(t)
	a, b := samples(t)
	must(t, d.PutProject(t.Context(), b))
	for _, users := range []int{100, 10_000, 60_000} {
		a.Users = make([]string, users)
		err := d.PutProject(t.Context(), a)
		if err != nil && !errors.Is(err, project.ErrTooLarge) {
			t.Fatal(err)
		}
		if got, readErr := d.Project(a.ID); err == nil && (readErr != nil || len(got.Project.Users) != users) {
			t.Fatalf("%d users were stored: %v", users, readErr)
		}
	}
	a.Users = nil
	for _, name := range []string{strings.Repeat("<", 1000), strings.Repeat("<", 100_000)} {
		a.Name = name
		if err := d.PutProject(t.Context(), a); err != nil && !errors.Is(err, project.ErrTooLarge) {
			t.Fatal(err)
		}
		if _, err := d.Project(b.ID); err != nil {
			t.Fatalf("a project with a name of %d bytes beside it: %v", len(name), err)
		}
	}
}

func TestProjects(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	a, b := samples(t)
	_, err := d.Project("")
	wantError(t, err, ErrNotFound, "there is no default project")
	bad := *a
	bad.ChangeHistory = "00"
	wantError(t, d.PutProject(ctx, &bad), project.ErrInvalid, "project_change_history")
	must(t, d.PutProject(ctx, a))
	must(t, d.PutProject(ctx, b))
	check := func(nameOrID, id string, def bool) {
		t.Helper()
		got, err := d.Project(nameOrID)
		if err != nil || got.Project.ID != id || got.IsDefault != def || got.Project.AuthorityIdentifier() == "" {
			t.Errorf("%q: %+v, %v", nameOrID, got, err)
		}
	}
	check("", a.ID, true)
	check("awesome", a.ID, true)
	check(a.ID, a.ID, true)
	check("my-project", "project_id", false)
	_, err = d.Project("x")
	wantError(t, err, ErrNotFound, `there is no project "x"`)
	// Importing again replaces, and keeps the default.
	renamed := *a
	renamed.Name = "zz"
	must(t, d.PutProject(ctx, &renamed))
	check("", a.ID, true)
	check("zz", a.ID, true)
	_, err = d.Project("awesome")
	wantError(t, err, ErrNotFound)
	list, err := d.Projects()
	if err != nil || len(list) != 2 || list[0].Project.Name != "my-project" || list[1].Project.Name != "zz" {
		t.Errorf("%+v, %v", list, err)
	}
	// The same name twice: the default, else the latest.
	twin := *b
	twin.ID = "twin"
	must(t, d.PutProject(ctx, &twin))
	check("my-project", "twin", false)
	must(t, d.SetDefaultProject(ctx, "project_id"))
	check("my-project", "project_id", true)
	check("", "project_id", true)
	check(a.ID, a.ID, false)
	wantError(t, d.SetDefaultProject(ctx, "x"), ErrNotFound)
	wantError(t, d.DeleteProject(ctx, "x"), ErrNotFound)
	must(t, d.DeleteProject(ctx, "my-project"))
	check("my-project", "twin", false)
	must(t, d.DeleteProject(ctx, "zz"))
	check("", "twin", true)
	// A stored project that was tampered with is not used.
	path := d.file("projects.json")
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(strings.Replace(string(data), b.ChangeHistory[40:60], strings.Repeat("0", 20), 1)), 0o600))
	_, err = d.Project("")
	wantError(t, err, ErrBroken, path, "project_change_history")
}

func TestCredentials(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	s, i1, i2 := own(t, 1).Identifier().String(), own(t, 2).Identifier().String(), own(t, 3).Identifier().String()
	_, err := d.Credential(s, i1, "c")
	wantError(t, err, ErrNotFound, `there is no credential "c"`)
	end := time.Unix(1_800_000_000, 0).UTC()
	for i, c := range []Credential{{s, i1, "c", "", []byte{1}, end}, {s, i2, "c", "n1", []byte{2}, end}, {s, i1, "c2", "", []byte{3}, end}, {s, i1, "c", "n2", []byte{4}, end.Add(time.Hour)}} {
		must(t, d.PutCredential(ctx, c))
		got, err := d.Credential(c.Subject, c.Issuer, c.Scope)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%d: got %+v, %v", i, got, err)
		}
	}
	if list, err := d.Credentials(); err != nil || len(list) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
	must(t, os.WriteFile(d.credentialPath(s, i2, "c"), []byte("x"), 0o600))
	list, err := d.Credentials()
	wantError(t, err, ErrBroken)
	if len(list) != 2 {
		t.Errorf("%+v", list)
	}
	must(t, d.DeleteCredential(ctx, s, i1, "c"))
	must(t, d.DeleteCredential(ctx, s, i1, "c"))
	_, err = d.Credential(s, i1, "c")
	wantError(t, err, ErrNotFound)
}

// TestUnreadNodes: a node whose record cannot be read, or is gone while it runs, keeps nobody from the others, is taken for one that needs what is to
// be deleted, and can be deleted itself; nobody starts beside it.
func TestUnreadNodes(t *testing.T) {
	d, ctx := open(t), t.Context()
	withIdentity(t, d, "i1", 1)
	i2 := withIdentity(t, d, "i2", 2)
	for _, name := range []string{"n1", "n2", "n3"} {
		_, err := d.CreateNode(ctx, Node{Name: name, Identifier: i2.Identifier})
		must(t, err)
	}
	socket, err := d.SocketPath("n2")
	must(t, err)
	ln, err := net.Listen("unix", socket)
	must(t, err)
	defer ln.Close()
	record := d.file("nodes", "n2", "node.json")
	for _, breakIt := range []func(){
		func() { must(t, os.WriteFile(record, []byte("x"), 0o600)) },
		func() { must(t, os.WriteFile(record, []byte(`{"version":99}`), 0o600)) },
		func() { must(t, os.Remove(record)) },
		func() { must(t, os.MkdirAll(filepath.Join(record, "x"), 0o700)) },
	} {
		breakIt()
		list, err := d.Nodes()
		if wantError(t, err, nil, "n2"); len(list) != 2 || !list[0].IsDefault {
			t.Errorf("%+v", list)
		}
		if names, err := d.NodeNames(); err != nil || strings.Join(names, " ") != "n1 n2 n3" {
			t.Errorf("%v, %v", names, err)
		}
		wantError(t, d.DeleteIdentity(ctx, "i1"), ErrInUse, `"n2"`)
		wantError(t, d.RenameIdentity(ctx, "i1", "i3"), nil, "n2")
		wantError(t, d.MoveVault(ctx, DefaultName, filepath.Join(t.TempDir(), "v")), ErrInUse, `"n2"`)
		_, err = d.NodesOf(i2.Identifier)
		wantError(t, err, nil, "n2")
		if _, err = d.Node("n2"); errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		wantError(t, d.DeleteNode(ctx, "n2"), ErrInUse, "stop it first")
	}
	must(t, os.RemoveAll(record))
	_, err = d.CreateNode(ctx, Node{Name: "n2", Process: Process{PID: 1 << 30}})
	wantError(t, err, ErrInUse, fmt.Sprint("as process ", os.Getpid()))
	me, err := CurrentProcess()
	must(t, err)
	_, err = d.CreateNode(ctx, Node{Name: "n2", Process: me}) // one that goes on as another program
	must(t, err)
	must(t, ln.Close())
	must(t, os.WriteFile(record, []byte("x"), 0o600))
	_, err = d.Node("n2")
	wantError(t, err, ErrBroken, `repair the file, or delete node "n2"`)
	must(t, d.DeleteNode(ctx, "n2"))
	must(t, d.DeleteIdentity(ctx, "i1"))
	must(t, os.Mkdir(d.file("nodes", "n2"), 0o700)) // a directory without a record
	must(t, d.DeleteNode(ctx, "n2"))
	wantError(t, d.DeleteNode(ctx, "n2"), ErrNotFound)

	// Which is the default says nothing of the nodes.
	must(t, os.WriteFile(d.file("nodes.json"), []byte("x"), 0o600))
	list, err := d.Nodes()
	if wantError(t, err, ErrBroken, "nodes.json"); len(list) != 2 || list[0].IsDefault {
		t.Errorf("%+v", list)
	}
	if n, err := d.Node("n1"); err != nil || n.Name != "n1" {
		t.Errorf("%+v, %v", n, err)
	}
	_, err = d.Node("")
	wantError(t, err, ErrBroken)
	_, err = d.CreateNode(ctx, Node{Name: "n4"})
	must(t, err)
	must(t, d.DeleteNode(ctx, "n3"))
	must(t, d.DeleteNode(ctx, "n1"))
	must(t, d.MoveVault(ctx, DefaultName, filepath.Join(t.TempDir(), "v")))
	_, err = d.CreateNode(ctx, Node{Name: "n4"})
	must(t, err)
	if text, err := os.ReadFile(d.file("nodes.json")); err != nil || string(text) != "x" {
		t.Errorf("the broken file is %q, %v", text, err)
	}
}
