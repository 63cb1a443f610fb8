package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadServices(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "{}": "", "secure_channel_listener: {address: a}": "a", "secure-channel-listener: {address: a}": "a",
		`{"secure_channel_listener": {"address": "/service/a"}}`:                           "a",
		`{"startup_services": {"secure_channel_listener": {"address": "a"}, "other": {}}}`: "a",
		"secure_channel_listener: {address: a, disabled: true}":                            "",
		"secure_channel_listener: {address: api}":                                          "", // every node has it
		`{"services": {"secure-channel-listener": {"address": "a"}}}`:                      "a",
		"startup-services: {secure-channel-listener: {address: a}}":                        "a",
	} {
		c, err := readServices(text)
		if err != nil || c.address() != want {
			t.Errorf("%q: %q, %v; want %q", text, c.address(), err, want)
		}
	}
	for text, want := range map[string]string{
		"garbage":                    "invalid value 'garbage' for '--services'",
		"[1]":                        "invalid value",
		"secure_channel_listener: x": "invalid value",
		"secure_channel_listener: {disabled: maybe}":                                   "invalid value",
		`{"control_api": {"frontend": true}}`:                                          "control API",
		`{"services": {"control-api": {}}}`:                                            "control API",
		"secure_channel_listener: {identity: x}":                                       "every node has",
		"secure_channel_listener: {address: /service/api, authorized-identifiers: []}": "every node has",
		"startup_services: {control_api: {a: b}}":                                      "control API",
		"secure_channel_listener: {address: [a, b]}}":                                  "invalid value",
	} {
		if _, err := readServices(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "services.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := servicesText(t.Context(), path); err != nil || text != "{}" {
		t.Errorf("from a file: %q, %v", text, err)
	}
	if text, err := servicesText(t.Context(), "{}"); err != nil || text != "{}" {
		t.Errorf("%q, %v", text, err)
	}
}

// FuzzReadServices checks that no text makes it panic, and that what is refused starts nothing.
func FuzzReadServices(f *testing.F) {
	for _, seed := range []string{"", "{}", "secure_channel_listener: {address: a}", `{"startup_services": {"secure_channel_listener": {"address": "a"}}}`, "a: &x [*x]", "["} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := readServices(text)
		if err == nil && c.ControlAPI != nil {
			t.Errorf("%q: the control API passes", text)
		}
	})
}
