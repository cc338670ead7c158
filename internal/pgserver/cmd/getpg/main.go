// Getpg makes sure that PostgreSQL servers of the versions named on its command line are on this machine, "any" if none
// is named, and prints where they are. What is missing it installs with apt-get or npm, into a cache.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/seed0419d559/syncline/internal/pgserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	versions := os.Args[1:]
	if len(versions) == 0 {
		versions = []string{"any"}
	}
	for _, version := range versions {
		b, err := pgserver.Install(ctx, version, os.Stderr)
		if err != nil {
			fmt.Fprintln(os.Stderr, "getpg:", err)
			os.Exit(1)
		}
		fmt.Printf("PostgreSQL %s: %s\n", b.Version, b.Dir)
	}
}
