package httpheader

import "bytes"

// head handles the head of a request and appends the one that is sent for it.
func (r *Rewriter) head(dst []byte) ([]byte, error) {
	lines := splitLines(r.lines.take())
	parts := bytes.Split(lines[0], []byte{' '})
	if len(parts) != 3 || !isToken(parts[0]) || !isTarget(parts[1]) {
		return dst, refuse(400, "the first line is no HTTP request line")
	}
	method, version := string(parts[0]), string(parts[2])
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return dst, refuse(400, "only HTTP/1.0 and HTTP/1.1 are understood")
	}
	fields, err := parseFields(lines[1:])
	if err != nil {
		return dst, err
	}
	body, err := bodyOf(fields)
	if err != nil {
		return dst, err
	}
	hosts, upgrade, connect := 0, false, method == "CONNECT"
	for _, h := range fields {
		switch canonical(h.name) {
		case "host":
			hosts++
		case "upgrade":
			upgrade = true
		}
	}
	upgrade = upgrade && !r.opts.NoUpgrade && !toHTTP2(fields)
	switch {
	case hosts > 1:
		return dst, refuse(400, "more than one Host")
	case body.chunked && version == "HTTP/1.0":
		return dst, refuse(400, "Transfer-Encoding in HTTP/1.0")
	case connect && (r.opts.NoUpgrade || body.chunked || body.length > 0):
		return dst, refuse(501, "CONNECT is not supported here")
	case (connect || upgrade) && r.answers.lost:
		return dst, refuse(501, "an upgrade after answers that were not understood")
	}
	set := r.opts.Fields()
	if len(set) == 0 {
		return dst, refuse(503, "the header to set is not known yet")
	}
	drop := names(set)
	target := parts[1]
	if drop["host"] && !connect {
		// A host in the target would count more than the one that is set (RFC 9112 §3.2.2).
		if target = withoutHost(target); target == nil {
			return dst, refuse(400, "the request's target is neither a path nor an http URL")
		}
	}
	dst = append(append(dst, method...), ' ')
	dst = append(append(dst, target...), ' ')
	dst = append(append(dst, version...), "\r\n"...)
	for _, f := range set {
		dst = appendField(dst, []byte(f.Name), []byte(f.Value))
	}
	if !upgrade {
		drop["upgrade"], drop["http2-settings"] = true, true
	}
	for _, h := range fields {
		name := canonical(h.name)
		if drop[name] {
			continue
		}
		value := h.value
		if name == "connection" {
			if value = withoutOptions(value, drop); len(value) == 0 {
				continue
			}
		}
		dst = appendField(dst, h.name, value)
	}
	dst = append(dst, "\r\n"...)

	r.began = true
	r.chunked, r.upgrade, r.left = body.chunked, connect || upgrade, max(body.length, 0)
	if !r.opts.NoUpgrade {
		r.answers.expect(kindOf(method, upgrade))
	}
	switch {
	case r.chunked:
		r.state = inChunkSize
	case r.left > 0:
		r.state = inBody
	default:
		r.end()
	}
	return dst, nil
}

// isTarget reports whether b may be a request's target: no white space, no control characters.
func isTarget(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return len(b) > 0
}

// withoutHost returns the path of a request's target, nil if it has none.
func withoutHost(target []byte) []byte {
	if target[0] == '/' || string(target) == "*" {
		return target
	}
	scheme, rest, found := bytes.Cut(target, []byte("://"))
	if !found || (!bytes.EqualFold(scheme, []byte("http")) && !bytes.EqualFold(scheme, []byte("https"))) {
		return nil
	}
	i := bytes.IndexAny(rest, "/?#")
	switch {
	case i < 0:
		return []byte("/")
	case rest[i] == '/':
		return rest[i:]
	}
	return append([]byte("/"), rest[i:]...)
}

// toHTTP2 reports whether a request asks for HTTP/2, or another version of HTTP, on its connection.
func toHTTP2(fields []line) bool {
	for _, h := range fields {
		if canonical(h.name) != "upgrade" {
			continue
		}
		for _, protocol := range bytes.Split(bytes.ToLower(h.value), []byte{','}) {
			protocol = bytes.Trim(protocol, " \t")
			if bytes.HasPrefix(protocol, []byte("h2")) || bytes.HasPrefix(protocol, []byte("http")) {
				return true
			}
		}
	}
	return false
}

// withoutOptions returns a Connection field's value without the options that name dropped fields.
func withoutOptions(value []byte, drop map[string]bool) []byte {
	var kept [][]byte
	all := bytes.Split(value, []byte{','})
	for _, option := range all {
		if name := bytes.Trim(option, " \t"); !drop[canonical(name)] {
			kept = append(kept, name)
		}
	}
	if len(kept) == len(all) {
		return value
	}
	return bytes.Join(kept, []byte(", "))
}

func names(fields []Field) map[string]bool {
	m := make(map[string]bool, len(fields)+2)
	for _, f := range fields {
		m[canonical([]byte(f.Name))] = true
	}
	return m
}

func appendField(dst, name, value []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}
