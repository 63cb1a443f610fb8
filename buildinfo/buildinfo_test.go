package buildinfo

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestChangelog: the number is a version, and the changelog says what it brings.
func TestChangelog(t *testing.T) {
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+(-[a-z0-9.]+)?$`).MatchString(Version) {
		t.Errorf("%q is not a version", Version)
	}
	text, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if first := regexp.MustCompile(`(?m)^## (\S+)`).FindStringSubmatch(string(text)); len(first) == 0 || first[1] != Version {
		t.Errorf("the first heading of CHANGELOG.md is %q, the version %s", first, Version)
	}
}

// TestRevision: what the linker says counts, and without it there is a word all the same.
func TestRevision(t *testing.T) {
	if Revision() == "" {
		t.Error("no revision")
	}
	before := revision
	defer func() { revision = before }()
	revision = "0123456789ab"
	if Revision() != revision || Full() != Version+"+0123456789ab" || !strings.HasPrefix(Get().Go, "go") {
		t.Errorf("%s, %+v", Full(), Get())
	}
}
