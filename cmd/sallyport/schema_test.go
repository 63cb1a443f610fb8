//go:build !small

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"sallyport/config"
	"sallyport/node/resource"
)

// What the schema allows is accepted, and what it does not have is refused: key by key, for every section.
func TestSchema(t *testing.T) {
	root := newRoot(newApp(strings.NewReader(""), os.Stdout, os.Stderr))
	s := configurationSchema(root)
	accepted := func(text string) bool {
		_, err := config.Load(config.NodeCreate, []byte(text), config.Options{Flags: flagsOf()})
		return err == nil || !strings.Contains(err.Error(), "nknown key")
	}
	top := s["properties"].(object)
	for _, key := range slices.Sorted(maps.Keys(top)) {
		if !accepted(key + ": 1\n") {
			t.Errorf("the schema has %q, which is refused", key)
		}
	}
	for _, section := range config.Sections(config.NodeCreate) {
		properties := s["$defs"].(object)[section.Keys[1]].(object)["properties"].(object)
		for _, key := range slices.Sorted(maps.Keys(properties)) {
			if text := fmt.Sprintf("%s: [{%s: 1}]\n", section.Keys[0], key); !accepted(text) {
				t.Errorf("the schema has %q of %s, which is refused", key, section.Keys[0])
			}
		}
		for _, key := range section.Keys {
			if top[key] == nil {
				t.Errorf("the schema lacks %s", key)
			}
		}
		if text := section.Keys[0] + ": [{nosuchkey: 1}]\n"; accepted(text) {
			t.Errorf("%s: an unknown key is accepted", section.Keys[0])
		}
	}
}

// Every field of a request that has a flag can be set in a configuration.
func TestSchemaHasEveryOption(t *testing.T) {
	s := configurationSchema(newRoot(newApp(strings.NewReader(""), os.Stdout, os.Stderr)))
	defs := s["$defs"].(object)
	for kind, flags := range resource.Flags() {
		section := map[string]string{
			resource.KindHop: "hop", resource.KindCertificate: "tls-certificate-provider",
		}[kind]
		if section == "" {
			section = kind
		}
		properties := defs[section].(object)["properties"].(object)
		for _, flag := range flags {
			if flag != "influxdb" && properties[flag] == nil && !(kind == resource.KindTCPListener && flag == "address") {
				t.Errorf("%s: the option %s cannot be set in a configuration", kind, flag)
			}
		}
	}
}
