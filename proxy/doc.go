// Package proxy connects through proxies: HTTP CONNECT (RFC 9110 section 9.3.6) with Basic credentials, over TLS if wanted, and SOCKS5 (RFC 1928) with user
// and password (RFC 1929). Rules say which destination goes through which proxy, from configuration and from the environment.
//
// The name of the destination is resolved by the proxy, the proxy's own as package names does. Credentials are in no text that the package
// returns. It blocks, so it is not for an event loop.
package proxy
