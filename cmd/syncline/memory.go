package main

import (
	"os"
	"runtime/debug"
)

// memoryLimit is where the garbage collector begins to work harder, so that a server stays below 300 MB while it passes large
// transactions on. A row that is larger still passes. The variable GOMEMLIMIT sets another limit.
const memoryLimit = 200 << 20

func boundMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
