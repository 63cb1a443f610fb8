package httpheader_test

import (
	"fmt"

	"sallyport/portal/httpheader"
)

// A field is set in each request, whatever the client sent under its name.
func Example() {
	field, err := httpheader.ParseField("X-User: alice")
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httpheader.New(httpheader.Options{Fields: func() []httpheader.Field { return []httpheader.Field{field} }, NoUpgrade: true})
	out, _, err := r.Rewrite(nil, []byte("GET / HTTP/1.1\r\nHost: example\r\nx-user: mallory\r\n\r\n"))
	fmt.Printf("%q %v\n", out, err)
	// Output:
	// "GET / HTTP/1.1\r\nX-User: alice\r\nHost: example\r\n\r\n" <nil>
}
