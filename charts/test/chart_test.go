// Package test renders the chart as helm does and holds what comes out against Kubernetes' own types and its restricted security standard. It is a module of its
// own, so that no program of the project carries Kubernetes' libraries.
package test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

const (
	ours = "../sallyport"
	app  = "app"
)

// values of an outlet beside nothing, an inlet with a service, and the least.
func values(t *testing.T, name string) map[string]any {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	v := map[string]any{}
	if err := yaml.UnmarshalStrict(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestLint is helm lint --strict.
func TestLint(t *testing.T) {
	for _, name := range []string{"inlet", "outlet"} {
		for _, m := range lint.All(ours, values(t, name), "default", true).Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

// TestMistakes: values that make no working pod are refused, with a word of what is missing.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		word   string
		change func(v map[string]any)
	}{
		{"config", func(v map[string]any) { delete(v, "config") }},
		{"ticket': additional properties", func(v map[string]any) { v["ticket"] = map[string]any{"value": "secret"} }},
		{"config", func(v map[string]any) { v["config"].(map[string]any)["ticket"] = "0123" }},
		{"imag", func(v map[string]any) { v["imag"] = "x" }},
	} {
		v := values(t, "inlet")
		c.change(v)
		if _, err := render(t, ours, v); err == nil || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", c.word, err)
		}
	}
}

// TestManifests: everything that is rendered is what Kubernetes knows, field by field, and its pods keep to the restricted standard.
func TestManifests(t *testing.T) {
	for _, c := range []struct {
		chart, values string
		kinds         []string
	}{
		{ours, "inlet", []string{"ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Service"}},
		{ours, "outlet", []string{"ConfigMap", "Deployment", "PersistentVolumeClaim"}},
		{app, "app", []string{"ConfigMap", "Deployment"}},
	} {
		out, err := render(t, c.chart, values(t, c.values))
		if err != nil {
			t.Errorf("%s: %v", c.values, err)
			continue
		}
		var kinds []string
		for name, text := range out {
			if strings.HasSuffix(name, "NOTES.txt") {
				continue
			}
			for _, doc := range strings.Split(text, "\n---") {
				if kind := check(t, name, doc); kind != "" {
					kinds = append(kinds, kind)
				}
			}
		}
		slices.Sort(kinds)
		if !slices.Equal(kinds, c.kinds) {
			t.Errorf("%s: %v were rendered, want %v", c.values, kinds, c.kinds)
		}
	}
}

// check decodes one manifest, where a field that Kubernetes does not have is an error, and returns its kind.
func check(t *testing.T, name, doc string) string {
	t.Helper()
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
		t.Errorf("%s: %v\n%s", name, err, doc)
		return ""
	}
	var into any
	var pod *corev1.PodTemplateSpec
	switch meta.APIVersion + " " + meta.Kind {
	case " ":
		return ""
	case "apps/v1 Deployment":
		d := &appsv1.Deployment{}
		into, pod = d, &d.Spec.Template
	case "v1 ConfigMap":
		into = &corev1.ConfigMap{}
	case "v1 Service":
		into = &corev1.Service{}
	case "v1 PersistentVolumeClaim":
		into = &corev1.PersistentVolumeClaim{}
	case "networking.k8s.io/v1 NetworkPolicy":
		into = &networkingv1.NetworkPolicy{}
	default:
		t.Errorf("%s: %+v is not expected", name, meta)
		return ""
	}
	if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
		t.Errorf("%s: %v\n%s", name, err, doc)
	}
	if pod != nil {
		restricted(t, name, pod)
	}
	if strings.Contains(doc, "one-time") {
		t.Errorf("%s has the ticket itself", name)
	}
	return meta.Kind
}

// restricted holds a pod against the restricted level of Pod Security, with the checks of Kubernetes' own admission, and our containers against what they promise.
func restricted(t *testing.T, name string, pod *corev1.PodTemplateSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
		if !r.Allowed {
			t.Errorf("%s: %s: %s", name, r.ForbiddenReason, r.ForbiddenDetail)
		}
	}
	found := false
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name != "sallyport" {
			continue
		}
		found = true
		s := c.SecurityContext
		switch {
		case s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem:
			t.Errorf("%s: the root can be written", name)
		case c.ReadinessProbe == nil || c.LivenessProbe == nil || c.StartupProbe == nil:
			t.Errorf("%s: a probe is missing", name)
		case c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero():
			t.Errorf("%s: resources %+v", name, c.Resources)
		}
	}
	if !found || pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken {
		t.Errorf("%s: our container is there: %v; service account token %v", name, found, pod.Spec.AutomountServiceAccountToken)
	}
}

// render is helm template.
func render(t *testing.T, dir string, v map[string]any) (map[string]string, error) {
	t.Helper()
	c, err := loader.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if dir == app { // what helm dependency build does
		under, err := loader.Load(ours)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDependencies(under)
	}
	all, err := toRender(c, v)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

func toRender(c *chart.Chart, v map[string]any) (chartutil.Values, error) {
	if err := chartutil.ProcessDependencies(c, v); err != nil {
		return nil, err
	}
	return chartutil.ToRenderValues(c, v, chartutil.ReleaseOptions{Name: "r", Namespace: "default", Revision: 1, IsInstall: true}, chartutil.DefaultCapabilities)
}
