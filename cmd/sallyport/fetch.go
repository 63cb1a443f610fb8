package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// fetchTimeout is how long a configuration or a ticket may take to come from the web.
const fetchTimeout = 30 * time.Second

// webAddress returns the URL that an argument is, or "". As in the reference, host:port/path without a scheme is one too.
func webAddress(arg string) string {
	if strings.HasPrefix(arg, "http://") || strings.HasPrefix(arg, "https://") {
		return arg
	}
	host, _, found := strings.Cut(arg, "/")
	if !found || !strings.Contains(host, ":") || strings.ContainsAny(arg, " \n{") {
		return ""
	}
	if _, err := hostPort("", host); err != nil {
		return ""
	}
	if _, err := os.Stat(arg); err == nil {
		return ""
	}
	return "http://" + arg
}

// fetch reads a page of at most limit bytes from the web.
func fetch(ctx context.Context, address string, limit int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // the address may hold a secret
		}
		return "", fmt.Errorf("fetch from %s: %w", request.URL.Redacted(), err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("fetch from %s: the server answers %s", request.URL.Redacted(), answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	if err != nil {
		return "", fmt.Errorf("fetch from %s: %w", request.URL.Redacted(), err)
	}
	return string(text), nil
}
