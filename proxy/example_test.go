package proxy_test

import (
	"fmt"

	"sallyport/proxy"
)

// Which destination goes through which proxy: the most that a list says, then the environment. Credentials are in no text.
func ExampleParse() {
	rules, err := proxy.Parse([]string{"10.0.0.0/8=direct", "http://user:secret@proxy.example:3128"}, func(string) string { return "" })
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, to := range []string{"10.1.2.3:443", "relay.example:443"} {
		through, err := rules.For(to)
		fmt.Println(to, through, err)
	}
	// Output:
	// 10.1.2.3:443 direct <nil>
	// relay.example:443 http://proxy.example:3128 <nil>
}
