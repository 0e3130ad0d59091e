package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

// The whole program of a hook: appends its words, then what it read from stdin, to a file.
func appendLine(path string, words []string) int {
	stdin, _ := io.ReadAll(os.Stdin)
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return 1
	}
	defer file.Close()
	file.WriteString(strings.Join(words, " ") + "\t" + strings.ReplaceAll(string(stdin), "\n", " ") + "\n")
	if len(words) > 1 && words[1] == "fail" {
		return 1
	}
	return 0
}

// A hook that leaves a line in `log`; with `fail` it ends with 1.
func (c *Container) hook(log string, words ...string) rspec.Hook {
	return rspec.Hook{Path: c.rootfs("conformance"), Args: append([]string{"conformance", "touch", log}, words...)}
}

type hookLine struct {
	word  string
	state rspec.State
}

func (c *Container) hookLines(log string) (lines []hookLine) {
	text, _ := os.ReadFile(log)
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		halves := strings.SplitN(line, "\t", 2)
		if len(halves) != 2 {
			continue
		}
		one := hookLine{word: halves[0]}
		c.test.must(json.Unmarshal([]byte(halves[1]), &one.state), "decode the state that hook "+halves[0]+" got")
		lines = append(lines, one)
	}
	return lines
}

func words(lines []hookLine) string {
	var all []string
	for _, line := range lines {
		all = append(all, line.word)
	}
	return strings.Join(all, ",")
}

func (c *Container) expectWords(log, wanted string) []hookLine {
	lines := c.hookLines(log)
	if got := words(lines); got != wanted {
		c.test.fail("hooks ran as %q, not %q", got, wanted)
	}
	return lines
}

// Hooks of every kind that run on the host, two of each.
func (c *Container) addHooks(log string) {
	two := func(name string) []rspec.Hook {
		return []rspec.Hook{c.hook(log, name+"1"), c.hook(log, name+"2")}
	}
	c.Config.Hooks = &rspec.Hooks{Prestart: two("prestart"), CreateRuntime: two("createRuntime"),
		Poststart: two("poststart"), Poststop: two("poststop")}
}

func init() {
	register("hooks", func(t *Test) {
		c := t.container()
		log := filepath.Join(c.Bundle, "log")
		c.addHooks(log)
		c.create()
		c.expectWords(log, "prestart1,prestart2,createRuntime1,createRuntime2")
		c.start()
		c.awaitStopped()
		c.ok("delete", c.ID)
		c.expectWords(log, "prestart1,prestart2,createRuntime1,createRuntime2,poststart1,poststart2,poststop1,poststop2")
	})
	register("hooks_stdin", func(t *Test) {
		c := t.container()
		log := filepath.Join(c.Bundle, "log")
		c.addHooks(log)
		c.create()
		pid := c.state().Pid
		c.start()
		c.awaitStopped()
		c.ok("delete", c.ID)
		for _, line := range c.hookLines(log) {
			state := line.state
			if state.ID != c.ID || state.Bundle != c.Bundle || state.Version == "" {
				t.fail("hook %s got %+v", line.word, state)
			}
			stop := strings.HasPrefix(line.word, "poststop")
			if !stop && state.Pid != pid {
				t.fail("hook %s got pid %d, not %d", line.word, state.Pid, pid)
			}
			if stop && state.Status != rspec.StateStopped {
				t.fail("hook %s got status %s", line.word, state.Status)
			}
		}
	})
	register("prestart_fail", func(t *Test) {
		c := t.container()
		log := filepath.Join(c.Bundle, "log")
		c.Config.Hooks = &rspec.Hooks{Prestart: []rspec.Hook{c.hook(log, "prestart", "fail")}}
		c.save()
		c.refused("create", "--bundle", c.Bundle, c.ID)
		c.refused("state", c.ID)
	})
	register("poststart", func(t *Test) {
		c := t.pausing()
		log := filepath.Join(c.Bundle, "log")
		c.Config.Hooks = &rspec.Hooks{Poststart: []rspec.Hook{c.hook(log, "poststart")}}
		c.create()
		c.expectWords(log, "")
		c.start()
		c.expectWords(log, "poststart") // Before start returns.
	})
	register("poststop", func(t *Test) {
		c := t.container()
		log := filepath.Join(c.Bundle, "log")
		c.Config.Hooks = &rspec.Hooks{Poststop: []rspec.Hook{c.hook(log, "poststop")}}
		c.create()
		c.start()
		c.awaitStopped()
		c.expectWords(log, "")
		c.ok("delete", c.ID)
		c.expectWords(log, "poststop") // Before delete returns.
	})
	register("poststop_fail", func(t *Test) {
		// The specification: log a warning and go on with the others, as if it had succeeded.
		c := t.container()
		log := filepath.Join(c.Bundle, "log")
		c.Config.Hooks = &rspec.Hooks{Poststop: []rspec.Hook{c.hook(log, "poststop1", "fail"), c.hook(log, "poststop2")}}
		c.create()
		c.start()
		c.awaitStopped()
		c.ok("delete", c.ID)
		c.expectWords(log, "poststop1 fail,poststop2")
		c.refused("state", c.ID)
	})
}
