// Package httpheader sets header fields in the HTTP/1 requests of a byte stream, whatever pieces it comes in
// (docs/protocol/03 §1.12). It does no I/O: bytes in, bytes out.
//
// Heads are held back until they are whole, at most MaxHead bytes, and written anew; bodies pass unchanged. Because a server trusts
// the fields that are set here, a stream that could be understood in two ways is refused rather than guessed at: conflicting
// or repeated lengths, lengths spelled with "_", folded lines, stray control characters. What a client sent under a name that is set is left out, in trailers too,
// and so is the option of its Connection field that would make a server drop it. "_" and "-" in names count as the same, as they do for
// many servers behind a gateway.
//
// After an upgrade that the server accepts (101, or to CONNECT 200 without a length) the stream is no longer HTTP and passes unchanged. Until the
// server has answered, what follows such a request is held back. Upgrades to HTTP/2 are left out of the request: the requests in it
// could not be rewritten. A server goes on in HTTP/1.1 then.
package httpheader
