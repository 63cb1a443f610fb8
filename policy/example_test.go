package policy_test

import (
	"fmt"

	"sallyport/policy"
)

// A node decides whether a peer may use the outlet "db".
func Example() {
	set := policy.NewSet()
	expr, err := policy.Parse("component=web and not suspended")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(expr)
	if err := set.Set(policy.ByName("db"), expr); err != nil {
		fmt.Println(err)
		return
	}

	env := policy.NewEnv("db", policy.HandleMessage.String())
	env.SetSubject("I69c228786aec9341b3c1912423ae769f63200ceb553a2eba4c5b262b6766fc7c", true, true,
		map[string]string{"component": "web", "suspended": "false"})
	fmt.Println(set.Lookup("db", policy.TCPOutlet).Allows(env))
	fmt.Println(set.Lookup("db", policy.TCPOutlet).Identifiers())
	// Output:
	// (and (= subject.component "web") (not (= subject.suspended "true")))
	// true
	// [subject.component subject.suspended]
}

func ExampleParse_error() {
	_, err := policy.Parse(`(= subject.component ["web" 1])`)
	fmt.Println(err)
	// Output:
	// policy: column 29: element 2 of the sequence has another type than the one before it
}
