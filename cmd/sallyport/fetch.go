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

	"sallyport/names"
)

// fetchTimeout bounds the download of a configuration or a ticket.
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

// fetch downloads at most limit bytes of text. What is asked for by https never goes over plain http, redirected or not.
func fetch(ctx context.Context, from string, limit int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return "", usageError("invalid URL '%s': %v", from, errors.Unwrap(err))
	}
	where := req.URL.Redacted()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = names.Dial
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(to *http.Request, via []*http.Request) error {
		switch {
		case len(via) >= 5:
			return errors.New("more than 5 redirections")
		case via[0].URL.Scheme == "https" && to.URL.Scheme != "https":
			return fmt.Errorf("redirected from https to %s", to.URL.Redacted())
		}
		return nil
	}}
	resp, err := client.Do(req)
	var detail *url.Error
	if errors.As(err, &detail) {
		err = detail.Err // without the URL, which may hold a password
	}
	if err != nil {
		return "", fmt.Errorf("download %s: %w", where, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("download %s: the server answers %s", where, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return "", fmt.Errorf("download %s: %w", where, err)
	}
	if int64(len(b)) > limit {
		return "", fmt.Errorf("download %s: more than %d bytes", where, limit)
	}
	return string(b), nil
}
