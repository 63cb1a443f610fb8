package main

// insideRows can't be seen from outside a process: tests of the packages stand for them.
var insideRows = []row{
	{
		name: "tasks", number: 15, attack: "loops are given tasks whose context ends", promised: "a task runs and is waited for, or never runs; what was begun is rolled back",
		proof: "dataplane: TestDoRace; routing: TestStartNamedRollsBack, TestAddConsumerRollsBack; routing/tcp: TestListenGivenUp",
	},
	{
		name: "panics", number: 16, attack: "one peer's input makes a handler panic", promised: "that peer's connection ends, with a stack in the log and a count; the node goes on",
		proof: "dataplane: TestFaultEndsOne, TestFaultTellsTask; routing: TestFaultLeavesNoDepth; routing/tcp: TestFaultEndsConnection; routing/secure: TestFaultInHandshake",
	},
	{
		name: "no-resolver", number: 17, attack: "an outlet of a library user that gives no resolver", promised: "the system is asked",
		proof: "portal: TestOutletAsksTheSystem",
	},
}
