package proxyproto_test

import (
	"fmt"
	"net/netip"

	"sallyport/portal/proxyproto"
)

// A proxy says whose connection it is, and the server behind it reads that before all else.
func Example() {
	stream := proxyproto.Append(nil, proxyproto.V1, proxyproto.Header{
		Source: netip.MustParseAddrPort("192.0.2.7:51234"), Destination: netip.MustParseAddrPort("198.51.100.1:443"),
	})
	stream = append(stream, "hello"...)
	h, n, err := proxyproto.Parse(stream)
	fmt.Printf("%v %q %v\n", h.Source, stream[n:], err)
	_, _, err = proxyproto.Parse(stream[:10])
	fmt.Println(err == proxyproto.ErrShort)
	// Output:
	// 192.0.2.7:51234 "hello" <nil>
	// true
}
