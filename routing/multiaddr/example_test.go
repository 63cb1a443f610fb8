package multiaddr_test

import (
	"fmt"

	"sallyport/routing/multiaddr"
)

func Example() {
	addr, err := multiaddr.Parse("/dnsaddr/relay.example/tcp/4000/secure/api/service/echo")
	if err != nil {
		fmt.Println(err)
		return
	}
	network, hostPort, _, _ := addr.HostPort()
	fmt.Println(network, hostPort)
	fmt.Println(addr[len(addr)-1])

	_, err = multiaddr.Parse("/dnsaddr/relay.example/tcp/80000")
	fmt.Println(err)
	// Output:
	// tcp relay.example:4000
	// /service/echo
	// address "/dnsaddr/relay.example/tcp/80000": at byte 27: invalid value: "80000"
}

func ExampleExpandInletTo() {
	addr, err := multiaddr.ExpandInletTo("postgres", "blue", "partners")
	fmt.Println(addr, err)
	// Output: /project/partners/service/forward_to_blue/secure/api/service/postgres <nil>
}
