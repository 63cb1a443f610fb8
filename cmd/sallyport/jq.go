//go:build !small

package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/itchyny/gojq"
)

// filter runs the --jq query over v and returns its results, one a line.
func (a *app) filter(v any) (string, error) {
	query, err := gojq.Parse(a.jq)
	if err != nil {
		return "", fmt.Errorf("--jq %q: %w", a.jq, err)
	}
	plain, err := encodeJSON(v, true)
	if err != nil {
		return "", err
	}
	var in any
	d := json.NewDecoder(strings.NewReader(plain))
	if err := d.Decode(&in); err != nil {
		return "", err
	}
	var lines []string
	for it := query.Run(in); ; {
		out, ok := it.Next()
		if !ok {
			return strings.Join(lines, "\n"), nil
		}
		if err, failed := out.(error); failed {
			return "", fmt.Errorf("--jq: %w", err)
		}
		line, err := encodeJSON(out, a.compact)
		if err != nil {
			return "", err
		}
		lines = append(lines, line)
	}
}
