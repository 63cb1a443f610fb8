package tcp

import (
	"net"
	"strings"
)

// Layer is what lies between TCP and the messages.
type Layer string

// The layers.
const (
	Plain     Layer = "tcp" // nothing
	TLS       Layer = "tls"
	WebSocket Layer = "ws"
	SecureWS  Layer = "wss" // WebSocket over TLS
)

func (l Layer) tls() bool       { return l == TLS || l == SecureWS }
func (l Layer) webSocket() bool { return l == WebSocket || l == SecureWS }

// Address says where another node is and how it is reached.
type Address struct {
	// Layer is Plain if empty.
	Layer Layer
	// HostPort is host:port.
	HostPort string
	// Name is who the server is for: in TLS the name that is asked for (SNI) and that its certificate must have, in WebSocket the Host. Empty
	// is the host of HostPort.
	Name string
	// Path is asked for with WebSocket; empty is "/".
	Path string
	// Spread decides in which order the addresses of a name are tried, see names.Resolver. It does not matter where a proxy resolves the name.
	Spread string
}

// String returns the address as people write it.
func (a Address) String() string {
	if a.Layer == "" || a.Layer == Plain {
		return a.HostPort
	}
	text := string(a.Layer) + "://" + a.HostPort
	if a.Layer.webSocket() {
		text += a.path()
	}
	return text
}

func (a Address) path() string {
	if a.Path == "" {
		return "/"
	}
	return a.Path
}

// name is Name or its default, without a dot at its end, which is in no certificate.
func (a Address) name() string {
	name := a.Name
	if name == "" {
		name, _, _ = net.SplitHostPort(a.HostPort)
	}
	return strings.TrimSuffix(name, ".")
}

// hostField is the Host of a request: the port stands in it unless the scheme means it (RFC 9110 section 7.2).
func (a Address) hostField() string {
	name := a.name()
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	_, port, _ := net.SplitHostPort(a.HostPort)
	if port == "443" && a.Layer == SecureWS || port == "80" && a.Layer == WebSocket {
		return name
	}
	return name + ":" + port
}
