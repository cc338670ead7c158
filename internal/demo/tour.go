package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tour tells how to look around: addresses and three commands.
func (d *demo) tour() string {
	var s strings.Builder
	for _, n := range d.nodes() {
		fmt.Fprintf(&s, "  %-9s %s   gRPC %s\n", n.name, shortURL(n), n.grpc)
		fmt.Fprintf(&s, "  %-9s http://%s/metrics\n", "", n.http)
	}
	program := shortPath(d.options.Binary)
	first := d.replicas[0]
	fmt.Fprintf(&s, "  Try:  %s status --addr %s\n", program, first.grpc)
	fmt.Fprintf(&s, "        %s follow --from earliest --limit 5 --addr %s\n", program, d.primary.grpc)
	fmt.Fprintf(&s, `        psql %s -c '\dt+ shop.*'`, shortURL(first))
	return s.String()
}

// shortURL is the database's URL as psql needs it.
func shortURL(n *node) string {
	url, _, _ := strings.Cut(n.url(), "?")
	return url
}

// shortPath is a path as one would type it here.
func shortPath(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(here, path); err == nil && !strings.HasPrefix(short, "..") {
		return short
	}
	return path
}
