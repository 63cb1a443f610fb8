package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// motoServer starts moto's server, which speaks as AWS does, and has p's commands use it. front is before it.
func motoServer(t *testing.T, p *program) (front *awsFront) {
	t.Helper()
	server, err := exec.LookPath("moto_server")
	if err != nil {
		t.Skip("moto is not installed: pip install 'moto[server]' (make test-trust does)")
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+"/sallyport-aws-kms", "../sallyport-aws-kms")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The program that asks is not installed, and then is.
	p.must(t, "vault", "create", "early", "--aws-kms")
	p.oneLineOf(t, []string{"sallyport-aws-kms is not installed", "make aws-kms"}, "identity", "create", "x", "--vault", "early")
	p.env = append(p.env, "PATH="+bin+":"+os.Getenv("PATH"))
	port := freePort(t)
	cmd := exec.Command(server, "-H", "127.0.0.1", "-p", port)
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, "moto's server", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	front = &awsFront{proxy: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "127.0.0.1:" + port}), asked: map[string]int{}}
	at := httptest.NewServer(front)
	t.Cleanup(at.Close)
	p.env = append(p.env, "AWS_ENDPOINT_URL="+at.URL, "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true")
	return front
}

// awsFront stands before moto's server and can answer in its place, as AWS does when it refuses or is busy.
type awsFront struct {
	proxy http.Handler
	mu    sync.Mutex
	asked map[string]int
	// instead answers a request, whose operation is such as "TrentService.Sign"; false passes it on.
	instead func(w http.ResponseWriter, operation string) bool
}

func (f *awsFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation := r.Header.Get("X-Amz-Target")
	f.mu.Lock()
	f.asked[operation]++
	instead := f.instead
	f.mu.Unlock()
	if instead != nil && instead(w, operation) {
		return
	}
	f.proxy.ServeHTTP(w, r)
}

func (f *awsFront) set(instead func(w http.ResponseWriter, operation string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instead = instead
}

// rsaKey makes a key of the wrong type in KMS and returns its id.
func (f *awsFront) rsaKey(t *testing.T) string {
	t.Helper()
	r := httptest.NewRequest("POST", "/", strings.NewReader(`{"KeySpec":"RSA_2048","KeyUsage":"SIGN_VERIFY"}`))
	r.Header.Set("X-Amz-Target", "TrentService.CreateKey")
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/kms/aws4_request, SignedHeaders=host, Signature=00")
	w := httptest.NewRecorder()
	f.proxy.ServeHTTP(w, r)
	var out struct{ KeyMetadata struct{ KeyId string } }
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.KeyMetadata.KeyId == "" {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return out.KeyMetadata.KeyId
}

func refuseAWS(w http.ResponseWriter, code string) bool {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `{"__type":%q,"message":"because"}`, code)
	return true
}

// TestTrustKeysAWSKMS: primary keys in AWS KMS, as moto's server speaks it; refusals, throttling and silence.
func TestTrustKeysAWSKMS(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	front := motoServer(t, p)
	p.must(t, "vault", "create", "files")
	p.must(t, "vault", "create", "kms", "--aws-kms")
	if out := p.must(t, "vault", "show", "kms", "--jq", ".vault.vault_type.LocalFileVault.use_aws_kms"); out != `"Yes"` {
		t.Errorf("%s", out)
	}
	p.must(t, "identity", "create", "i", "--vault", "kms")
	if out := p.must(t, "identity", "show", "i", "--full"); !strings.Contains(out, "ECDSASHA256CurveP256") {
		t.Errorf("%s", out)
	}
	before := p.must(t, "identity", "list")
	p.oneLineOf(t, []string{"P-256", "--algorithm p256"}, "identity", "create", "x", "--vault", "kms", "--algorithm", "ed25519")

	// Throttled twice, then served.
	throttled := 0
	front.set(func(w http.ResponseWriter, operation string) bool {
		throttled++
		return throttled <= 2 && refuseAWS(w, "ThrottlingException")
	})
	p.must(t, "node", "create", "n", "--identity", "i")
	front.set(nil)
	if throttled < 3 {
		t.Errorf("asked %d times", throttled)
	}
	works := func() {
		t.Helper()
		p.must(t, "secure-channel", "create", "--from", "n", "--to", "/node/n/service/api")
	}
	works()
	front.mu.Lock()
	signed := front.asked["TrentService.Sign"]
	front.mu.Unlock()
	front.set(func(w http.ResponseWriter, operation string) bool { return refuseAWS(w, "AccessDeniedException") })
	works() // KMS is not asked for a channel
	p.oneLineOf(t, []string{"AWS KMS create key", "refused", "AccessDeniedException", "kms:CreateKey"}, "identity", "create", "x", "--vault", "kms")
	front.set(func(w http.ResponseWriter, operation string) bool { return refuseAWS(w, "ThrottlingException") })
	p.oneLineOf(t, []string{"asked too often"}, "identity", "create", "x", "--vault", "kms")
	front.set(func(w http.ResponseWriter, operation string) bool { return refuseAWS(w, "DisabledException") })
	p.must(t, "node", "stop", "n")
	p.oneLineOf(t, []string{"DisabledException", "enable the key"}, "node", "start", "n")
	front.set(nil)
	p.must(t, "node", "start", "n")
	front.mu.Lock()
	if n := front.asked["TrentService.Sign"] - signed; n == 0 {
		t.Error("a start is not a signature")
	}
	front.mu.Unlock()

	// A key that could not be read after it was made does not stay.
	front.set(func(w http.ResponseWriter, operation string) bool {
		return operation == "TrentService.GetPublicKey" && refuseAWS(w, "AccessDeniedException")
	})
	front.mu.Lock()
	gone := front.asked["TrentService.ScheduleKeyDeletion"]
	front.mu.Unlock()
	p.oneLineOf(t, []string{"get public key"}, "identity", "create", "x", "--vault", "kms")
	front.mu.Lock()
	if front.asked["TrentService.ScheduleKeyDeletion"] != gone+1 {
		t.Error("the key stays in KMS")
	}
	front.mu.Unlock()
	front.set(nil)
	p.oneLineOf(t, []string{"NotFoundException"}, "identity", "create", "x", "--vault", "kms", "--key-id", "nosuch")
	p.oneLineOf(t, []string{"ECC_NIST_P256"}, "identity", "create", "x", "--vault", "kms", "--key-id", front.rsaKey(t))
	for _, variable := range []struct{ env, word string }{{"AWS_REGION=", "no AWS region"}, {"AWS_ENDPOINT_URL=http://127.0.0.1:1", "no answer"}, {"AWS_ACCESS_KEY_ID=", "AWS credentials"}} {
		if o := p.runWith(t, "", []string{variable.env}, "identity", "create", "x", "--vault", "kms"); o.code == 0 || !strings.Contains(o.stderr, variable.word) {
			t.Errorf("%s: %+v", variable.env, o)
		}
	}
	if after := p.must(t, "identity", "list"); after != before {
		t.Errorf("something is left:\n%s\n%s", before, after)
	}

	// The reference works with the same service.
	if path := reference(); path != "" {
		theirs := newProgram(t, path, p.env[len(p.env)-5:]...)
		theirs.must(t, "vault", "create", "files")
		theirs.must(t, "vault", "create", "kms", "--aws-kms")
		if got, want := p.must(t, "vault", "show", "kms", "--jq", ".vault.vault_type.LocalFileVault | keys"), theirs.must(t, "vault", "show", "kms", "--jq", ".vault.vault_type.LocalFileVault | keys"); strings.Join(strings.Fields(got), "") != strings.Join(strings.Fields(want), "") {
			t.Errorf("JSON: %s, the reference has %s", got, want)
		}
	}
}
