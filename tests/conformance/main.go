// Conformance of an OCI runtime with the runtime specification, from outside: documents are made by
// Debian's runtime-tools `generate`, limits are read back by its `cgroups`, and the runtime is only
// known by its command line. See README.md.
//
//	conformance RUNTIME CHECK       one check; exit code 0 passed, 1 failed, 77 not possible here
//	conformance --list              the names
//	conformance inside              (in the container) compares /config.json with what it sees
package main

import (
	"fmt"
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

const (
	exitFailed  = 1
	exitSkipped = 77
)

// A check is a name, as the upstream validation suite has them where it has one, and a body.
var checks = map[string]func(*Test){}

func register(name string, body func(*Test)) { checks[name] = body }

type skipped string

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "inside":
		os.Exit(inside())
	case len(os.Args) == 2 && os.Args[1] == "pause":
		for { // Only waits for its end.
			unix.Pause()
		}
	case len(os.Args) >= 3 && os.Args[1] == "touch":
		os.Exit(appendLine(os.Args[2], os.Args[3:]))
	case len(os.Args) == 2 && os.Args[1] == "--list":
		names := make([]string, 0, len(checks))
		for name := range checks {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Println(name)
		}
	case len(os.Args) == 3:
		os.Exit(runCheck(os.Args[1], os.Args[2]))
	default:
		fmt.Fprintln(os.Stderr, "usage: conformance RUNTIME CHECK | --list")
		os.Exit(exitFailed)
	}
}

func runCheck(runtime, name string) (code int) {
	body, known := checks[name]
	if !known {
		fmt.Fprintf(os.Stderr, "there is no check %q\n", name)
		return exitFailed
	}
	test := newTest(runtime)
	defer func() {
		switch reason := recover().(type) {
		case nil:
		case skipped:
			fmt.Printf("SKIPPED %s: %s\n", name, string(reason))
			code = exitSkipped
		default:
			fmt.Printf("FAILED %s: %v\n", name, reason)
			code = exitFailed
		}
		if left := test.cleanUp(); len(left) > 0 && code == 0 {
			fmt.Printf("FAILED %s: left behind: %v\n", name, left)
			code = exitFailed
		}
		if code == 0 {
			fmt.Printf("PASSED %s\n", name)
		}
	}()
	body(test)
	return 0
}
